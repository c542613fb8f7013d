"""Points in the plane to train on, each with a class: where a network has to bend its field."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Shape = tuple[Tensor, Tensor]
"""Points (N, 2) within [-1, 1], and their classes (N,)."""


def moons(n: int, generator: torch.Generator) -> Shape:
    """Return two half circles, each about an end of the other."""
    y, turn = torch.arange(n) % 2, math.pi * uniform(n, generator)
    half = torch.stack([turn.cos() - 0.5, turn.sin() - 0.25], 1)
    return noisy(0.62 * torch.where(y[:, None] == 0, half, -half), 0.03, generator), y


def spirals(n: int, generator: torch.Generator) -> Shape:
    """Return three arms that wind round the middle."""
    y, along = torch.arange(n) % 3, uniform(n, generator).sqrt()
    turn = 2 * math.pi * y / 3 + 1.8 * math.pi * along
    return noisy(polar(0.1 + 0.82 * along, turn), 0.02, generator), y


def rings(n: int, generator: torch.Generator) -> Shape:
    """Return a ring within a ring, the outer one with as many points for its length."""
    turn = 2 * math.pi * uniform(n, generator)
    y = (torch.arange(n) % 3 > 0).long()
    return noisy(polar(torch.where(y == 0, 0.4, 0.82), turn), 0.03, generator), y


def grid(n: int, generator: torch.Generator) -> Shape:
    """Return 16 spots, of two classes like the squares of a board."""
    i = torch.arange(n) % 16
    row, column = i // 4, i % 4
    middle = torch.stack([column, row], 1) * 0.5 - 0.75
    return noisy(middle, 0.04, generator), (row + column) % 2


def uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator)


def polar(radius: Tensor, turn: Tensor) -> Tensor:
    return torch.stack([radius * turn.cos(), radius * turn.sin()], 1)


def noisy(x: Tensor, std: float, generator: torch.Generator) -> Tensor:
    return (x + std * torch.randn(x.shape, generator=generator)).clamp(-1, 1)


SHAPES: dict[str, Callable[[int, torch.Generator], Shape]] = {
    "moons": moons,
    "spirals": spirals,
    "rings": rings,
    "grid": grid,
}
