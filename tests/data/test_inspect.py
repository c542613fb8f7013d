"""What is said of images before a network is trained on them."""

import numpy as np
import pytest
import torch

from ddpm import ImageDataset, UserError, load_images
from ddpm.data.inspect import (
    contact_sheet,
    cropped_share,
    describe_files,
    inspect_files,
    inspect_images,
    inspection_notes,
    mirror_accuracy,
)
from ddpm.data.listing import list_files
from pictures import messy_folder, photos


@pytest.fixture
def mess(tmp_path):
    return messy_folder(tmp_path / "mess")


def test_what_is_in_a_folder(mess):
    text = "\n".join(describe_files(inspect_files(list_files(mess)), (64, 64)))
    assert "15 image files, of which 13 can be read" in text
    assert "1 cannot: not an image (13.png)" in text
    assert "14.png" in text
    assert "60x40: 6" in text
    assert "gray 6" in text
    assert "colour 7" in text
    assert "gray images will be learned as colour" in text
    assert "duplicates: 1 copy of others (03.png, 12.png)" in text
    assert "are smaller, and will be blurred" in text


def test_nothing_to_read(tmp_path):
    (tmp_path / "a.png").write_text("no")
    (line, _) = describe_files(inspect_files(list_files(tmp_path)), None)
    assert line == "1 image file, of which 0 can be read"


def test_what_is_cropped(mess):
    files = list_files(mess)
    reports = inspect_files(files)
    wide = next(r for r in reports if r.size == (60, 40))
    assert cropped_share(wide.aspect, (64, 64)) == pytest.approx(1 / 3)
    assert cropped_share(wide.aspect, (40, 60)) == pytest.approx(0)
    sheet = contact_sheet(files, reports, (64, 64))
    assert sheet.size == (170 * 6, 340 * 2)
    red = (np.asarray(sheet) == (255, 0, 0)).all(-1)
    assert red.any()


def test_how_well_mirror_images_can_be_recognized():
    assert mirror_accuracy(load_images("mnist5k").images) > 0.9
    even = photos(600, side=16)
    assert mirror_accuracy(torch.cat([even, even.flip(-1)])[torch.randperm(1200)]) < 0.6
    assert mirror_accuracy(torch.zeros(100, 1, 8, 8, dtype=torch.uint8)) == 0.5


def test_notes_on_images():
    digits = load_images("mnist5k")
    assert any("leave it out" in line for line in inspection_notes(digits, flip=True))
    (classes,) = inspection_notes(digits, flip=False)
    assert classes.startswith("10 classes: 0 (500), 1 (500), ")
    few = ImageDataset(digits.images[:200], None, (), "few")
    assert any("memorize them" in line for line in inspection_notes(few, flip=False))
    keep = (digits.labels != 3) | (torch.arange(5000) % 50 == 0)
    uneven = ImageDataset(digits.images[keep], digits.labels[keep], digits.classes, "uneven")
    assert any("of 3," in line for line in inspection_notes(uneven, flip=False))


@pytest.mark.parametrize("blank", [1, 2, 3])
def test_advice_on_images_that_tell_nothing(blank):
    """Every second one is blank, or all are; or every one is its own mirror image."""
    images = photos(200, side=16)
    if blank < 3:
        images[::blank] = 0
    else:
        images = images // 2 + images.flip(-1) // 2
    for some in (images, images[:1], images[:, :, :8, :8]):
        data = ImageDataset(some, None, (), "odd")
        assert any("memorize them" in line for line in inspection_notes(data, flip=False))


def test_advice_that_fails_ends_nothing(monkeypatch):
    monkeypatch.setattr("ddpm.data.inspect.mirror_accuracy", lambda images: 1 / 0)
    notes = inspection_notes(ImageDataset(photos(200, side=16), None, (), "few"), flip=False)
    assert any("memorize them" in line for line in notes)


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(UserError, match="there are no images"):
        list_files(tmp_path)


def test_a_report_on_a_folder(mess, tmp_path):
    data = load_images(mess, (16,))
    lines = inspect_images(data, mess, sheet=tmp_path / "sheet.png")
    assert lines[0] == "15 image files, of which 13 can be read"
    assert "to be learned: 13 images of 16x16 in 3 channels, no classes, 0 MB" in lines
    assert lines[-1].startswith("note: 13 images are few")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_report_on_a_named_set(tmp_path):
    line, levels, classes = inspect_images(load_images("mnist5k"), "mnist5k")
    assert classes.startswith("note: 10 classes: 0 (500)")
    assert levels == "values of pixels: 256 of 256 levels, from 0 to 255"
    assert line == "to be learned: 5,000 images of 28x28 in 1 channel, 10 classes, 4 MB"
    with pytest.raises(UserError, match="a contact sheet is of files"):
        inspect_images(load_images("mnist5k"), "mnist5k", sheet=tmp_path / "sheet.png")
