"""Samples: what they say of themselves, how they show themselves, and where they are saved."""

import json
from collections import Counter
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import Samples, UserError, generate, load, load_images
from ddpm.cli.main import main
from ddpm.generation.output import AnimationRecorder, evenly_spaced, write
from ddpm.utils.images import columns_for

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
    files = sorted((tmp_path / name).rglob("*.png"), key=lambda file: file.name)
    assert [file.name for file in files] == [f"0000{i}.png" for i in range(5)]
    assert [file.parent.name for file in files] == ["dog", "cat", "dog", "cat", "dog"]
    first = torch.from_numpy(np.array(Image.open(files[0]))).permute(2, 0, 1)
    assert torch.equal(first, made.images[0])
    again = load_images(tmp_path / name)  # which knows the classes by the folders
    assert again.classes == CLASSES
    assert Counter(again.labels.tolist()) == Counter(made.labels.tolist())


@pytest.mark.parametrize(
    "classes",
    [("a/b", "a_b"), ("..", "."), ("", "x"), ("Cat", "cat"), ("x" * 300, "x" * 299), ("NUL", "b")],
)
def test_any_two_classes_have_folders_of_their_own(classes, tmp_path):
    made = replace(samples(), classes=classes)
    made.save(tmp_path / "a")
    files = json.loads((tmp_path / "a" / "manifest.json").read_text())["images"]
    assert [file["label"] for file in files] == [classes[1 - i % 2] for i in range(5)]
    folders = {file["file"].split("/")[0].casefold() for file in files}
    assert len(folders) == 2
    assert "nul" not in folders  # a device of Windows
    for file, image in zip(files, made.images, strict=True):
        pixels = np.array(Image.open(tmp_path / "a" / file["file"])).transpose(2, 0, 1)
        assert np.array_equal(pixels, image.numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    replace(made, images=made.images[:1]).save(tmp_path / "a")
    assert len([*(tmp_path / "a").rglob("*.png")]) == 1


def test_a_manifest_that_names_others_files_removes_none(tmp_path):
    mine = tmp_path / "00000.png"
    samples(1, ()).save(tmp_path / "other")
    (tmp_path / "other" / "00000.png").rename(mine)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "00007.png").write_bytes(b"a drawing")
    names = ["../00000.png", str(mine), "00007.png", ".."]
    text = json.dumps({"images": [{"file": name} for name in names]})
    for manifest in (text, "[]", "{", '{"images": [3]}', '{"images": {"file": 3}}'):
        (tmp_path / "a" / "manifest.json").write_text(manifest)
        samples(1, ()).save(tmp_path / "a")
        assert mine.exists()
        assert (tmp_path / "a" / "00007.png").exists()


def test_files_say_how_they_were_made(digits, tmp_path):
    made = generate(digits, 4, seed=3)
    for name in ("a.png", "a.jpg", "folder"):
        made.save(tmp_path / name)
    single = Image.open(tmp_path / "folder" / "2" / "00002.png").text
    said = [
        json.loads(text)
        for text in (
            Image.open(tmp_path / "a.png").text["ddpm"],
            Image.open(tmp_path / "a.jpg").info["comment"],
            single["ddpm"],
        )
    ]
    for text in said:
        assert text["seed"] == 3
        assert text["weights"] == load(digits).weights_hash()
        assert text["settings"]["steps"] == load(digits).config.sample.steps
    assert [text.get("columns") for text in said] == [4, 4, None]
    assert (said[2]["number"], said[2]["label"]) == (2, "2")


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("ending", ["jpg", "jpeg", "JPG"])
def test_a_jpeg_is_the_grid_to_its_precision(channels, ending, tmp_path):
    made = replace(samples(4, (), channels), images=torch.full((4, channels, 8, 10), 200).byte())
    made.save(tmp_path / f"a.{ending}")
    jpeg, png = Image.open(tmp_path / f"a.{ending}"), Image.open(BytesIO(made._repr_png_()))
    assert jpeg.format == "JPEG"
    assert jpeg.size == png.size
    assert np.abs(np.array(jpeg).astype(int) - np.array(png)).mean() < 8


def test_what_is_transparent_is_laid_on_the_background_in_a_jpeg(tmp_path):
    clear = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    made = Samples(clear, None, (), background="#ff8000")
    made.save(tmp_path / "a.jpg")
    assert np.abs(np.array(Image.open(tmp_path / "a.jpg"))[20, 20] - [255.0, 128, 0]).max() < 6
    made.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "RGBA"


@pytest.mark.parametrize(
    ("n", "classes", "columns"),
    [
        (1, 1, 1), (14, 1, 7), (42, 1, 7), (16, 10, 4), (60, 10, 10), (20, 10, 10), (10, 10, 10),
        (64, 10, 8), (42, 3, 6), (8, 2, 4), (13, 1, 4), (5, 1, 5), (6, 2, 2), (100, 100, 10),
    ],
)  # fmt: skip
def test_grids_have_full_rows_and_a_class_a_column_where_they_can(n, classes, columns):
    assert columns_for(n, classes) == columns


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
    kept = evenly_spaced(steps, most)
    assert {0, steps} <= kept <= set(range(steps + 1))
    assert len(kept) == min(steps, most) + 1
