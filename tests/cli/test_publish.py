"""What would stand on the hub, in a folder."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from ddpm import load
from ddpm.checkpoint.checkpoint import build_net, save
from ddpm.checkpoint.diffusers import read_diffusers
from ddpm.cli.main import main
from ddpm.evaluation.report import Protocol, Report

hub = pytest.importorskip("huggingface_hub")


def score(network, path):
    how = {"network": network, "sampler": "ddim", "steps": 2, "seed": 0}
    protocol = Protocol(100, "cifar-net 1234", "cifar10 train 9f", how)
    Report(12.5, 1.25, 100, 0.5, protocol).save(path)
    return path


@pytest.fixture
def run(tiny, tmp_path):
    config = replace(tiny, unet=replace(tiny.unet, patch=2, attention=()))
    secret = tmp_path / "secret-folder" / "photos.npz"
    net = build_net(config, data := load("mnist").data)
    data = replace(data, source=str(secret), classes=("a`b", "c\nd", *data.classes[2:]))
    config = replace(config, data=str(secret), root=str(secret.parent))
    save(tmp_path / "x.safetensors", net, config, data, 7, 70)
    return tmp_path / "x.safetensors"


def test_a_folder_with_all_that_a_stranger_needs(run, tmp_path, capsys):
    out = tmp_path / "out"
    a = score(load(run).weights_hash(), tmp_path / "a.json")
    words = ["publish", str(run), "me/faces", "--dry-run", str(out), "--scores", str(a)]
    words += ["--license", "cc-by-nc-4.0", "--data-license", "mine, for all", "--device", "cpu"]
    assert main(words) == 0
    card = hub.ModelCard.load(out / "README.md")
    about = card.data.to_dict()
    assert about["license"] == "cc-by-nc-4.0"
    assert about["pipeline_tag"] == "unconditional-image-generation"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("frechet-distance", 12.5)
    for said in (
        "60,000 images of `photos.npz` of 10 classes", "`a'b`, `c\\nd`, `2`", "7 steps, 70 images",
        "[unet]", "[sample]", "Fréchet distance   12.5000", "cifar-net 1234; cifar10 train 9f",
        "sampler ddim, steps 2", "Weights: cc-by-nc-4.0", "Data: mine, for all",
        "trust_remote_code=True", "hf download me/faces", "samples.png",
    ):  # fmt: skip
        assert said in card.text, said
    for path in out.rglob("*"):
        assert not path.is_file() or b"secret-folder" not in path.read_bytes(), path
    assert load(out / "model.safetensors").weights_hash() == load(run).weights_hash()
    assert read_diffusers(out).weights_hash() == load(run).weights_hash()
    assert (out / "config.toml").is_file()
    assert json.loads((out / "score-1.json").read_text())["distance"] == 12.5
    assert json.loads((out / "model_index.json").read_text())["unet"] == ["ddpm_unet", "DDPMUNet"]
    assert Image.open(out / "samples.png").size[0] > 8 * 28
    capsys.readouterr()
    assert main(words) == 1
    assert "is there already" in capsys.readouterr().err


def test_nothing_is_claimed_that_was_not_said(run, tmp_path):
    out = tmp_path / "out"
    words = ["publish", str(run), "me/faces", "--dry-run", str(out), "--device", "cpu"]
    assert main(words) == 0
    card = hub.ModelCard.load(out / "README.md")
    assert card.data.license == "unknown"
    assert "None were measured." in card.text
    assert card.text.count("not stated") == 2


def test_what_is_refused_before_anything_is_made(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    out, other = str(tmp_path / "out"), str(score("0123456789abcdef", tmp_path / "b.json"))
    for words, says in (
        ([str(run), "faces", "--dry-run", out], "faces is no OWNER/NAME"),
        ([str(run), "me/--x..y", "--dry-run", out], "the hub allows no such name"),
        ([str(run), "me/faces", "--dry-run", out, "--scores", other], "is not of these weights"),
        (["nowhere", "me/faces", "--dry-run", out], "there is no checkpoint at nowhere"),
        ([str(run), "me/faces"], "log in by hf auth login"),
    ):
        assert main(["publish", *words]) == 1
        assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
