"""`ddpm generate`: what it writes, and what it refuses in one sentence."""

import json
from dataclasses import asdict, fields

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ddpm import UserError, generate, load
from ddpm.checkpoint.checkpoint import VERSION
from ddpm.cli.evaluate import EvaluateOptions
from ddpm.cli.hints import options_of
from ddpm.cli.main import main
from ddpm.config import SampleConfig


def run(*words):
    return main(["generate", *map(str, words)])


def test_a_grid(digits, tmp_path):
    assert run(digits, "--n", 6, "--out", tmp_path / "a.png") == 0
    image = Image.open(tmp_path / "a.png")
    assert image.mode == "L"
    assert image.size == (6 * 56 + 10, 56)  # a column for each class


def test_a_folder_of_single_images(digits, tmp_path):
    assert run(digits, "--n", 3, "--out", tmp_path / "many") == 0
    names = sorted(p.relative_to(tmp_path / "many").as_posix() for p in tmp_path.rglob("*.png"))
    assert names == ["0/00000.png", "1/00001.png", "2/00002.png"]
    made = generate(digits, 3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "many" / names[2])), made.images[2, 0])
    manifest = json.loads((tmp_path / "many" / "manifest.json").read_text())
    assert [(image["file"], image["label"]) for image in manifest["images"]] == [
        *zip(names, "012", strict=True)
    ]
    assert manifest["weights"] == load(digits).weights_hash()
    assert manifest["seed"] == 0
    assert manifest["settings"] == asdict(load(digits).config.sample)


def test_an_array_that_can_be_trained_on(make, tmp_path):
    path = make(3, 30, 44, ("cat", "dog"))
    assert run(path, "--n", 5, "--label", "dog", "--label", "0", "--out", tmp_path / "a.npz") == 0
    with np.load(tmp_path / "a.npz") as file:
        assert file["arr_0"].shape == (5, 30, 44, 3)
        assert file["arr_0"].dtype == np.uint8
        assert file["arr_1"].tolist() == [1, 0, 1, 0, 1]
    from ddpm import load_images

    made = load_images(tmp_path / "a.npz")
    assert made.images.shape == (5, 3, 30, 44)
    assert [made.classes[label] for label in made.labels] == ["dog", "cat", "dog", "cat", "dog"]


