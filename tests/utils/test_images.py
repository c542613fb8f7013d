"""Pixels and pictures."""

import io

import numpy as np
import torch
from PIL import Image

from ddpm import grid, to_float, to_uint8
from ddpm.utils.images import save_animation, to_pil


def test_pixels_survive_the_way_to_floats_and_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert to_float(levels).min() == -1
    assert to_float(levels).max() == 1
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(torch.tensor([-5.0, 5.0])).tolist() == [0, 255]


def test_a_grid_holds_every_image():
    images = torch.full((5, 3, 8, 10), 200, dtype=torch.uint8)
    assert grid(images, gap=2).size == (3 * 12 - 2, 2 * 10 - 2)
    assert grid(images, columns=5, gap=0, zoom=2).size == (100, 16)
    pixels = np.asarray(grid(images, columns=5, gap=0))
    assert (pixels == 200).all()


def test_images_with_any_number_of_channels_can_be_seen():
    assert to_pil(torch.zeros(1, 8, 10, dtype=torch.uint8)).size == (10, 8)
    assert to_pil(torch.zeros(3, 8, 10, dtype=torch.uint8)).mode == "RGB"
    assert to_pil(torch.zeros(4, 8, 10, dtype=torch.uint8)).mode == "RGBA"
    assert to_pil(torch.zeros(5, 8, 10, dtype=torch.uint8)).size == (50, 8)


def test_an_animation_plays_its_frames(tmp_path):
    frames = [to_pil(torch.full((1, 8, 8), v, dtype=torch.uint8)) for v in (0, 100, 200)]
    save_animation(frames, tmp_path / "a.webp", seconds=1)
    save_animation(frames, (file := io.BytesIO()), "gif")
    assert Image.open(tmp_path / "a.webp").n_frames == Image.open(file).n_frames == 3
