"""The loss on images that are kept from training, for each band of noise.

Where it rises while the loss on training images falls, the network learns images by heart.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.diffusion import Diffusion
from ..core.loss import Loss
from ..data.folder import ImageDataset
from ..utils.images import to_float
from ..utils.random import ImageNoise

BANDS = {"SNR over 10": (10, math.inf), "SNR 1 to 10": (1, 10), "SNR 0.1 to 1": (0.1, 1),
         "SNR under 0.1": (0, 0.1)}  # fmt: skip
ONE_IN = 20  # images at most are set apart
RISE = 1.02  # times its lowest, and a loss has risen


def split_held_out(n: int, most: int) -> tuple[Tensor, Tensor]:
    """The places of n images that are learned, and of those that are not: `most` at most, spread
    evenly over the set."""
    k = min(most, n // ONE_IN)
    held = torch.zeros(n, dtype=torch.bool)
    held[torch.arange(k) * n // max(k, 1) + n // max(2 * k, 1)] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


class HeldOut:
    """Images to be looked at time and again: the same ones, at the same times, in the same noise.

    Those at the places `held` of the data, and as many of the `learned`.
    """

    def __init__(
        self, data: ImageDataset, held: Tensor, learned: Tensor, diffusion: Diffusion, seed: int
    ):
        self.diffusion, self.loss_fn = diffusion, Loss(diffusion)
        self.seed = seed
        few = learned[torch.arange(len(held)) * len(learned) // max(len(held), 1)]
        self.sets = {
            name: (data.images[at], None if data.labels is None else data.labels[at])
            for name, at in (("held out", held), ("learned", few))
        }

    def look(self, net: nn.Module, batch: int) -> dict[str, dict[str, float]]:
        """{"held out": {band: loss}, "learned": {band: loss}}: ‖error of the target‖², unweighted,
        with the true labels; {} where no image is held out. Bands without a time are left out."""
        if not len(self.sets["held out"][0]):
            return {}
        times = times_in_bands(self.diffusion)
        return {
            name: {band: self.loss(net, images, labels, t, batch) for band, t in times.items()}
            for name, (images, labels) in self.sets.items()
        }

    @torch.inference_mode()
    def loss(
        self, net: nn.Module, images: Tensor, labels: Tensor | None, times: Tensor, batch: int
    ) -> float:
        device = self.diffusion.schedule.alpha_bar.device
        n, total = len(images), 0.0
        for index in torch.arange(n).split(batch):
            x0 = to_float(images[index].to(device))
            y = None if labels is None else labels[index].to(device)
            t = times[index * len(times) // n].to(device)
            eps = ImageNoise(self.seed, index.tolist(), tuple(x0.shape[1:]), device)()
            total += self.loss_fn(net, x0, t, eps, y).sum().item()
        return total / n


def times_in_bands(diffusion: Diffusion) -> dict[str, Tensor]:
    t = torch.arange(1, diffusion.T + 1)
    snr = diffusion.schedule.snr(t.to(diffusion.schedule.alpha_bar.device)).cpu()
    inside = {name: t[(low <= snr) & (snr < high)] for name, (low, high) in BANDS.items()}
    return {name: times for name, times in inside.items() if len(times)}


def read_looks(path: Path) -> list[dict[str, Any]]:
    """The lines of held-out.jsonl."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def overfitting_note(looks: list[dict[str, Any]]) -> str | None:
    """The first band whose held-out loss has risen from its lowest while that on training images
    has fallen, in a sentence; None where there is none."""
    *before, now = looks
    for band, loss in now["held out"].items():
        if not before:
            break
        lowest = min(before, key=lambda look: look["held out"][band])
        least = lowest["held out"][band]
        if loss > RISE * least and now["learned"][band] < lowest["learned"][band]:
            return (
                f"at {band} the loss on held-out images is {loss / least - 1:.0%} above its lowest "
                f"(step {lowest['step']:,}), and that on training images still falls: the network "
                f"begins to learn images by heart. Stop here, or take more images, --flip where "
                f"mirroring is harmless, or --unet.dropout"
            )
    return None
