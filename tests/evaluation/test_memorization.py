"""Nearest training images: found by hand in small sets, and copies among samples told."""

import numpy as np
import pytest
import torch

from ddpm import load_images
from ddpm.cli.main import main
from ddpm.evaluation.memorization import memorized_share, nearest, nearest_report, pairs
from ddpm.evaluation.report import read_report
from pictures import folder_of, photos


def test_the_nearest_is_the_nearest(generator):
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


def test_an_image_is_no_copy_of_itself():
    real = photos(30)
    places = torch.tensor([3, 20])
    found = nearest(real[places], real, itself=places)
    assert (found.index != places).all()
    assert found.distance.min() > 0.1


def test_copies_are_counted():
    real = photos(400)
    places = torch.arange(0, 400, 4)
    usual = nearest(real[places], real, itself=places)
    noisy = (real[:50].float() + 0.5).clamp(0, 255).to(torch.uint8)
    assert memorized_share(nearest(noisy, real), usual) == 1
    assert memorized_share(nearest(photos(50, seed=1), real), usual) < 0.1
    assert "50% are nearer than" in nearest_report(nearest(noisy, real), usual)


def test_the_picture_has_pairs():
    real = photos(30)
    made = nearest(real[:10], real)
    picture = pairs(real[:10], real, made, n=8)
    side = 16 * 4
    assert picture.size == (8 * (side + 2) - 2, 2 * (side + 2) - 2)


@pytest.mark.parametrize("held_out", [False, True])
def test_the_command_finds_copies(scripted, tmp_path, held_out, capsys):
    real = folder_of(photos(60), tmp_path / "real")
    copied = torch.cat([load_images(real).images[:10], photos(10, seed=2)])
    np.savez(tmp_path / "x.npz", images=copied.permute(0, 2, 3, 1).numpy())
    words = ["evaluate", str(tmp_path / "x.npz"), "--data", str(real), "--features", scripted]
    words += ["--memorization", str(tmp_path / "c.png"), "--out", str(tmp_path / "s.json")]
    if held_out:
        words += ["--held-out", str(folder_of(photos(40, seed=3), tmp_path / "other"))]
    assert main(words) == 0
    assert read_report(tmp_path / "s.json").memorization >= 0.5
    assert read_report(tmp_path / "s.json").floor_n == 20
    assert (tmp_path / "c.png").stat().st_size > 1000
    assert "nearest training image" in capsys.readouterr().out
    assert main(words) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("gray", ["made", "real", "other"])
def test_copies_of_gray_images_among_coloured_ones(scripted, tmp_path, gray, capsys):
    where = {"made": 10, "real": 30, "other": 20}
    for seed, (name, n) in enumerate(where.items()):
        folder_of(photos(n, seed=seed, channels=1 if name == gray else 3), tmp_path / name)
    words = ["evaluate", str(tmp_path / "made"), "--data", str(tmp_path / "real"), "--held-out"]
    words += [
        str(tmp_path / "other"),
        "--features",
        scripted,
        "--memorization",
        str(tmp_path / "c.png"),
    ]
    assert main(words) == 0
    assert "nearest training image" in capsys.readouterr().out
