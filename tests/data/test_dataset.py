"""ImageDataset: from arrays, with labels, and as people see it."""

import numpy as np
import pytest
import torch

from ddpm import ImageDataset, UserError, load_images

GRAY = np.random.default_rng(0).integers(0, 256, (6, 9, 12), dtype=np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (6, 9, 12, 3), dtype=np.uint8)


def test_an_array_of_any_layout():
    gray = ImageDataset.from_array(GRAY)
    assert gray.images.shape == (6, 1, 9, 12)
    assert np.array_equal(gray.images[:, 0], GRAY)
    last = ImageDataset.from_array(COLOUR)
    first = ImageDataset.from_array(torch.from_numpy(COLOUR).permute(0, 3, 1, 2))
    assert last.images.shape == (6, 3, 9, 12)
    assert torch.equal(last.images, first.images)
    assert last.fingerprint == first.fingerprint != gray.fingerprint
    assert last.labels is None
    assert last.info.shape == (3, 9, 12)


def test_labels_of_an_array():
    named = ImageDataset.from_array(COLOUR, [0, 2, 2, 0, 2, 0], ("cat", "dog", "frog"))
    assert named.labels.tolist() == [0, 2, 2, 0, 2, 0]
    assert named.classes == ("cat", "dog", "frog")
    values = ImageDataset.from_array(COLOUR, torch.tensor([7, 9, 9, 7, 9, 7]))
    assert values.labels.tolist() == [0, 1, 1, 0, 1, 0]
    assert values.classes == ("7", "9")
    assert values.without_labels().labels is None


def test_minus_one_is_no_class():
    for classes in (("0", "1"), ()):
        data = ImageDataset.from_array(COLOUR, [0, -1, 1, 0, -1, 1], classes)
        assert (data.classes, data.labels.tolist()) == (("0", "1"), [0, 2, 1, 0, 2, 1])


def test_labels_that_are_all_the_same_are_told():
    data = ImageDataset.from_array(COLOUR, [3] * 6)
    assert (data.classes, data.labels) == ((), None)
    assert "all the same" in data.notes[0]


def test_the_same_images_have_the_same_fingerprint(tmp_path):
    """Wherever they come from: a run is resumed by it."""
    np.savez(tmp_path / "a.npz", images=COLOUR, labels=np.arange(6) % 2)
    loaded = load_images(tmp_path / "a.npz")
    assert loaded.fingerprint == ImageDataset.from_array(COLOUR, np.arange(6) % 2).fingerprint
    assert load_images("mnist5k").fingerprint.startswith("c020acce1b887cea")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((COLOUR / 20,), "must be uint8, or numbers in .* and these are float64"),
        ((COLOUR[0],), "shape"),
        ((COLOUR[:0],), "shape"),
        ((COLOUR[:, :4],), "8 pixels or more a side"),
        ((COLOUR.repeat(3, -1),), "up to 4 channels"),
        ((COLOUR, [0, 1]), "one for each of 6 images"),
        ((COLOUR, [0.5] * 6), "one for each of 6 images"),
        ((COLOUR, [0, 1, 2, 3, 0, 0], ("a", "b")), "labels must be from 0 to 1"),
        ((COLOUR, [0, -2, 0, 0, 0, 0], ("a", "b")), "labels must be from 0 to 1"),
        ((COLOUR, None, ("a", "b")), "classes need labels"),
    ],
)
def test_an_array_that_will_not_do(arrays, message):
    with pytest.raises(UserError, match=message):
        ImageDataset.from_array(*arrays)


def test_its_repr_is_short():
    data = load_images("mnist5k")
    assert repr(data) == "ImageDataset('mnist5k': 5,000 images of 1x28x28, 10 classes)"
    assert repr(data.without_labels()) == "ImageDataset('mnist5k': 5,000 images of 1x28x28)"
