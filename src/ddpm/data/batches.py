"""Batches of training images."""

import torch
from torch import Tensor

from ..utils.images import to_float
from ..utils.memory import free_memory
from ..utils.random import ORDER, derive_seed
from .dataset import ImageDataset


class Batches:
    """Batches of shuffled images, epoch after epoch; batch k depends on data, seed and k alone.

    batches(k) returns x0 in [−1, 1], float32 (B, C, H, W), and y, int64 (B,) or None.

    flip    mirror half of the images, drawn from torch's global generator
    device  where batches are returned; the images are moved there where they take less than a
            quarter of its free memory
    part    the slice of each batch to return, for one of several processes; what is random is
            drawn for the whole batch, so that it does not depend on their number
    subset  indices of the images to use, int64; None for all
    """

    def __init__(
        self,
        data: ImageDataset,
        batch: int,
        seed: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
        part: slice = slice(None),
        subset: Tensor | None = None,
    ):
        self.subset = torch.arange(len(data)) if subset is None else subset
        self.n, self.batch, self.seed, self.flip = len(self.subset), batch, seed, flip
        self.part = part
        self.device = torch.device(device)
        kind = self.device.type
        here = kind == "cpu"  # where the images are already
        fits = here or data.images.nbytes < free_memory(self.device) / 4
        if kind == "mps":  # whose indices are of 32 bits in places (pytorch/pytorch issue 149325)
            fits = fits and data.images.numel() < 2**31
        # On MPS the copy may read what has been freed (pytorch/pytorch issue 189690).
        self.non_blocking = kind != "mps"
        storage = self.device if fits else data.images.device
        self.images = data.images.to(storage)
        self.labels = None if data.labels is None else data.labels.to(storage)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __call__(self, k: int) -> tuple[Tensor, Tensor | None]:
        index = self.indices(k)[self.part]
        x0 = to_float(self.to_device(self.images[index]))
        y = None if self.labels is None else self.to_device(self.labels[index])
        if self.flip:
            mirrored = torch.rand(self.batch, 1, 1, 1, device=self.device) < 0.5
            x0 = torch.where(mirrored[self.part], x0.flip(-1), x0)
        return x0, y

    def to_device(self, batch: Tensor) -> Tensor:
        return batch.to(self.device, non_blocking=self.non_blocking)

    def indices(self, k: int) -> Tensor:
        """Return the indices of the images in batch k, int64 (B,), on the images' device."""
        first, end, n = k * self.batch, (k + 1) * self.batch, self.n
        epochs = range(first // n, (end - 1) // n + 1)
        return torch.cat([self.order(e)[max(0, first - e * n) : end - e * n] for e in epochs])

    def order(self, epoch: int) -> Tensor:
        """Return the indices of all images in the order of an epoch."""
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, ORDER, epoch))
            order = torch.randperm(self.n, generator=generator)
            self._epoch, self._order = epoch, self.subset[order].to(self.images.device)
        return self._order
