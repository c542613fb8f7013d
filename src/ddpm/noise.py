"""Randomness that can be found again: keyed by what it is for, never by what was drawn before."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def derive_seed(seed: int, *path: int) -> int:
    """A seed for one purpose, such as (rank, step), that tells nothing of its neighbours."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0] >> 1)


class ImageNoise:
    """Noise for a batch of images: image i has a Philox stream of its own, keyed by (seed, i).

    So image i is the same in every batch size, on every device and in every run.
    """

    def __init__(
        self,
        seed: int,
        indices: Iterable[int],
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
    ):
        self.streams = [
            np.random.Generator(np.random.Philox(key=np.array([seed, i], dtype=np.uint64)))
            for i in indices
        ]
        self.shape, self.device = shape, device

    def __call__(self) -> Tensor:
        """Fresh noise, float32 of shape (len(indices), *shape)."""
        draws = [s.standard_normal(self.shape, dtype=np.float32) for s in self.streams]
        return torch.from_numpy(np.stack(draws)).to(self.device)