@pytest.mark.parametrize("ending", ["gif", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_from_noise_to_image(make, tmp_path, ending, channels):
    path = tmp_path / f"a.{ending}"
    assert run(make(channels), "--n", 3, "--batch", 2, "--steps", 6, "--out", path) == 0
    animation = Image.open(path)
    assert animation.n_frames == 7
    assert animation.size == (3 * 56 + 4, 56)


def test_other_numbers_of_channels_are_shown_side_by_side(make, tmp_path):
    assert run(make(2), "--n", 1, "--out", tmp_path / "a.png") == 0
    assert Image.open(tmp_path / "a.png").size == (2 * 56, 56)


def test_nothing_is_overwritten_unasked(digits, tmp_path, capsys):
    path = tmp_path / "a.png"
    path.write_text("mine")
    assert run(digits, "--n", 1, "--out", path) == 1
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert run(digits, "--n", 1, "--out", path, "--overwrite") == 0
    assert Image.open(path).size == (56, 56)


def test_images_of_others_are_not_replaced(digits, tmp_path, capsys):
    theirs = tmp_path / "a" / "1" / "00001.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"a photo")
    assert run(digits, "--n", 2, "--out", tmp_path / "a", "--overwrite") == 1
    assert "00001.png is not one of ours" in capsys.readouterr().err
    with pytest.raises(UserError, match="is not one of ours"):
        generate(digits, 2).save(tmp_path / "a")
    assert run(digits, "--n", 1, "--out", tmp_path / "a", "--overwrite") == 0
    theirs.rename(tmp_path / "a" / "1" / "cat.png")
    theirs = tmp_path / "a" / "1" / "cat.png"
    assert run(digits, "--n", 2, "--out", tmp_path / "a", "--overwrite") == 0
    assert theirs.read_bytes() == b"a photo"


def test_without_a_name_each_call_takes_a_new_one(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(digits, "--n", 1) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["generated-2.png", "generated.png"]


def edit(path, target, change):
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["ddpm"])
    change(header)
    save_file(load_file(path), target, metadata={"ddpm": json.dumps(header)})
    return target


def damaged(kind, digits, folder):
    path = folder / "bad.safetensors"
    whole = digits.read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "a pickle":
        torch.save({"a": 1}, path)
    elif kind == "somebody else's":
        save_file({"a": torch.zeros(1)}, path)
    elif kind == "newer":
        edit(digits, path, lambda h: h.update(version=VERSION + 1))
    elif kind == "no config":
        edit(digits, path, lambda h: h.pop("config"))
    elif kind == "another config":
        edit(digits, path, lambda h: h["config"]["unet"].update(channels=16))
    elif kind == "a config that is nonsense":
        edit(digits, path, lambda h: h["config"]["unet"].update(channels="many"))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no checkpoint at"),
        ("truncated", "not a whole safetensors file"),
        ("empty", "not a whole safetensors file"),
        ("a pickle", "not a whole safetensors file"),
        ("somebody else's", "not a checkpoint of ddpm"),
        ("newer", "written by a newer ddpm"),
        ("no config", "damaged header"),
        ("another config", "do not fit its own config"),
        ("a config that is nonsense", "unet.channels"),
    ],
)
def test_a_bad_checkpoint_is_a_sentence(kind, message, digits, tmp_path, capsys):
    out = tmp_path / "a.png"
    assert run(damaged(kind, digits, tmp_path), "--out", out) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("config.diffusion.T", 10**12),
        ("config.unet.blocks", 10**9),
        ("config.unet.channels", 10**30),
        ("config.unet.channels", 8192),
        ("config.unet.mults", []),
        ("config.unet.mults", [1, 10**12]),
        ("config.sample.eta", 1e300),
        ("config.colour", "red"),
        ("data.channels", 10**9),
        ("data.height", -5),
        ("data.height", 10**30),
        ("step", float("inf")),
        ("step", -5),
        ("version", True),
        ("version", 0),
        ("weights", "raw"),
    ],
)
def test_a_hostile_header_is_a_sentence(where, value, digits, tmp_path, capsys):
    def change(header):
        *path, last = where.split(".")
        for part in path:
            header = header[part]
        header[last] = value

    bad = edit(digits, tmp_path / "bad.safetensors", change)
    assert run(bad, "--out", tmp_path / "a.png") == 1
    error = capsys.readouterr().err
    assert "damaged" in error
    assert error.count("\n") == 1


