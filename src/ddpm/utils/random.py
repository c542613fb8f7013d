"""Randomness that can be found again: keyed by what it is for, never by what was drawn before."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

INIT, ORDER, STEP = range(3)  # what a seed is for: weights, an epoch's order, a training step


def derive_seed(seed: int, purpose: int, index: int = 0) -> int:
    """A seed of 64 bits for one purpose and index, which tells nothing of its neighbours."""
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose, index))
    return int(sequence.generate_state(1, np.uint64)[0])


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
