"""Are the samples copies? For each the training image that is nearest, beside what is usual."""

from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from .images import grid, zoom_for


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest of the training images to each of N images: their distances (N,), the root mean
    square over pixels of the difference, in levels of 0 … 255; and their places (N,)."""

    distance: Tensor
    index: Tensor


@torch.inference_mode()
def nearest(images: Tensor, training: Tensor, device: torch.device | str = "cpu") -> Nearest:
    """min_j ‖x_i − y_j‖ over uint8 images (N, C, H, W) and (M, C, H, W), part by part.

    From ‖x‖² − 2 x·y + ‖y‖², in float32: pixels are centred at 0 first, so that little is lost.
    """
    best = torch.full((len(images),), torch.inf, device=device)
    index = torch.zeros(len(images), dtype=torch.long, device=device)
    x = centred(images, device)
    for first in range(0, len(training), 5000):
        y = centred(training[first : first + 5000], device)
        for rows in torch.arange(len(x), device=device).split(1000):
            square = x[rows].square().sum(1, True) - 2 * x[rows] @ y.T + y.square().sum(1)
            near, at = square.min(1)
            better = near < best[rows]
            best[rows] = torch.where(better, near, best[rows])
            index[rows] = torch.where(better, at + first, index[rows])
    distance = (best.clamp(min=0) / x.shape[1]).sqrt() * 127.5
    return Nearest(distance.cpu(), index.cpu())


def centred(images: Tensor, device: torch.device | str) -> Tensor:
    return images.to(device).flatten(1).float() / 127.5 - 1


def report(made: Nearest, real: Nearest) -> str:
    """Distances to the nearest training image: of samples, and of real images that are not in
    training. Samples that lie nearer than nearly all real ones are copies, or nearly so."""
    shares = torch.tensor([0.01, 0.1, 0.5, 0.9])
    lines = [f"{'nearest training':19}{'samples':>9}{'held-out images':>17}"]
    a, b = made.distance.quantile(shares), real.distance.quantile(shares)
    for share, x, y in zip(shares.tolist(), a.tolist(), b.tolist(), strict=True):
        lines.append(f"{f'  at {share:.0%}':19}{x:9.2f}{y:17.2f}")
    nearer = (made.distance < b[0]).float().mean().item()
    lines.append(f"{'':19}{nearer:.1%} of samples are nearer than all but 1 % of held-out images")
    return "\n".join(lines)


def pairs(images: Tensor, training: Tensor, made: Nearest, n: int = 32) -> Image:
    """The n samples that are nearest to a training image, each to the left of that image."""
    chosen = made.distance.argsort()[:n]
    both = torch.stack([images[chosen], training[made.index[chosen]]], dim=1).flatten(0, 1)
    return grid(both, columns=8, zoom=zoom_for(both))
