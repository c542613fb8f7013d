"""Pixels and pictures."""

import torch

from ddpm import to_float, to_uint8


def test_pixels_survive_the_way_to_floats_and_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert to_float(levels).min() == -1
    assert to_float(levels).max() == 1
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(torch.tensor([-5.0, 5.0])).tolist() == [0, 255]
