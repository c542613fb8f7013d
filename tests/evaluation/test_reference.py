"""Real images to compare with: which are held out, which make the floor, what is cached."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm import ImageDataset, UserError
from ddpm.evaluation import reference as module
from ddpm.evaluation.features import extract
from ddpm.evaluation.reference import (
    check_shape,
    floor,
    floor_moments,
    load_reference,
    make_protocol,
    reference_stats,
    subset,
    write_moments,
)
from pictures import folder_of, photos


@pytest.fixture
def small(scripted, tmp_path):
    return load_reference(folder_of(photos(60), tmp_path / "real"), features=scripted)


def test_images_that_do_not_fit_are_refused(digits):
    for shape in ((3, 32, 32), (1, 32, 32), (3, 28, 28)):
        with pytest.raises(UserError, match="digit-net takes images of 28x28 in 1 channel, and"):
            check_shape(digits, shape, "the samples'")


def test_images_of_another_size_are_refused(small):
    with pytest.raises(UserError, match="are 8x8 in 3 channels, and the reference's 16x16"):
        check_shape(small, (3, 8, 8), "the samples'")
    with pytest.raises(UserError, match="only images of one size, gray or RGB"):
        check_shape(small, (4, 16, 16), "the samples'")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "test"}, "--split is for named sets"),
        ({"held_out": "one"}, "has only one image"),
        ({"held_out": "real"}, "has the same images"),
        ({"features": "cifar-net"}, "cifar-net takes images of 32x32"),
    ],
)
def test_references_that_do_not_fit_together_are_refused(options, says, scripted, tmp_path):
    real = folder_of(photos(10), tmp_path / "real")
    folder_of(photos(1), tmp_path / "one")
    if "held_out" in options:
        options = {"held_out": tmp_path / options["held_out"]}
    with pytest.raises(UserError, match=says):
        load_reference(real, **{"features": scripted, **options})


def test_a_folder_with_the_name_of_a_set_is_a_folder(scripted, tmp_path, monkeypatch):
    """It has no test split, whose images would be these once more."""
    monkeypatch.chdir(folder_of(photos(8), tmp_path / "mnist").parent)
    reference = load_reference(Path("mnist"), features=scripted)
    assert (len(reference.images), reference.held_out) == (8, None)


def test_three_images_are_no_reference(scripted, tmp_path):
    with pytest.raises(UserError, match="has only 3 images: a distance needs thousands"):
        load_reference(folder_of(photos(3), tmp_path / "real"), features=scripted)


def test_too_few_samples(digits):
    with pytest.raises(UserError, match="too few samples, 1: digit-net needs 2"):
        make_protocol(digits, 1, {})


def test_training_images_are_not_held_out(shared_data, digits):
    """Whatever split samples are compared with, or is named for the floor."""
    train = load_reference("mnist", root=shared_data)
    test = load_reference("mnist", root=shared_data, split="test")
    assert train.training is train.images
    assert train.unseen is train.held_out
    assert test.training.fingerprint == train.images.fingerprint
    assert test.unseen.fingerprint == train.held_out.fingerprint
    assert test.held_out.fingerprint == train.images.fingerprint
    assert digits.held_out.fingerprint == train.held_out.fingerprint
    assert digits.unseen is digits.held_out
    assert make_protocol(test, 9, {}).held_out.split()[-1] == train.images.fingerprint[:16]
    with pytest.raises(UserError, match="the same images as mnist"):
        load_reference("mnist", root=shared_data, split="test", held_out="mnist")


def test_features_are_cached(small, monkeypatch):
    stats = reference_stats(small)
    of_real = floor(small, 20, stats)
    monkeypatch.setattr(module, "extract", lambda *a, **k: pytest.fail("computed again"))
    np.testing.assert_array_equal(reference_stats(small).moments.sum, stats.moments.sum)
    assert floor(small, 20, stats) == of_real


def test_images_in_memory_have_a_cache_of_their_own(scripted):
    sets = [ImageDataset(photos(9, seed), None, (), "array") for seed in (0, 1)]
    means = [
        reference_stats(load_reference(images, features=scripted)).moments.sum for images in sets
    ]
    assert not np.allclose(*means)


def test_damaged_features_are_computed_again(small):
    first = reference_stats(small)
    module.cache_file(small, small.images).write_bytes(b"damaged")
    again = reference_stats(small)
    np.testing.assert_allclose(again.moments.outer, first.moments.outer)


def test_a_cache_that_cannot_be_written_is_noted(small, tmp_path, caplog):
    (tmp_path / "file").touch()
    write_moments(tmp_path / "file" / "x.safetensors", reference_stats(small).moments)
    assert "could not be written" in caplog.text


def by_class(n, side=16):
    """n gray images of ten classes, one class after the other."""
    labels = 10 * torch.arange(n) // n
    images = (25 * labels).to(torch.uint8)[:, None, None, None].expand(-1, 3, side, side)
    return images, labels


@pytest.mark.parametrize("n", [10, 30, 45])
@pytest.mark.parametrize("held_out", [False, True])
def test_a_floor_has_all_classes_alike(scripted, tmp_path, n, held_out):
    """Even of a file whose images are sorted by class."""
    for name, count in (("real", 100), ("other", 90)):
        images, labels = by_class(count)
        array = images.permute(0, 2, 3, 1).numpy()
        np.savez(tmp_path / f"{name}.npz", images=array, labels=labels.numpy())
    other = tmp_path / "other.npz" if held_out else None
    reference = load_reference(tmp_path / "real.npz", features=scripted, held_out=other)
    images = reference.floor_images
    index = subset(images, n)
    counts = images.labels[index].bincount(minlength=10)
    assert len(index) == n
    assert counts.max() - counts.min() <= 1
    part = extract(reference.extractor, images.images[index])
    assert floor_moments(reference, n).n == n
    np.testing.assert_allclose(floor_moments(reference, n).sum, part.moments.sum)


def test_part_of_a_set_is_drawn_from_all_of_it():
    """Whatever its order tells: writers who come one after the other, classes that take turns."""
    images = ImageDataset.from_array(photos(200), torch.arange(200) % 10)
    index = subset(images, 20)
    assert sorted(images.labels[index].tolist()) == sorted(2 * list(range(10)))
    assert len(index.unique()) == 20
    assert 60 < index.float().mean() < 140
    assert not torch.equal(index.sort().values, torch.arange(20) * 10)
    assert torch.equal(index, subset(images, 20))
