"""The doctor: what is wrong with a folder is counted and named, and what it costs is measured."""

import pytest

from ddpm import load_images
from ddpm.cli.main import main
from ddpm.config import preset
from ddpm.training.benchmark import measure_cost
from pictures import messy_folder


@pytest.fixture
def mess(tmp_path):
    return messy_folder(tmp_path / "mess")


def test_the_cost_is_measured(tiny):
    found = measure_cost(tiny, load_images("mnist5k"), "cpu")
    assert found.rate > 10
    assert found.memory > 50
    assert found.parameters > 1000


@pytest.mark.long
def test_the_command(mess, tmp_path, capsys):
    sheet = str(tmp_path / "sheet.png")
    words = ["doctor", str(mess), "--size", "16", "--sheet", sheet, "--device", "cpu"]
    assert main(words) == 0
    text = capsys.readouterr().out
    for word in ("13 can be read", "16x16 in 3 channels", "memorize", "images/s", "its budget"):
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
    assert "--flip would teach images that do not occur" in caplog.text


def test_presets_do_not_mirror_digits():
    assert not preset("mnist").flip
    assert not preset("first-run").flip
