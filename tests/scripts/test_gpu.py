"""The way to a machine with a GPU and back, rehearsed on the CPU."""

import importlib.util
import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ddpm import UserError, generate, load

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu.py"


@pytest.fixture(scope="session")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    module = sys.modules["gpu"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def say(gpu, monkeypatch):
    """Run the script with these words, and return its exit code or its last words."""

    def say(*words):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, words)])
        try:
            return gpu.main()
        except SystemExit as end:
            return end.code

    return say


@pytest.fixture
def cut(gpu, tmp_path):
    """A file of 2,500 bytes in parts of 1,000."""
    (tmp_path / "file.bin").write_bytes(np.random.default_rng(0).bytes(2500))
    return gpu.cut(tmp_path / "file.bin", tmp_path / "parts", mb=0.001)


def test_parts_become_the_file_again(gpu, cut, tmp_path):
    assert [p.name for p in cut] == ["file.bin.000", "file.bin.001", "file.bin.002",
                                     "file.bin.json"]  # fmt: skip
    assert [p.stat().st_size for p in cut[:3]] == [1000, 1000, 500]
    assert gpu.joined(cut[-1]) == tmp_path / "parts" / "file.bin"
    whole = (tmp_path / "file.bin").read_bytes()
    assert (tmp_path / "parts" / "file.bin").read_bytes() == whole
    assert gpu.joined(cut[-1], tmp_path / "there" / "again").read_bytes() == whole


@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 2000])
def test_files_of_any_size(gpu, tmp_path, size):
    (tmp_path / "file").write_bytes(bytes(size))
    *parts, manifest = gpu.cut(tmp_path / "file", tmp_path / "parts", mb=0.001)
    assert len(parts) == -(-size // 1000)
    assert gpu.joined(manifest).read_bytes() == bytes(size)


def test_a_damaged_part_is_named(gpu, cut):
    cut[1].write_bytes(cut[1].read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"part 2 of 3, .*file.bin.001, is damaged: send it again"):
        gpu.joined(cut[-1])
    cut[1].unlink()
    with pytest.raises(UserError, match=r"part 2 of 3, .*file.bin.001, is missing"):
        gpu.joined(cut[-1])
    assert not cut[-1].with_suffix("").exists()
    assert not list(cut[-1].parent.glob(".part*"))


def test_what_cannot_be_joined_or_cut_is_a_sentence(gpu, say, cut, tmp_path):
    for text in ("{", "[]", '{"file": "x"}', '{"file": "x", "parts": [{"part": 3}]}'):
        cut[-1].write_text(text)
        with pytest.raises(UserError, match="is not a manifest of parts"):
            gpu.joined(cut[-1])
    assert say("join", tmp_path / "nothing.json").startswith("gpu: ")
    assert say("split", tmp_path / "nothing", tmp_path / "parts").startswith("gpu: ")
    assert say("split", tmp_path / "file.bin", tmp_path, "--mb", "0").startswith("gpu: ")


def test_parts_fit_where_they_are_sent(gpu):
    assert inspect.signature(gpu.pack).parameters["mb"].default < 60
    assert inspect.signature(gpu.split).parameters["mb"].default * 1e6 < 16 * 2**20


def test_the_wheels_are_all_that_is_needed_and_no_more(gpu):
    if not importlib.util.find_spec("denoising_diffusion_pytorch"):
        pytest.skip("pip install -e '.[bench]'")
    names = {wheel.split("==")[0] for wheel in gpu.missing()}
    assert {"tyro", "pydantic", "pydantic-core", "typing-inspection", "tomli-w"} <= names
    assert not names & {*gpu.THERE, "pytest", "mypy", "triton", "gradio", "datasets", "pyarrow"}


@pytest.mark.long
def test_there_and_back(gpu, say, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(40) % 4)
    fetched = []
    monkeypatch.setattr(gpu, "missing", lambda: ["tyro==1.0"])
    monkeypatch.setattr(gpu, "fetch", lambda names, folder: fetched.extend(names))
    assert not say("pack", tmp_path / "set.npz", "--out", tmp_path / "pack", "--mb", "0.005")
    assert fetched == ["tyro==1.0"]
    data = tmp_path / "there" / "set.npz"
    assert not say("join", tmp_path / "pack" / "set.npz.json", data)

    run, back, whole = tmp_path / "there" / "run", tmp_path / "back", tmp_path / "whole"
    words = ["--", "first-run", "--data", str(data), "--steps", "60", "--unet.channels", "8",
             "--unet.groups", "4", "--unet.dropout", "0.1", "--train.batch", "16",
             "--train.log-every", "1", "--device", "cpu"]  # fmt: skip
    assert not say("train", whole, *words)
    seconds = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])["seconds"]
    share, steps, times = str(seconds / 60 / 2), 0, 0
    while steps < 60 and times < 10:
        command = ["train", run, "--minutes", share, "--out", back, *words]
        assert not say(*command)
        steps = load(run).step if (run / "model.safetensors").exists() else 0
        times += 1
    assert steps == 60
    assert times > 1
    assert {"config.toml", "metrics.jsonl"} <= {p.name for p in back.iterdir()}
    state = Path("state", "state.safetensors")
    assert same(run / state, whole / state)

    assert not say("halve", run, tmp_path / "net.safetensors")
    for path in (run / "model.safetensors", tmp_path / "net.safetensors"):
        assert not say("split", path, back, "--mb", "0.1")
        assert len(list(back.glob(f"{path.name}.0*"))) > 1
    assert not say("join", back / "model.safetensors.json")
    assert same(back / "model.safetensors", run / "model.safetensors")
    half = gpu.joined(back / "net.safetensors.json", tmp_path / "half.safetensors")
    assert half.stat().st_size < 0.6 * (run / "model.safetensors").stat().st_size
    assert generate(half, n=2, device="cpu").images.shape == (2, 3, 12, 12)


def same(a, b):
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_that_fails_says_so(say, tmp_path):
    assert say("train", tmp_path / "run", "--", "no-such-preset") == 1
    assert not (tmp_path / "run").exists()
