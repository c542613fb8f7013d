"""The doctor: what is wrong with a folder is counted and named, and what it costs is measured."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import ImageDataset, UserError, load_images
from ddpm.cli.main import main
from ddpm.config import preset
from ddpm.data.inspect import inspection_notes, mirror_accuracy
from ddpm.training.benchmark import about_files, contact_sheet, cost, lost_share, survey
from pictures import photos


@pytest.fixture
def mess(tmp_path):
    """Twelve photos, wide and tall, gray and coloured, one twice; a text and a torn one."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "mess"
    folder.mkdir()
    for i in range(12):
        size = (40 + 8 * i, 60, 3) if i % 2 else (40, 60)
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(folder / f"{i:02}.png")
    (folder / "12.png").write_bytes((folder / "03.png").read_bytes())
    (folder / "13.png").write_text("text")
    (folder / "14.png").write_bytes((folder / "05.png").read_bytes()[:300])
    return folder


def test_what_is_in_a_folder(mess):
    files, _ = survey(mess)
    text = "\n".join(about_files(files, (64, 64)))
    assert "15 image files, of which 13 can be read" in text
    assert "1 cannot: not an image (13.png)" in text
    assert "14.png" in text
    assert "60x40: 6" in text
    assert "gray 6" in text
    assert "colour 7" in text
    assert "gray images will be taught as colour" in text
    assert "duplicates: 1 images are there more than once (03.png, 12.png)" in text
    assert "smaller than that" in text


def test_nothing_to_read(tmp_path):
    (tmp_path / "a.png").write_text("no")
    files, _ = survey(tmp_path)
    assert about_files(files, None)[0] == "1 image files, of which 0 can be read"


def test_what_is_cropped(mess):
    files, read = survey(mess)
    wide = next(f for f in files if f.size == (60, 40))
    assert lost_share(wide, (64, 64)) == pytest.approx(1 / 3)
    assert lost_share(wide, (40, 60)) == pytest.approx(0)
    sheet = contact_sheet(files, read, (64, 64))
    assert sheet.size == (170 * 6, 340 * 2)
    red = (np.asarray(sheet) == (255, 0, 0)).all(-1)
    assert red.any()


def test_mirror_images_are_told_where_they_can_be():
    assert mirror_accuracy(load_images("mnist5k").images) > 0.9
    even = photos(600, side=16)
    assert mirror_accuracy(torch.cat([even, even.flip(-1)])[torch.randperm(1200)]) < 0.6
    assert mirror_accuracy(torch.zeros(100, 1, 8, 8, dtype=torch.uint8)) == 0.5


def test_advice():
    digits = load_images("mnist5k")
    assert any("leave it out" in line for line in inspection_notes(digits, flip=True))
    assert inspection_notes(digits, flip=False) == []
    few = ImageDataset(digits.images[:200], None, (), "few")
    assert any("learn them by heart" in line for line in inspection_notes(few, flip=False))
    keep = (digits.labels != 3) | (torch.arange(5000) % 50 == 0)
    uneven = ImageDataset(digits.images[keep], digits.labels[keep], digits.classes, "uneven")
    assert any("of 3," in line for line in inspection_notes(uneven, flip=False))


def test_the_cost_is_measured(tiny):
    found = cost(tiny, load_images("mnist5k"), "cpu")
    assert found.rate > 10
    assert found.memory > 50
    assert found.parameters > 1000


def test_the_command(mess, tmp_path, capsys):
    sheet = str(tmp_path / "sheet.png")
    words = ["doctor", str(mess), "--size", "16", "--sheet", sheet, "--device", "cpu"]
    assert main(words) == 0
    text = capsys.readouterr().out
    for word in ("13 can be read", "16x16 in 3 channels", "by heart", "images/s", "its budget"):
        assert word in text
    assert main(words) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["doctor", "mnist5k", "--sheet", str(tmp_path / "b.png")]) == 1
    assert "a contact sheet is of files" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path / "none")]) == 1
    assert "there is no data" in capsys.readouterr().err


def test_training_says_the_quick_part(tiny, tmp_path, caplog):
    caplog.set_level("INFO")
    from dataclasses import replace

    from ddpm import train

    train(replace(tiny, flip=True, steps=1), tmp_path / "run", device="cpu")
    assert "so --flip would teach what is not there" in caplog.text


def test_presets_do_not_mirror_digits():
    assert not preset("mnist").flip
    assert not preset("first-run").flip


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(UserError, match="there are no images"):
        survey(tmp_path)
