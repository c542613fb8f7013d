"""Seeds and noise that depend on what they are for, and on nothing that was drawn before."""

import torch

from ddpm.utils.random import INIT, STEP, ImageNoise, derive_seed


def test_a_seed_depends_on_seed_purpose_and_index():
    seeds = [derive_seed(s, p, i) for s in (0, 1) for p in (INIT, STEP) for i in range(3)]
    assert len(set(seeds)) == len(seeds)
    assert derive_seed(1, STEP, 2) == derive_seed(1, STEP, 2)
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_the_noise_of_an_image_is_the_same_in_every_batch():
    both, second = ImageNoise(5, [0, 1], (1, 4, 4)), ImageNoise(5, [1], (1, 4, 4))
    first_draw = both()
    assert first_draw.shape == (2, 1, 4, 4)
    assert first_draw.dtype == torch.float32
    assert torch.equal(first_draw[1:], second())
    assert torch.equal(both()[1:], second())  # and so are later draws
