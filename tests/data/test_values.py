"""What the numbers in images mean: one scale for a set, and a note of all that is cut or odd."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import ImageDataset, UserError, load_images
from ddpm.data.decode import read_image
from ddpm.data.inspect import inspect_images, inspection_notes

RAMP = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)


def folder(path, arrays, ending="tiff"):
    path.mkdir()
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(path / f"{i:02}.{ending}")
    return path


def about(data):
    return "; ".join([*data.notes, *inspection_notes(data, False)])


def test_one_bright_pixel_darkens_no_image(tmp_path):
    bright = RAMP.copy()
    bright[0, 0] = 1.01
    data = load_images(folder(tmp_path / "a", [RAMP] * 5 + [bright]))
    whole = (RAMP * 255).round()
    assert (data.images[:5].numpy() == whole).all()
    assert (data.images[5].numpy().flatten()[1:] == whole.flatten()[1:]).all()
    assert "0 is learned as black and 1 as white" in about(data)
    assert "values above 1 were cut in 1 image;" in about(data)


def test_a_dark_image_stays_darker_than_the_others(tmp_path):
    data = load_images(folder(tmp_path / "a", [RAMP * 1000, RAMP * 250, RAMP * 1000]))
    assert data.images.amax((1, 2, 3)).tolist() == [255, 64, 255]
    assert "stretched" in about(data)


def test_a_set_that_spans_minus_one_to_one(tmp_path):
    data = load_images(folder(tmp_path / "a", [2 * RAMP - 1] * 4))
    assert (data.images.numpy() == (RAMP * 255).round()).all()
    assert "lie in -1 … 1" in about(data)


def test_negatives_are_counted(tmp_path):
    wrong = RAMP.copy()
    wrong[0] = -0.3
    data = load_images(folder(tmp_path / "a", [RAMP] * 4 + [wrong] * 2))
    assert "values below 0 were cut in 2 images" in about(data)


@pytest.mark.parametrize("top", [255, 65535])
def test_integers_have_the_scale_of_all(tmp_path, top):
    data = load_images(folder(tmp_path / "a", [(RAMP * top).astype(np.int32)] * 3))
    assert abs(data.images.numpy().astype(int) - (RAMP * 255)).max() <= 1


def test_no_number_is_black(tmp_path):
    odd = RAMP.copy()
    odd[3, 3], odd[4, 4] = np.nan, np.inf
    data = load_images(folder(tmp_path / "a", [RAMP, odd]))
    assert (data.images[1, 0, 3, 3], data.images[1, 0, 4, 4]) == (0, 255)
    assert "not numbers became black, in 1 image" in about(data)


def test_no_number_is_black_where_black_is_minus_one(tmp_path):
    odd = 2 * RAMP - 1
    odd[3, 3], odd[4, 4], odd[5, 5] = np.nan, np.inf, -np.inf
    data = load_images(folder(tmp_path / "a", [2 * RAMP - 1, odd, odd, np.full_like(odd, np.nan)]))
    assert [data.images[1, 0, i, i] for i in (3, 4, 5)] == [0, 255, 0]
    assert not data.images[3].any()
    assert "not numbers became black, in 3 images" in about(data)
    handed = ImageDataset.from_array(np.stack([2 * RAMP - 1, odd]))
    assert (handed.images == data.images[:2]).all()
    assert "not numbers became black, in 1 image" in about(handed)


def test_one_scale_for_floats_in_a_zip_beside_other_files(tmp_path):
    files = folder(tmp_path / "a", [RAMP * 1000, RAMP * 250])
    Image.fromarray((RAMP * 128).astype(np.uint8)).save(files / "eight.png")
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(files / "sixteen.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in files.iterdir():
            archive.write(file, file.name)
    for path in (files, tmp_path / "a.zip"):
        data = load_images(path)
        assert data.images.amax((1, 2, 3)).tolist() == [255, 64, 128, 255]
        assert "pixels of 2 images are numbers from 0 to 1000" in about(data)
        assert "2 other images in the scale of the format" in about(data)


def test_an_image_for_editing_has_the_scale_of_the_set(tmp_path):
    data = load_images(folder(tmp_path / "a", [RAMP * 1000, RAMP * 250]))
    assert data.info.scale == (0, 1000)
    dark = tmp_path / "a" / "01.tiff"
    assert (read_image(dark, data.info) == data.images[1]).all()


def test_twelve_bits_in_sixteen_are_told(tmp_path):
    path = folder(tmp_path / "a", [(RAMP * 4095).astype(np.uint16)] * 3, "png")
    assert "17 of 256 levels, from 0 to 16" in about(load_images(path))
    lines = inspect_images(load_images(path), path)
    assert any("values of pixels: 17 of 256 levels" in line for line in lines)


def test_fourteen_bits_in_sixteen_are_told(tmp_path):
    rough = np.linspace(0, 16383, 100).reshape(10, 10).astype(np.uint16)
    assert "from 0 to 64" in about(load_images(folder(tmp_path / "a", [rough] * 3, "png")))


def test_a_tiff_whose_zero_is_white(tmp_path):
    dark = (RAMP * 65535).round().astype(np.uint16)
    (tmp_path / "a").mkdir()
    Image.fromarray(dark).save(tmp_path / "a" / "0.tiff", tiffinfo={262: 0})
    Image.fromarray(dark).save(tmp_path / "a" / "1.tiff")
    turned, same = load_images(tmp_path / "a").images.int()
    assert (turned + same - 255).abs().max() <= 1


def test_images_that_become_one_colour_are_told(tmp_path):
    white = np.full((8, 8, 4), 255, np.uint8)
    white[2:5] = (255, 255, 255, 0)
    photo = np.random.default_rng(0).integers(0, 255, (8, 8, 4), np.uint8)
    data = load_images(folder(tmp_path / "a", [white, white, photo], "png"))
    assert "2 of 3 images that were looked at are of one colour" in about(data)
    kept = load_images(tmp_path / "a", background="black")
    assert "of one colour" not in about(kept)


COLOUR = np.random.default_rng(1).integers(0, 256, (6, 8, 9, 3), np.uint8)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (COLOUR.astype(np.float32) / 255, "1 as white"),
        (COLOUR / 127.5 - 1, "-1 … 1"),
        (COLOUR.astype(np.int64), "255 as white"),
        (COLOUR.astype(np.uint16) * 257, "65535 as white"),
        (np.moveaxis(COLOUR, -1, 1), "(N, C, H, W)"),
    ],
)
def test_arrays_are_understood_and_told(tmp_path, array, told):
    np.savez(tmp_path / "a.npz", images=array)
    data = load_images(tmp_path / "a.npz")
    assert (data.images.numpy() == np.moveaxis(COLOUR, -1, 1)).all()
    assert told in about(data)
    handed = ImageDataset.from_array(array)
    assert (handed.images == data.images).all()
    assert told in about(handed)
    np.save(tmp_path / "a.npy", array)
    assert (load_images(tmp_path / "a.npy").images == data.images).all()
    np.savez(tmp_path / "b.npz", photos=np.asfortranarray(array), mean=np.zeros(3))
    other = load_images(tmp_path / "b.npz")
    assert (other.images == data.images).all()
    assert "images are the array photos" in about(other)
    assert "not used: mean" in about(other)
    assert (
        ImageDataset.from_array(torch.from_numpy(np.ascontiguousarray(array))).images == data.images
    ).all()


def test_arrays_that_could_mean_anything_are_refused(tmp_path):
    twelve_bits = COLOUR.astype(np.uint16) * 16
    for odd in (COLOUR * 0.02, COLOUR.astype(np.float32) * 9, twelve_bits, np.full((6, 8, 9), "a")):
        np.savez(tmp_path / "a.npz", images=odd)
        with pytest.raises(UserError, match="images must be"):
            load_images(tmp_path / "a.npz")
        with pytest.raises(UserError, match="images must be"):
            ImageDataset.from_array(odd)


@pytest.mark.parametrize(
    ("labels", "classes", "wanted"),
    [
        ([[3], [5], [3], [5], [3], [5]], ("3", "5"), [0, 1, 0, 1, 0, 1]),
        (list("abacba"), ("a", "b", "c"), [0, 1, 0, 2, 1, 0]),
        (np.eye(6, dtype=np.float32)[[2, 0, 2, 0, 1, 1]], ("0", "1", "2"), [2, 0, 2, 0, 1, 1]),
        ([0.0, 1.0, 0.0, 1.0, 1.0, 1.0], ("0", "1"), [0, 1, 0, 1, 1, 1]),
        ([0, 1, -1, 1, 0, -1], ("0", "1"), [0, 1, 2, 1, 0, 2]),
        ([0, 1, np.nan, 1, 0, np.nan], ("0", "1"), [0, 1, 2, 1, 0, 2]),
        (["a", "b", "", "b", "a", ""], ("a", "b"), [0, 1, 2, 1, 0, 2]),
    ],
)
def test_labels_of_every_shape(tmp_path, labels, classes, wanted):
    np.savez(tmp_path / "a.npz", images=COLOUR, labels=labels)
    data = load_images(tmp_path / "a.npz")
    assert (data.classes, data.labels.tolist()) == (classes, wanted)
    handed = ImageDataset.from_array(COLOUR, labels)
    assert (handed.classes, handed.labels.tolist()) == (classes, wanted)


@pytest.mark.parametrize("labels", [["a", None, "b", "a", "b", "b"], [1, None, 2, 1, 2, 2]])
def test_none_is_no_class(labels):
    assert ImageDataset.from_array(COLOUR, labels).labels.tolist() == [0, 2, 1, 0, 1, 1]


@pytest.mark.parametrize("names", [("x_{}", "y_{}"), ("{}_images", "{}_labels")])
def test_layouts_of_keras_and_medmnist(tmp_path, names):
    parts = {}
    for split, images in (("train", COLOUR), ("test", COLOUR[:4])):
        parts[names[0].format(split)] = images
        parts[names[1].format(split)] = np.arange(len(images))[:, None] % 2
    np.savez(tmp_path / "a.npz", **parts)
    data = load_images(tmp_path / "a.npz")
    assert (len(data), data.classes) == (6, ("0", "1"))
    assert f"not used: {names[0].format('test')}" in about(data)
    assert len(load_images(tmp_path / "a.npz", split="test")) == 4


def test_numbers_about_a_mean_are_not_taken_for_minus_one_to_one(tmp_path):
    data = load_images(folder(tmp_path / "a", [RAMP - 0.5] * 4))
    assert (data.images.numpy() == (RAMP * 255).round()).all()
    over = RAMP * 1.04 - 0.02  # as resizing by cubic curves leaves them
    data = load_images(folder(tmp_path / "b", [over] * 4))
    assert (data.images.numpy() == (over.clip(0, 1) * 255).round()).all()
    pale = [np.where(i, 0.5 * RAMP - 0.4, 2 * RAMP - 1).astype(np.float32) for i in range(4)]
    assert "lie in -1 … 1" in about(load_images(folder(tmp_path / "c", pale)))
    caffe = COLOUR.astype(np.float32) - COLOUR.mean()
    for centred in (COLOUR / 255 - 0.5, caffe, caffe.astype(np.int64)):
        with pytest.raises(UserError, match="images must be"):
            ImageDataset.from_array(centred)


def test_images_of_another_split_are_not_those_that_are_learned(tmp_path):
    np.savez(tmp_path / "a.npz", images=COLOUR, test_images=COLOUR[:2])
    assert len(load_images(tmp_path / "a.npz")) == 6
    assert len(load_images(tmp_path / "a.npz", split="test")) == 2
    np.savez(tmp_path / "b.npz", images=COLOUR)
    with pytest.raises(UserError, match="no array called x_test or test_images"):
        load_images(tmp_path / "b.npz", split="test")


def test_empty_images_do_not_decide_what_is_white(tmp_path):
    scans = np.zeros((9, 8, 8), np.float32)
    scans[::3] = np.linspace(0, 250, 64).reshape(8, 8)
    np.savez(tmp_path / "a.npz", images=scans)
    data = load_images(tmp_path / "a.npz")
    assert data.scale == (0, 255)
    assert data.images[0].max() == 250


def test_what_cannot_be_seen_does_not_bleed(tmp_path):
    rgba = np.zeros((1, 16, 16, 4), np.uint8)
    rgba[..., 0] = 255  # red that is not there, beside green that is
    rgba[:, :, 8:] = (0, 255, 0, 255)
    np.savez(tmp_path / "a.npz", images=rgba)
    image = load_images(tmp_path / "a.npz", size=(8,), channels=4).images[0]
    seen = image[3] > 8
    assert image[0][seen].max() < 16


def test_arrays_of_objects_beside_the_images_are_left_out(tmp_path):
    faces = np.random.default_rng(0).integers(0, 255, (5, 12, 12, 3), np.uint8)
    names = np.array(["a", "b", "c", "d", None], object)
    np.savez(tmp_path / "a.npz", faces=faces, names=names)
    data = load_images(tmp_path / "a.npz")
    assert len(data) == 5
    assert "arrays of objects, which are not read: names" in data.notes
    np.savez(tmp_path / "b.npz", images=faces, labels=names)
    with pytest.raises(UserError, match=r"labels holds objects .* \.astype\(str\)"):
        load_images(tmp_path / "b.npz")
