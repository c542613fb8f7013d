"""The loss on images that are held out from training, for each band of noise.

Where it rises while the loss on training images falls, the network memorizes images.
"""

import logging
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint.run_dir import RunDir
from ..core.diffusion import Diffusion
from ..core.loss import Loss
from ..data.dataset import ImageDataset
from ..utils.files import append_line, last_step, read_lines
from ..utils.images import to_float
from ..utils.random import ImageNoise
from .state import TrainState

BANDS = {"SNR over 10": (10, math.inf), "SNR 1 to 10": (1, 10), "SNR 0.1 to 1": (0.1, 1),
         "SNR under 0.1": (0, 0.1)}  # fmt: skip
ONE_IN = 20  # images at most are held out
RISE = 1.02  # times its lowest, and a loss has risen

logger = logging.getLogger(__name__)


def held_out_count(n: int, most: int) -> int:
    """Return how many of n images are held out: `most` at most, and one in ONE_IN at most."""
    return min(most, n // ONE_IN)


def split_held_out(n: int, most: int) -> tuple[Tensor, Tensor]:
    """Return the indices of n images that are learned, and of those that are held out, which are
    spread evenly over the set."""
    k = held_out_count(n, most)
    held_out = torch.zeros(n, dtype=torch.bool)
    held_out[torch.arange(k) * n // max(k, 1) + n // max(2 * k, 1)] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()


class Validation:
    """Measures the loss on held-out images and on as many that are learned: always the same ones,
    at the same times, in the same noise."""

    def __init__(
        self,
        run: RunDir,
        data: ImageDataset,
        learned: Tensor,
        held_out: Tensor,
        diffusion: Diffusion,
        seed: int,
    ):
        self.run, self.loss, self.seed = run, Loss(diffusion), seed
        few = learned[torch.arange(len(held_out)) * len(learned) // max(len(held_out), 1)]
        self.sets = {
            name: (data.images[at], None if data.labels is None else data.labels[at])
            for name, at in (("held out", held_out), ("learned", few))
        }
        self.warned = False

    def measure(self, state: TrainState) -> None:
        """Append a line to held-out.jsonl, unless there is one of this step, and warn once where
        images are memorized."""
        path = self.run.held_out
        if last_step(path) == state.step:
            return
        config = state.config.train
        losses = self.losses(state.ema.model, config.batch // config.accumulate)
        if not losses:
            return
        self.run.require_held()
        append_line(path, {"step": state.step, "images": state.images_seen, **losses})
        note = overfitting_note(read_lines(path))
        if note and not self.warned:
            self.warned = True
            logger.warning(note)

    def losses(self, net: nn.Module, batch: int) -> dict[str, dict[str, float]]:
        """Return {"held out": {band: loss}, "learned": {band: loss}}, {} where nothing is held out.

        Unweighted, with the true labels. Bands in which the schedule has no time are left out.
        """
        if not len(self.sets["held out"][0]):
            return {}
        times = times_in_bands(self.loss.diffusion)
        return {
            name: {band: self.mean_loss(net, images, labels, t, batch) for band, t in times.items()}
            for name, (images, labels) in self.sets.items()
        }

    @torch.inference_mode()
    def mean_loss(
        self, net: nn.Module, images: Tensor, labels: Tensor | None, times: Tensor, batch: int
    ) -> float:
        device = self.loss.diffusion.device
        n, total = len(images), 0.0
        for index in torch.arange(n).split(batch):
            x0 = to_float(images[index].to(device))
            y = None if labels is None else labels[index].to(device)
            t = times[index * len(times) // n].to(device)
            eps = ImageNoise(self.seed, index.tolist(), tuple(x0.shape[1:]), device)()
            total += self.loss(net, x0, t, eps, y).sum().item()
        return total / n


def times_in_bands(diffusion: Diffusion) -> dict[str, Tensor]:
    """Return the times 1 … T of each band that has any."""
    t = torch.arange(1, diffusion.T + 1)
    snr = diffusion.schedule.snr(t.to(diffusion.device)).cpu()
    inside = {name: t[(low <= snr) & (snr < high)] for name, (low, high) in BANDS.items()}
    return {name: times for name, times in inside.items() if len(times)}


def overfitting_note(lines: list[dict[str, Any]]) -> str | None:
    """Return a sentence on the first band whose held-out loss has risen from its lowest while the
    loss on training images has fallen; None where there is none."""
    *before, now = lines
    for band, loss in now["held out"].items():
        if not before:
            break
        lowest = min(before, key=lambda line: line["held out"][band])
        least = lowest["held out"][band]
        if loss > RISE * least and now["learned"][band] < lowest["learned"][band]:
            return (
                f"at {band} the loss on held-out images is {loss / least - 1:.0%} above its lowest "
                f"(step {lowest['step']:,}), and that on training images still falls: the network "
                f"begins to memorize images. Stop here, or take more images, --flip where "
                f"mirroring is harmless, or --unet.dropout"
            )
    return None
