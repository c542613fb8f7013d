"""Samples: what they say of themselves, how they show themselves, and where they are saved."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import Samples, UserError, generate
from ddpm.cli.main import main
from ddpm.generation.output import AnimationRecorder, spread, write

CLASSES = ("cat", "dog")


def samples(n=5, labels=(1, 0), channels=3):
    pixels = torch.randint(0, 256, (n, channels, 8, 10), generator=torch.Generator().manual_seed(0))
    y = torch.tensor([labels[i % len(labels)] for i in range(n)]) if labels else None
    return Samples(pixels.to(torch.uint8), y, CLASSES if labels else ())


def test_a_repr_is_one_short_line():
    assert repr(samples()) == "Samples(5 images of shape (3, 8, 10), of 2 classes)"
    assert repr(samples(labels=(1,))) == "Samples(5 images of shape (3, 8, 10), of class 'dog')"
    assert repr(samples(labels=())) == "Samples(5 images of shape (3, 8, 10))"
    assert len(samples(7)) == 7


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_notebook_shows_a_picture(channels):
    image = Image.open(BytesIO(samples(channels=channels)._repr_png_()))
    assert image.format == "PNG"
    assert image.width > 2 * 56


def test_a_picture_of_many_images_stays_small():
    shown = [Image.open(BytesIO(samples(n)._repr_png_())).size for n in (64, 1000)]
    assert shown[0] == shown[1]


def test_save_writes_what_the_command_writes(digits, tmp_path):
    made = generate(digits, 4, seed=3)
    for name in ("a.png", "a.npz"):
        made.save(tmp_path / name)
        words = ["generate", str(digits), "-n", "4", "--seed", "3", "--out", f"{tmp_path}/b{name}"]
        assert main(words) == 0
        assert (tmp_path / name).read_bytes() == (tmp_path / f"b{name}").read_bytes()


@pytest.mark.parametrize("name", ["images", "v1.5/"])
def test_save_makes_a_folder_of_single_images(name, tmp_path):
    made = samples()
    made.save(f"{tmp_path}/{name}")
    files = sorted((tmp_path / name).iterdir())
    assert [file.name for file in files] == [f"0000{i}.png" for i in range(5)]
    first = torch.from_numpy(np.array(Image.open(files[0]))).permute(2, 0, 1)
    assert torch.equal(first, made.images[0])


def test_save_replaces_a_file(tmp_path):
    path = tmp_path / "a.png"
    for n in (9, 1):
        samples(n).save(path)
    assert Image.open(path).width < 100


@pytest.mark.parametrize(
    ("name", "says"), [("a.tiff", "end it in .png"), ("a.gif", "no animation was recorded")]
)
def test_what_cannot_be_saved_is_named(name, says, tmp_path):
    with pytest.raises(UserError, match=says):
        samples().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_animation_is_recorded_over_batches(digits, tmp_path):
    recorder = AnimationRecorder(steps=4)
    made = generate(digits, 3, batch=2, on_state=recorder.take)
    frames = recorder.frames()
    assert len(frames) == 5
    assert torch.equal(frames[-1], made.images)
    write(tmp_path / "a.gif", made, recorder)
    assert Image.open(tmp_path / "a.gif").n_frames == 5


@pytest.mark.parametrize(("steps", "most"), [(1, 50), (50, 50), (1000, 50), (7, 3)])
def test_frames_are_spread_from_the_first_to_the_last(steps, most):
    kept = spread(steps, most)
    assert {0, steps} <= kept <= set(range(steps + 1))
    assert len(kept) == min(steps, most) + 1
