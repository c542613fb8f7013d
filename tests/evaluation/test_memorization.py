"""The nearest training images: found by hand in small sets, and copies told from new images."""

import numpy as np
import pytest
import torch

from ddpm.evaluation import memorization
from ddpm.evaluation.memorization import (
    compare_distances,
    match_channels,
    memorized_share,
    nearest,
    picture,
)
from pictures import photos


@pytest.mark.parametrize("part", [7, 5000])
def test_the_nearest_is_the_nearest(generator, monkeypatch, part):
    monkeypatch.setattr(memorization, "AT_ONCE", part * 4 * 3 * 8 * 8)
    a, b = (
        torch.randint(0, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
        for n in (20, 30)
    )
    found = nearest(a, b)
    all_pairs = (a[:, None].double() - b[None].double()).square().mean((2, 3, 4)).sqrt()
    wanted = all_pairs.min(1)
    torch.testing.assert_close(found.distance.double(), wanted.values, rtol=1e-4, atol=1e-3)
    assert torch.equal(found.index, wanted.indices)


def test_a_copy_is_at_no_distance_mirrored_or_not():
    real = photos(30)
    assert nearest(real[7:9], real).index.tolist() == [7, 8]
    assert nearest(real[7:9], real).distance.max() < 0.1
    mirrored = real[7:9].flip(-1)
    assert nearest(mirrored, real).distance.min() > 1
    assert nearest(mirrored, real, flip=True).index.tolist() == [7, 8]


def test_a_training_image_is_not_compared_with_itself():
    real = photos(30)
    index = torch.tensor([3, 20])
    found = nearest(real[index], real, exclude=index)
    assert (found.index != index).all()
    assert found.distance.min() > 0.1


def test_copies_are_counted():
    real = photos(400)
    index = torch.arange(0, 400, 4)
    usual = nearest(real[index], real, exclude=index)
    noisy = (real[:50].float() + 0.5).clamp(0, 255).to(torch.uint8)
    copies = nearest(noisy, real)
    assert memorized_share(copies, usual) == 1
    assert memorized_share(nearest(photos(50, seed=1), real), usual) < 0.1
    distances = compare_distances(copies, usual)
    assert distances.samples == pytest.approx(np.quantile(copies.distance, distances.quantiles))
    assert "50% are nearer than" in str(distances)


def test_copies_are_counted_where_real_images_are_copies_too():
    real = photos(100)
    twice = torch.cat([real, real])
    usual = nearest(real, twice, exclude=torch.arange(100))  # each has its double
    assert memorized_share(nearest(real[:20], twice), usual) == 1
    assert memorized_share(nearest(photos(20, seed=1), twice), usual) == 0


def test_gray_images_among_coloured_ones_become_rgb():
    sets = match_channels(photos(2), photos(3, channels=1))
    assert [tuple(images.shape) for images in sets] == [(2, 3, 16, 16), (3, 3, 16, 16)]
    (gray,) = match_channels(photos(2, channels=1))
    assert gray.shape == (2, 1, 16, 16)


def test_the_picture_has_pairs():
    real = photos(30)
    found = nearest(real[:10], real)
    side = 16 * 4
    shown = picture(real[:10], real, found, n=8)
    assert shown.size == (8 * (side + 2) - 2, 2 * (side + 2) - 2)