def test_a_failed_overwrite_keeps_the_old(digits, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("mine")

    def fail(*args, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    assert run(digits, "--n", 1, "--out", path, "--overwrite") == 1
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_shorter_series_leaves_none_of_the_longer(digits, tmp_path):
    folder = tmp_path / "v1.5"
    folder.mkdir()
    assert run(digits, "--n", 4, "--out", f"{folder}/") == 0
    (folder / "notes.txt").write_text("mine")
    assert run(digits, "--n", 2, "--out", folder, "--overwrite") == 0
    left = {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")}
    assert left == {"0/00000.png", "1/00001.png", "manifest.json", "notes.txt"}
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["0", "1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "2000"], "more than the 1000"),
        (["--label", "cat"], "there is no class 'cat'"),
        (["--out", "a.tiff"], "end it in .png"),
        (["--out", "/proc/nowhere/a.png"], "cannot write to"),
        (["--device", "abacus"], "there is no device"),
        (["--n", "0"], "n should be greater than or equal to 1"),
        (["--steps", "-3"], "steps should be greater"),
        (["--eta", "-1"], "eta should be greater"),
        (["--guidance", "nan"], "guidance should be"),
        (["--sampler", "ddpm", "--eta", "0.5"], "--eta is for --sampler ddim"),
        (["--seed", "-1"], "seed should be greater"),
        (["--towards", "7", "--guidance", "3"], "none is asked for: add --label"),
        (["--guidance", "1", "--guidance-above", "0.5"], "--guidance-above has no effect"),
        (["--towards", "7", "--n", "400", "--out", "a.webp"], "and webp has 16,383 at most"),
    ],
)
def test_bad_options_are_a_sentence(words, message, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(digits, *words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["--sampler", "euler", "--churn", "5"], ["--sampler", "dpm++sde"],
     ["--sampler", "heun", "--spacing", "rho", "--churn", "10"]],
)  # fmt: skip
def test_every_sampler_is_reached(words, digits, tmp_path):
    assert run(digits, "--n", 2, "--steps", 5, "--out", tmp_path / "a.npz", *words) == 0
    assert run(digits, "--n", 2, "--steps", 5, "--out", tmp_path / "b.npz") == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert (a["arr_0"] != b["arr_0"]).any()


def test_without_a_checkpoint_the_bundled_weights_are_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()  # a folder of that name is not what is meant
    assert run("--n", "3", "--steps", "2", "--out", "a.npz") == 0
    assert run("mnist", "--n", "3", "--steps", "2", "--out", "b.npz") == 0
    images = np.load("a.npz")["arr_0"]
    assert images.shape == (3, 28, 28, 1)
    np.testing.assert_array_equal(images, np.load("b.npz")["arr_0"])
    assert run("./mnist") == 1
    assert "there is no checkpoint at mnist/model.safetensors" in capsys.readouterr().err


def test_settings_of_sampling_are_all_options(digits, tmp_path, monkeypatch):
    """Each changes what the manifest says of the images."""
    monkeypatch.setattr("ddpm.generation.generate.has_bfloat16", lambda device: True)
    given = {
        "sampler": "ddpm", "steps": 7, "spacing": "rho", "sigma_min": 0.1, "variance": "beta",
        "eps_scale": 1.01, "precision": "bf16",
        "churn": 0.5, "guidance": 1.5, "guidance_above": 0.2, "guidance_below": 0.9,
    }  # fmt: skip
    assert {*given, "eta"} == {field.name for field in fields(SampleConfig)}
    words = [word for k, v in given.items() for word in (f"--{k.replace('_', '-')}", v)]
    assert run(digits, "--n", 1, *words, "--out", f"{tmp_path}/a/") == 0
    said = json.loads((tmp_path / "a" / "manifest.json").read_text())["settings"]
    assert said == asdict(load(digits).config.sample) | given
    assert run(digits, "--n", 1, "--sampler", "ddim", "--eta", 0.3, "--out", f"{tmp_path}/b/") == 0
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["settings"]["eta"] == 0.3
    options = set(options_of(EvaluateOptions))
    assert {f"--{field.name.replace('_', '-')}" for field in fields(SampleConfig)} <= options


def test_an_interpolation_is_one_row(digits, tmp_path):
    assert run(digits, "--n", 9, "--towards", 7, "--out", tmp_path / "a.png") == 0
    assert Image.open(tmp_path / "a.png").size == (9 * 56 + 16, 56)


def test_a_grid_given_as_one_image_is_noted(digits, tmp_path, capsys):
    for name in ("a.png", "a.jpg", "one.png", "folder/"):
        n = 1 if name == "one.png" else 4
        assert run(digits, "--n", n, "--steps", 1, "--out", f"{tmp_path}/{name}") == 0
    for name, noted in (
        ("a.png", True), ("a.jpg", True), ("one.png", False), ("folder/3/00003.png", False),
    ):  # fmt: skip
        capsys.readouterr()
        words = ["--image", tmp_path / name, "--n", 1, "--steps", 1, "--out", tmp_path / "b.png"]
        assert run(digits, *words, "--overwrite") == 0
        assert ("is a grid of 4 images" in capsys.readouterr().err) == noted
