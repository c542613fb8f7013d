"""Folders and zips of image files: which are read, at what size, with what labels."""

import zipfile

import pytest
import torch
from PIL import Image

from ddpm import UserError, load_images
from ddpm.data.labels import label_images
from pictures import noise_image, png


def test_a_folder_with_classes(folder):
    data = load_images(folder)
    assert data.images.shape == (6, 3, 12, 10)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == [200, 200, 200, 50, 50, 50]
    assert data.notes == ()
    assert data.info.height == 12
    assert data.info.width == 10


def test_a_zip_of_the_same_is_the_same(folder, tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, "outer/" + str(file.relative_to(folder)))
        archive.writestr("__MACOSX/outer/cat/._0.png", b"")
    data = load_images(path)
    assert data.fingerprint == load_images(folder).fingerprint
    assert data.classes == ("cat", "dog")


def test_bad_images_are_skipped_counted_and_named(folder):
    whole = png(noise_image(40, 40))
    (folder / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "text.jpg").write_text("hello")
    (folder / "cat" / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(folder / "cat" / "dot.png")
    data = load_images(folder)
    assert data.images.shape == (6, 3, 12, 10)  # nor do they count as another size
    (note,) = data.notes
    assert note.startswith("4 of 10 images skipped")
    for name in ("cut.png", "text.jpg", "empty.png", "dot.png (1x1 pixels are too few)"):
        assert name in note


@pytest.mark.parametrize("names", [(), ("a.txt", "b.csv"), ("bad.png",)])
def test_nothing_usable_is_an_error(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"there are no (usable )?images in"):
        load_images(tmp_path)


def test_gray_among_colour_becomes_colour(tmp_path):
    noise_image(16, 16, "L").save(tmp_path / "a.png")
    assert load_images(tmp_path).images.shape == (1, 1, 16, 16)
    noise_image(16, 16).save(tmp_path / "b.png")
    data = load_images(tmp_path)
    assert data.images.shape == (2, 3, 16, 16)
    assert torch.equal(data.images[0, 0], data.images[0, 2])


def test_the_rotation_tag_is_obeyed(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste((255, 255, 255), (0, 0, 20, 20))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: left becomes top
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    data = load_images(tmp_path)
    assert data.images.shape == (1, 1, 40, 20)
    assert data.images[0, :, :18].min() > 200
    assert data.images[0, :, 22:].max() < 50


def test_labels_come_from_the_folders_below_the_shared_one():
    for names in (["a.png", "b.png"], ["one/a.png", "one/b.png"], ["a.png", "one/b.png"]):
        assert label_images(names, None)[:2] == (None, ())
    names = ["top/x/1.png", "top/y/deep/2.png", "top/x/3.png"]
    labels, classes, _ = label_images(names, None)
    assert (labels.tolist(), classes) == ([0, 1, 0], ("x", "y"))


def test_images_outside_the_class_folders_are_told_of(folder):
    Image.new("RGB", (10, 12), "white").save(folder / "cover.png")
    data = load_images(folder)
    assert data.classes == ()
    assert data.notes == ("1 image outside the sub-folders: classes are not learned",)


def test_images_that_are_enlarged_or_mostly_cropped_are_told_of(tmp_path):
    (tmp_path / "set").mkdir()
    for i, size in enumerate([(64, 64), (10, 40), (400, 40), (400, 40)]):
        noise_image(*size).save(tmp_path / "set" / f"{i}.png")
    notes = load_images(tmp_path / "set", size=(32,)).notes
    assert any("1 of 4 images is smaller than 32x32, and will be blurred" in n for n in notes)
    assert any("cropping to 32x32 loses 64% of an image on average" in n for n in notes)
    assert not load_images(tmp_path / "set", size=(8, 12)).notes or "blurred" not in str(
        load_images(tmp_path / "set", size=(8, 10)).notes
    )
