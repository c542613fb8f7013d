"""Reproducible randomness: keyed by what it is for, never by what was drawn before."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from .errors import UserError

INIT, ORDER, STEP = range(3)  # purposes: initial weights, order of an epoch, a training step


def check_seed(seed: int) -> None:
    """Raise UserError for what is no seed."""
    if not 0 <= seed < 2**64:
        raise UserError(f"a seed is a whole number from 0 to 2^64 - 1, and not {seed}")


def derive_seed(seed: int, purpose: int, index: int = 0) -> int:
    """Return a seed of 64 bits for one purpose and index, independent of those for others."""
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose, index))
    return int(sequence.generate_state(1, np.uint64)[0])


class ImageNoise:
    """Noise for a batch of images: that of image i comes from a Philox stream keyed by (seed, i).

    So image i is the same in batches of every size, on every device and in every run.

    indices  of the images; each is a stream
    shape    (C, H, W) of an image
    """

    def __init__(
        self,
        seed: int,
        indices: Iterable[int],
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
    ):
        check_seed(seed)
        self.streams = [
            np.random.Generator(np.random.Philox(key=np.array([seed, i], dtype=np.uint64)))
            for i in indices
        ]
        self.shape, self.device = shape, device

    def __call__(self) -> Tensor:
        """Draw new noise, float32 (len(indices), *shape)."""
        draws = [s.standard_normal(self.shape, dtype=np.float32) for s in self.streams]
        return torch.from_numpy(np.stack(draws)).to(self.device)
