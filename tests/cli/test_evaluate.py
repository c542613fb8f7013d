"""The command `ddpm evaluate`: files and networks in, a score out, and refusals."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from ddpm import train
from ddpm.cli.main import main
from ddpm.evaluation.report import read_report
from ddpm.utils.images import to_pil
from pictures import folder_of, photos


def save_npz(path, images):
    np.savez(path, images=images.permute(0, 2, 3, 1).numpy())
    return path


def test_files_of_every_kind_have_the_same_score(scripted, tmp_path, capsys):
    real = folder_of(photos(40), tmp_path / "real")
    made = folder_of(photos(20, seed=1), tmp_path / "made")
    save_npz(tmp_path / "made.npz", photos(20, seed=1))
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as file:
        for png in sorted(made.iterdir()):
            file.write(png, png.name)
    distances = set()
    for name in ("made", "made.npz", "made.zip"):
        words = ["evaluate", str(tmp_path / name), "--data", str(real), "--features", scripted]
        assert main([*words, "--out", str(tmp_path / f"{name}.json")]) == 0
        assert "1.00 times the floor" not in capsys.readouterr().out
        distances.add(read_report(tmp_path / f"{name}.json").distance)
    assert len(distances) == 1


def test_large_images_are_scored_as_they_are(scripted, tmp_path):
    real = save_npz(tmp_path / "real.npz", photos(24, side=136))
    made, distances = photos(20, seed=1, side=136), set()
    for what in (folder_of(made, tmp_path / "made"), save_npz(tmp_path / "made.npz", made)):
        words = ["evaluate", str(what), "--data", str(real), "--features", scripted]
        assert main([*words, "--out", f"{what}.json"]) == 0
        distances.add(json.loads((tmp_path / f"{what.name}.json").read_text())["distance"])
    assert len(distances) == 1
    folder = folder_of(photos(24, side=136), tmp_path / "real")
    words = ["evaluate", str(tmp_path / "made"), "--data", str(folder), "--features", scripted]
    assert main([*words, "--size", "136"]) == 0


def test_a_run_is_scored_against_the_images_it_learned(scripted, tmp_path, capsys, tiny):
    """Cropped and resized as they were."""
    real = folder_of(photos(40, side=24), tmp_path / "real")
    config = replace(tiny, data=str(real), size=(16,), steps=1, held_out=0)
    train(config, tmp_path / "run")
    capsys.readouterr()
    words = ["evaluate", str(tmp_path / "run"), "--features", scripted, "--n", "4"]
    assert main(words) == 0
    assert "floor" in capsys.readouterr().out
    assert main([*words, "--size", "24"]) == 1
    assert "16x16 in 3 channels, and the reference's 24x24" in capsys.readouterr().err


def test_scores_are_compared(scripted, tmp_path, capsys):
    real = folder_of(photos(20), tmp_path / "real")
    save_npz(tmp_path / "made.npz", photos(9, 1))
    score = str(tmp_path / "score.json")
    words = ["evaluate", str(tmp_path / "made.npz"), "--data", str(real), "--features", scripted]
    assert main([*words, "--out", score]) == 0
    assert main([*words, "--against", score]) == 0
    assert "against            1.000 times the distance in" in capsys.readouterr().out
    save_npz(tmp_path / "fewer.npz", photos(8, 1))
    words[1] = str(tmp_path / "fewer.npz")
    assert main([*words, "--against", score]) == 1
    assert "cannot be compared: n is 8 here and 9 there" in capsys.readouterr().err


def test_outputs_are_not_overwritten_unasked(scripted, tmp_path, capsys):
    real = folder_of(photos(20), tmp_path / "real")
    save_npz(tmp_path / "made.npz", photos(9, 1))
    words = ["evaluate", str(tmp_path / "made.npz"), "--data", str(real), "--features", scripted]
    for option, name in (("--out", "a.json"), ("--memorization", "a.png")):
        assert main([*words, option, str(tmp_path / name)]) == 0
        assert main([*words, option, str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert f"is there already: give another {option}, or add --overwrite" in error
        assert main([*words, option, str(tmp_path / name), "--overwrite"]) == 0
        assert main([*words, option, str(tmp_path / "a.txt")]) == 1
        assert f"end it in .{name[2:]}" in capsys.readouterr().err


@pytest.fixture
def files(tmp_path):
    folder_of(photos(10), tmp_path / "real")
    folder_of(photos(1), tmp_path / "one")
    folder_of(photos(4, side=8), tmp_path / "small")
    to_pil(photos(1, side=24)[0]).save(folder_of(photos(4), tmp_path / "mixed") / "x.png")
    return tmp_path


@pytest.mark.parametrize(
    ("what", "options", "says"),
    [
        ("mixed", [], "differ in size"),
        ("small", [], "are 8x8 in 3 channels, and the reference's 16x16"),
        ("one", [], "too few samples, 1"),
        ("real", ["--split", "test"], "--split is for named sets"),
        ("real", ["--features", "nothing"], "there is no feature network 'nothing'"),
        ("real", ["--n", "10"], "--n is for a network"),
        ("real", ["--guidance-above", "0.5"], "--guidance-above is for a network"),
        ("nowhere", [], "there is no checkpoint at"),
    ],
)
def test_what_cannot_be_scored_is_named(what, options, says, files, scripted, capsys):
    words = ["evaluate", str(files / what), "--data", str(files / "real")]
    assert main([*words, "--features", scripted, *options]) == 1
    assert says in capsys.readouterr().err
