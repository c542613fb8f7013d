"""Estimate the memory that sampling takes, and refuse what does not fit: a checkpoint may name any
size of images, whatever its weights are."""

import logging

import torch

from ..config import UNetConfig
from ..utils.errors import UserError, counted
from ..utils.memory import free_memory

LARGE = 1e9  # bytes, from which on the sum is said

logger = logging.getLogger(__name__)


def bytes_per_image(unet: UNetConfig, shape: tuple[int, int, int]) -> int:
    """Estimate the bytes that each image (C, H, W) of a batch takes while it passes through the
    network: the skips, a block where it is largest, and the sampler's own. Within a third of what
    was measured on a CPU; attention is computed without its matrix."""
    c, h, w = shape
    area = -(-h // unet.patch) * -(-w // unet.patch)
    widths = [unet.channels * m for m in unet.mults]
    areas = [area / 4**i for i in range(len(widths))]
    skips = unet.channels * area
    skips += sum((unet.blocks + 0.25) * width * a for width, a in zip(widths, areas, strict=True))
    below = [*widths[1:], widths[-1]]  # what comes up from there is concatenated with a skip
    block = max(
        (4 * max(width, other) + 2 * width) * a
        for width, other, a in zip(widths, below, areas, strict=True)
    )
    return round(5 * (skips + block + (6 * unet.fine + 10 * c) * h * w))


def require_memory(
    unet: UNetConfig,
    shape: tuple[int, int, int],
    batch: int,
    device: torch.device | str = "cpu",
    kept: int = 0,
    passes: int = 1,
    say: bool = False,
    kept_on_device: bool = False,
) -> None:
    """Raise UserError where there is not the memory for a `batch` of images (C, H, W) at a time,
    each of which makes so many `passes` at once, and for as many others as are `kept`, in the
    machine's memory or `kept_on_device`; `say` what is needed where it is much."""
    each, (c, h, w) = passes * bytes_per_image(unet, shape), shape
    results, free = 2 * kept * c * h * w, free_memory(device)
    if torch.device(device).type == "cuda" and not kept_on_device:
        if (left := free_memory()) < results:
            text = f"{counted(kept, 'image')} of {w}x{h} take {results / 1e9:,.1f} GB of memory"
            raise UserError(f"{text}, and {left / 1e9:,.1f} GB are free: ask for fewer")
        results = 0
    needed = batch * each + results
    made = f"making {counted(batch, 'image')} of {w}x{h} at a time"
    what = f"{made} takes about {needed / 1e9:,.1f} GB of memory"
    if say and LARGE < needed <= free:
        logger.info(what)
    if needed <= free:
        return
    fit = (free - results) // each
    advice = f"ask for fewer, or for --batch {fit}" if fit > 0 else "this machine is too small"
    raise UserError(f"{what}, and {free / 1e9:,.1f} GB are free: {advice}")
