"""Are the samples memorized? For each the training image that is nearest, beside what is usual."""

import time
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from ..utils.images import grid, zoom_for


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest of the training images to each of N images: their distances (N,), the root mean
    square over pixels of the difference, in levels of 0 … 255; and their places (N,)."""

    distance: Tensor
    index: Tensor


@torch.inference_mode()
def nearest(
    images: Tensor,
    training: Tensor,
    *,
    flip: bool = False,
    itself: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Nearest:
    """min_j ‖x_i − y_j‖ over uint8 images (N, C, H, W) and (M, C, H, W), part by part.

    flip    the images' mirror images count too: training saw both
    itself  (N,), the place of each image in the training set, where it is from there: not counted

    From ‖x‖² − 2 x·y + ‖y‖², in float32: pixels are centred at 0 first, so that little is lost.
    """
    n = len(images)
    best = torch.full((n,), torch.inf, device=device)
    index = torch.zeros(n, dtype=torch.long, device=device)
    own = None if itself is None else itself.to(device)
    for first in range(0, len(training), 5000):
        y = centred(training[first : first + 5000], device)
        for start in range(0, n, 1000):
            rows = slice(start, start + 1000)
            for way in [images[rows], images[rows].flip(-1)] if flip else [images[rows]]:
                x = centred(way, device)
                square = x.square().sum(1, True) - 2 * x @ y.T + y.square().sum(1)
                if own is not None:
                    columns = torch.arange(first, first + len(y), device=device)
                    square[own[rows, None] == columns] = torch.inf
                near, at = square.min(1)
                better = near < best[rows]
                best[rows] = torch.where(better, near, best[rows])
                index[rows] = torch.where(better, at + first, index[rows])
    distance = (best.clamp(min=0) / images[0].numel()).sqrt() * 127.5
    return Nearest(distance.cpu(), index.cpu())


def alike(*sets: Tensor) -> list[Tensor]:
    """Sets of images (N, C, H, W), the gray ones as RGB where one of them is in colour."""
    channels = max(images.shape[1] for images in sets)
    return [images.expand(-1, channels, -1, -1) for images in sets]


def seconds(n: int, training: Tensor, flip: bool, device: torch.device | str) -> float:
    """How long `nearest` takes for n images, from a few that are timed."""
    few, some = training[:100], training[:1000]
    nearest(few, some, flip=flip, device=device)
    start = time.perf_counter()
    nearest(few, some, flip=flip, device=device)
    each = (time.perf_counter() - start) / (len(few) * len(some))
    return each * n * len(training)


def centred(images: Tensor, device: torch.device | str) -> Tensor:
    return images.to(device).flatten(1).float() / 127.5 - 1


def memorized_share(made: Nearest, real: Nearest) -> float:
    """The share of samples that lie nearer to a training image than all but 1 % of real images do:
    1 % is what samples as new as real images would have."""
    return (made.distance < real.distance.quantile(0.01)).float().mean().item()


def nearest_report(made: Nearest, real: Nearest) -> str:
    """Distances to the nearest training image, of samples and of real images."""
    shares = torch.tensor([0.01, 0.1, 0.5, 0.9])
    lines = [f"{'nearest training image':24}{'samples':>10}{'real images':>14}"]
    a, b = made.distance.quantile(shares), real.distance.quantile(shares)
    for share, x, y in zip(shares.tolist(), a.tolist(), b.tolist(), strict=True):
        lines.append(f"{f'  {share:.0%} are nearer than':24}{x:10.2f}{y:14.2f}")
    return "\n".join(lines)


def pairs(images: Tensor, training: Tensor, made: Nearest, n: int = 32) -> Image:
    """The n samples that are nearest to a training image, each to the left of that image."""
    chosen = made.distance.argsort()[:n]
    both = torch.stack([images[chosen], training[made.index[chosen]]], dim=1).flatten(0, 1)
    return grid(both, columns=8, zoom=zoom_for(both))
