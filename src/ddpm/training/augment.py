"""Augmentation that does not leak: images are moved about, and the network sees how in labels."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import TrainConfig

AUGMENT_DIM = 9  # size of the labels
SCALE = STRETCH = 2**0.2
SHIFT = 1 / 8  # of the side


def augment(
    x0: Tensor, p: float, batch: int | None = None, part: slice = slice(None)
) -> tuple[Tensor, Tensor | None]:
    """Six geometric changes, and the labels that tell the network   [EDM, App. F.2, Table 6]

    mirrored left to right     a_0 ~ U{0, 1}                           a_0
    turned upside down         a_1 ~ U{0, 1}                           a_1
    scaled by 2^{0.2 a_2}      a_2 ~ N(0, 1)                           a_2
    turned by a_3              a_3 ~ U(−π, π)                          cos a_3 − 1, sin a_3
    stretched by 2^{0.2 a_5}   along a_4 ~ U(−π, π), a_5 ~ |N(0, 1)|   a_5 cos a_4, a_5 sin a_4
    shifted by sides/8 times   a_6, a_7 ~ N(0, 1)                      a_6, a_7

    The first is made always, each of the others to an image with probability p, else its numbers
    are 0. Where all labels are 0 the image is as it was: a network that samples with zeros does
    not show the changes. In the paper a_5 has a sign, which gives two changes one label; without it
    the changes are the same, each with a label of its own.

    All is drawn for the whole `batch`, from torch's global generator; x0, (B, C, H, W), is this
    process's `part` of it. Between pixels it is bilinear, and beyond the edges reflected. Returns
    the images and their labels, the right column, (B, 9); for p = 0 x0 and None, undrawn.
    """
    if not p:
        return x0, None
    a = draw_parameters(batch or len(x0), p, x0.device)[part]
    labels = augment_labels(a)
    theta = affine(a, *x0.shape[-2:])
    grid = F.affine_grid(theta, list(x0.shape), align_corners=False)
    moved = F.grid_sample(x0, grid, padding_mode="reflection", align_corners=False)
    return torch.where((labels != 0).any(1)[:, None, None, None], moved, x0), labels


def augment_dim(config: TrainConfig) -> int:
    """Return the size of the labels; 0 without augmentation."""
    return AUGMENT_DIM if config.augment else 0


def draw_parameters(n: int, p: float, device: torch.device) -> Tensor:
    """Return a_0 … a_7 of n images, (n, 8)."""
    mirrored, over = torch.randint(2, (n, 2), device=device).float().unbind(1)
    turn, direction = (math.pi * (2 * torch.rand(n, 2, device=device) - 1)).unbind(1)
    size, stretch, right, down = torch.randn(n, 4, device=device).unbind(1)
    of_1, of_2, of_3, of_5, of_6 = (torch.rand(n, 5, device=device) < p).unbind(1)
    return torch.stack(
        [mirrored, of_1 * over, of_2 * size, of_3 * turn, of_5 * direction, of_5 * stretch.abs(),
         of_6 * right, of_6 * down], dim=1,
    )  # fmt: skip


def augment_labels(a: Tensor) -> Tensor:
    """Return c_aug, (n, 9), of a_0 … a_7: zero where nothing is changed."""
    a0, a1, a2, a3, a4, a5, a6, a7 = a.unbind(1)
    return torch.stack(
        [a0, a1, a2, a3.cos() - 1, a3.sin(), a5 * a4.cos(), a5 * a4.sin(), a6, a7], dim=1
    )


def affine(a: Tensor, height: int, width: int) -> Tensor:
    """Return where each place of a changed image comes from, (n, 2, 3), for `affine_grid`.

    An image is mirrored, scaled, turned, stretched and shifted, in this order, so a place goes back
    through the inverses of these from the last to the first.
    """
    a0, a1, a2, a3, a4, a5, _, _ = a.unbind(1)
    stretch = torch.stack([STRETCH**-a5, STRETCH**a5], dim=1)
    size = SCALE ** -a2[:, None] * torch.stack([1 - 2 * a0, 1 - 2 * a1], dim=1)
    back = rotation(-a3) @ rotation(a4) @ (stretch[:, :, None] * rotation(-a4))
    xx, xy, yx, yy = (size[:, :, None] * back).flatten(1).unbind(1)
    aspect = height / width  # both axes of the grid run from −1 to 1
    back = torch.stack([xx, xy * aspect, yx / aspect, yy], dim=1).view(-1, 2, 2)
    return torch.cat([back, -back @ (2 * SHIFT * a[:, 6:, None])], dim=2)


def rotation(angle: Tensor) -> Tensor:
    """Return rotations from x towards y, (n, 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
