"""How near samples are to training images, and whether that is nearer than is usual."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from ..utils.distributed import SINGLE_PROCESS, Processes
from ..utils.files import atomic_write
from ..utils.images import grid, zoom_for
from .reference import Reference, subset
from .report import NearestDistances

AT_ONCE = 2**28  # bytes of training images that are compared at once with as many samples, or fewer
LEVEL = 0.5  # of 0 … 255: what is nearer is a copy, whatever real images are
QUANTILES = (0.01, 0.1, 0.5, 0.9)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest training image to each of N images: its distance (N,), the root mean square over
    pixels of the difference, in levels of 0 … 255; and its index (N,)."""

    distance: Tensor
    index: Tensor


def measure_memorization(
    samples: Tensor,
    reference: Reference,
    flip: bool = False,
    path: Path | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> tuple[float, NearestDistances]:
    """Return the share of samples (N, C, H, W) that are memorized, and their distances from the
    training images beside those of as many real images; write a picture of the nearest to `path`.
    """
    training, device = reference.training, search_device(reference.extractor.device)
    others = training if reference.unseen is None else reference.unseen
    index = subset(others, len(samples))
    images, known, real_images = match_channels(samples, training.images, others.images[index])
    found = nearest(images, known, flip=flip, device=device, processes=processes)
    real = nearest(
        real_images, known, flip=flip, device=device, processes=processes,
        exclude=index if others is training else None,
    )  # fmt: skip
    if path is not None and processes.is_main:
        with atomic_write(path) as beside:
            picture(images, known, found).save(beside, "png")
    return memorized_share(found, real), compare_distances(found, real)


@torch.inference_mode()
def nearest(
    images: Tensor,
    training: Tensor,
    *,
    flip: bool = False,
    exclude: Tensor | None = None,
    device: torch.device | str = "cpu",
    processes: Processes = SINGLE_PROCESS,
) -> Nearest:
    """Return min_j ‖x_i − y_j‖ over uint8 images (N, C, H, W) and (M, C, H, W), part by part.

    flip       also compare the mirror images of `images`, as training saw both
    exclude    (N,) indices: do not compare image i with training image exclude[i], which is itself
    processes  share the work; each of them returns all of it

    From ‖x‖² − 2 x·y + ‖y‖², in float32: pixels are centred at 0 first, so that little is lost.
    """
    columns_at_once = min(5000, max(1, AT_ONCE // (4 * images[0].numel())))
    rows = min(1000, columns_at_once)

    def search(rows: Tensor) -> tuple[Tensor, Tensor]:
        ways = [images[rows], images[rows].flip(-1)] if flip else [images[rows]]
        samples = [centred(way, device) for way in ways]
        own = None if exclude is None else exclude[rows].to(device)
        best = torch.full((len(rows),), torch.inf, device=device)
        index = torch.zeros(len(rows), dtype=torch.long, device=device)
        for first in range(0, len(training), columns_at_once):
            y = centred(training[first : first + columns_at_once], device)
            for x in samples:
                square = x.square().sum(1, True) - 2 * x @ y.T + y.square().sum(1)
                if own is not None:
                    columns = torch.arange(first, first + len(y), device=device)
                    square[own[:, None] == columns] = torch.inf
                near, at = square.min(1)
                index = torch.where(near < best, at + first, index)
                best = torch.minimum(near, best)
        distance = (best.clamp(min=0) / images[0].numel()).sqrt() * 127.5
        return distance.cpu(), index.cpu()

    parts = processes.map_in_order(torch.arange(len(images)).split(rows), search)
    distance, index = (torch.cat(part) for part in zip(*parts, strict=True))
    return Nearest(distance, index)


def centred(images: Tensor, device: torch.device | str) -> Tensor:
    return images.to(device).flatten(1).float() / 127.5 - 1


def search_device(device: torch.device) -> torch.device:
    """Return where to search: not on MPS, which multiplies long rows wrongly (pytorch/pytorch issue
    195163)."""
    return torch.device("cpu") if device.type == "mps" else device


def match_channels(*sets: Tensor) -> list[Tensor]:
    """Return sets of images (N, C, H, W), the gray ones as RGB where one of them is in colour."""
    channels = max(images.shape[1] for images in sets)
    return [images.expand(-1, channels, -1, -1) for images in sets]


def nearest_seconds(n: int, training: Tensor, flip: bool, device: torch.device | str) -> float:
    """Estimate the time that `nearest` takes for n images, by timing a few."""
    few, some = training[:100], training[:1000]
    nearest(few, some, flip=flip, device=device)
    start = time.perf_counter()
    nearest(few, some, flip=flip, device=device)
    each = (time.perf_counter() - start) / (len(few) * len(some))
    return each * n * len(training)


def memorized_share(samples: Nearest, real: Nearest) -> float:
    """Return the share of samples that are nearer to a training image than all but 1 % of real
    images: 1 % is what samples as new as real images would have. Copies are memorized even where
    real images have copies among those of training too."""
    near = real.distance.quantile(0.01).clamp(min=LEVEL)
    return (samples.distance < near).float().mean().item()


def compare_distances(samples: Nearest, real: Nearest) -> NearestDistances:
    """Return quantiles of both sets of distances."""
    q = torch.tensor(QUANTILES)
    of_samples, of_real = samples.distance.quantile(q), real.distance.quantile(q)
    return NearestDistances(QUANTILES, tuple(of_samples.tolist()), tuple(of_real.tolist()))


def picture(images: Tensor, training: Tensor, samples: Nearest, n: int = 32) -> Image:
    """Return a grid of the n samples that are nearest to a training image, each to the left of that
    image."""
    chosen = samples.distance.argsort()[:n]
    both = torch.stack([images[chosen], training[samples.index[chosen]]], dim=1).flatten(0, 1)
    return grid(both, columns=8, zoom=zoom_for(both))
