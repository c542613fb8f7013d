"""What a run begins with: a preset, another run's settings, or weights."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm import UserError, generate, load, train
from ddpm.checkpoint.diffusers import write_diffusers
from ddpm.checkpoint.foreign import load_any
from ddpm.cli.main import main
from ddpm.cli.train import default_out, read_train_options
from ddpm.config import preset, read_toml
from pictures import photos
from runs import assert_same, tensors

STILL = [
    "--train.lr", "1e-12", "--train.warmup", "0", "--steps", "1", "--held-out", "8",
    "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tiny_dropout, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "a"
    train(tiny_dropout, path, device="cpu")
    return path


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "runs" / "a")


@pytest.fixture
def colours(tmp_path):
    """64 photos of 20x28 in three classes."""
    path = tmp_path / "photos.npz"
    np.savez(path, images=photos(64, side=28)[:, :, :20].numpy(), labels=np.arange(64) % 3)
    return str(path)


@pytest.mark.parametrize("words", [["{run}"], ["--config", "{run}/config.toml"]])
def test_a_run_is_repeated_to_the_last_bit(run, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [word.format(run=run) for word in words]
    assert main(["train", *words, "--device", "cpu"]) == 0
    assert "runs/a-2" in capsys.readouterr().out
    assert_same(tensors(run), tensors(tmp_path / "runs" / "a-2"))
    assert main(["train", *words, "--device", "cpu", "--seed", "7", "-o", "other"]) == 0
    one, other = tensors(run), tensors(tmp_path / "other")
    assert not torch.equal(one["raw.conv_in.weight"], other["raw.conv_in.weight"])


def test_settings_of_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("steps = 7\n[unet]\nchannels = 64\n")
    for words in (["--config", "mine.toml"], ["mine.toml"], ["--seed", "0", "mine.toml"]):
        options = read_train_options(words)
        assert (options.config.steps, options.config.unet.channels) == (7, 64)
        assert str(default_out(options)) == "runs/mine"
        assert read_train_options([*words, "--minutes", "3"]).config.steps is None


def test_beginnings_that_exclude_each_other(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="name one of them"):
        read_train_options(["mnist", "--config", str(run / "config.toml")])
    for words in (["mnist"], [str(run)], ["--config", str(run / "config.toml")]):
        with pytest.raises(UserError, match="leave out any others"):
            read_train_options([*words, "--resume", "--out", str(run)])
    with pytest.raises(UserError, match=r"none\.toml does not exist"):
        read_train_options(["--config", "none.toml"])
    for word in ("x" * 300, "d/" * 3000, "\udcff"):
        with pytest.raises(UserError, match="there is no preset"):
            read_train_options([word])


def test_weights_bring_their_network_and_a_named_preset_its_pace():
    mine = read_train_options(["--init", "cifar10"]).config
    theirs = load("cifar10").config
    assert (mine.unet, mine.diffusion, mine.sample) == (
        theirs.unet, theirs.diffusion, theirs.sample,
    )  # fmt: skip
    assert mine.train == theirs.train
    assert (mine.data, mine.minutes) == ("mnist5k", preset("first-run").minutes)
    named = read_train_options(["mnist", "--init", "cifar10", "--unet.dropout", "0.2"]).config
    assert named.train == preset("mnist").train
    assert named.unet == replace(theirs.unet, dropout=0.2)


def begun(words, tmp_path, capsys):
    """The network that a run begins with, and what is said of it."""
    assert main(["train", *STILL, *words, "--out", str(tmp_path / "new")]) == 0
    notes = capsys.readouterr().err.splitlines()
    (said,) = [line for line in notes if "beginning from the weights" in line]
    return load(tmp_path / "new"), said


def new_parts(before, after):
    """The names of the layers that are not those of the checkpoint that a run began from."""
    a, b = before.net.state_dict(), after.net.state_dict()
    kept = {k for k in b if k in a and a[k].shape == b[k].shape and torch.allclose(a[k], b[k])}
    return {name.split(".")[0] for name in b.keys() - kept}


def test_weights_learn_other_images_classes_and_sizes(run, colours, tmp_path, capsys):
    made, said = begun(["--init", str(run), "--data", colours], tmp_path, capsys)
    assert made.data.shape == (3, 20, 28)
    assert new_parts(load(run), made) == {"label", "conv_in", "conv_out"}
    assert said.endswith(
        "of 28x28 images; new: the embedding of the classes, the layers that meet the image"
    )
    assert generate(made, n=1).images.shape == (1, 3, 20, 28)


def test_weights_whose_classes_are_left_out(run, tmp_path, capsys):
    made, said = begun(["--init", str(run), "--no-labels", "--size", "16"], tmp_path, capsys)
    assert new_parts(load(run), made) == set()
    assert said.endswith("new: no classes any more")


def test_weights_in_another_precision_are_those_weights(run, tmp_path, capsys):
    made, said = begun(["--init", str(run), "--train.precision", "bf16"], tmp_path, capsys)
    assert new_parts(load(run), made) == set()
    assert said.endswith("new: nothing")


def test_weights_that_have_another_patch_or_process_are_told(run, tmp_path, capsys):
    words = ["--unet.patch", "2", "--unet.attention", "4", "--diffusion.target", "eps"]
    made, said = begun(["--init", str(run), *words], tmp_path, capsys)
    assert new_parts(load(run), made) == {"conv_in", "conv_out"}
    assert "another process than cosine with the target v" in said


@pytest.mark.parametrize(
    "words",
    [
        ["--unet.channels", "16"],
        ["--unet.mults", "1", "2", "2"],
        ["--unet.heads", "2"],
        ["--unet.groups", "2"],
        ["--unet.no-film"],
        ["--unet.conventions", "improved-diffusion"],
    ],
)
def test_weights_of_another_network_are_refused(run, words, tmp_path, capsys):
    words = ["--init", str(run), *words, "--out", str(tmp_path / "new")]
    assert main(["train", *STILL, *words]) == 1
    assert "are of another network" in capsys.readouterr().err


@pytest.mark.parametrize(
    "plain", [pytest.param(True, marks=pytest.mark.long), False], ids=["UNet2DModel", "ours"]
)
def test_weights_in_a_folder_of_diffusers(tiny, plain, tmp_path, capsys):
    own = replace(tiny, labels=not plain)
    if plain:
        unet = replace(tiny.unet, patch=1, attention=(2,), film=False)
        own = replace(own, unet=unet, size=(8,))
    train(own, tmp_path / "first", device="cpu")
    write_diffusers(load(tmp_path / "first"), tmp_path / "folder")
    words = ["--init", str(tmp_path / "folder"), "--train.batch", "4", "--size", "8"]
    made, _ = begun([*words, *([] if own.labels else ["--no-labels"])], tmp_path, capsys)
    assert new_parts(load(tmp_path / "first"), made) == set()
    assert made.config.unet == load_any(str(tmp_path / "folder")).config.unet


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path, capsys):
    (tmp_path / "a.pt").write_text("not one")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    for name, says in (
        ("a.pt", "it is not a PyTorch file"),
        ("folder", "there is no checkpoint at"),
        ("cut.safetensors", "not a whole safetensors file"),
    ):
        assert main(["train", "--init", str(tmp_path / name), "--out", str(tmp_path / "x")]) == 1
        assert says in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_run_keeps_what_it_began_from(run, tmp_path):
    words = ["--init", str(run), "--steps", "2", "--device", "cpu", "--out", str(tmp_path / "b")]
    assert main(["train", *words]) == 0
    assert read_toml(tmp_path / "b" / "config.toml").init == str(run)
    again = read_train_options(["--config", str(tmp_path / "b" / "config.toml")]).config
    assert again == read_toml(tmp_path / "b" / "config.toml")
