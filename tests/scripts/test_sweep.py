"""Variants are all tried, scored and put in a table, and none of them twice."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ddpm import UserError, load_images

SCRIPT = Path(__file__).parents[2] / "scripts" / "sweep.py"


@pytest.fixture(scope="module")
def sweep():
    spec = importlib.util.spec_from_file_location("sweep", SCRIPT)
    module = sys.modules["sweep"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("base", [{}]),
        ("train.lr=1e-3", [{"train.lr": 1e-3}]),
        ("steps=5,10 sampler=ddim", [{"steps": 5, "sampler": "ddim"},
                                     {"steps": 10, "sampler": "ddim"}]),
        ("unet.mults=[1],[1,2]", [{"unet.mults": [1]}, {"unet.mults": [1, 2]}]),
    ],
)  # fmt: skip
def test_every_combination_is_a_variant(sweep, text, found):
    assert [changes for _, changes in sweep.variants((text,))] == found


def test_what_is_no_variant_is_a_sentence(sweep):
    with pytest.raises(UserError, match="write NAME=VALUE"):
        list(sweep.variants(("faster",)))


def test_a_ruler_prints_its_numbers(sweep):
    ruler = f'{sys.executable} -c \'print("kid=0.5 of", "{{samples}}")\''
    assert sweep.measured(ruler, Path("x.npz")) == {"kid": 0.5}
    with pytest.raises(UserError, match="no NAME=NUMBER"):
        sweep.measured(f"{sys.executable} -c pass", Path("x.npz"))


@pytest.fixture
def digits(tmp_path):
    """A few digits as a file."""
    data = load_images("mnist5k")
    few = slice(None, None, 50)
    np.savez(tmp_path / "digits.npz", images=data.images[few, 0], labels=data.labels[few])
    return str(tmp_path / "digits.npz")


def test_networks_are_trained_and_scored_once(sweep, digits, tmp_path, capsys):
    options = sweep.Options(
        "first-run", train=("unet.channels=8 sample.steps=1 unet.blocks=1,2",), minutes=0.001, n=10,
        data=digits, features="digit-net",
        sample=("steps=1 guidance=0,1",), out=tmp_path, device="cpu",
        ruler=f"{sys.executable} -c 'print(\"kid=0.25\")'",
    )  # fmt: skip
    sweep.main(options)
    printed = capsys.readouterr().out
    assert "| unet.channels=8 sample.steps=1 unet.blocks=1 | steps=1 guidance=0 |" in printed
    assert printed.count("| 0.25 |") == 4
    scores = (tmp_path / "scores.jsonl").read_text()
    assert all(json.loads(line)["distance"] > 0 for line in scores.splitlines())
    sweep.main(options)
    assert capsys.readouterr().out == printed
    assert (tmp_path / "scores.jsonl").read_text() == scores


def test_samplers_of_one_network_are_compared(sweep, digits, tmp_path, capsys):
    options = sweep.Options(
        "mnist", data=digits, n=10, sample=("steps=1 sampler=ddim,dpm++",), out=tmp_path,
        device="cpu",
    )  # fmt: skip
    sweep.main(options)
    assert capsys.readouterr().out.count("| base | steps=1 sampler=") == 2


def test_what_cannot_be_scored_is_not_trained(sweep, tmp_path):
    images = tmp_path / "images.npz"
    np.savez(images, images=np.zeros((40, 3, 8, 8), np.uint8))
    options = sweep.Options(
        "small-32", train=("base",), data=str(images), features="absent.pt", out=tmp_path / "out"
    )
    with pytest.raises(UserError, match="absent"):
        sweep.main(options)
    assert not list((tmp_path / "out").iterdir())
