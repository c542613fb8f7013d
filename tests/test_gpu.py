"""The way to a machine with a GPU and back, rehearsed on the CPU."""

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from ddpm import UserError, generate, load, train
from ddpm.utils.device import has_bfloat16

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu.py"


@pytest.fixture(scope="session")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    module = sys.modules["gpu"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cut(gpu, tmp_path):
    """A file of 2,500 bytes in parts of 1,000."""
    (tmp_path / "file.bin").write_bytes(np.random.default_rng(0).bytes(2500))
    return gpu.split(tmp_path / "file.bin", tmp_path / "parts", mb=0.001)


def test_parts_become_the_file_again(gpu, cut, tmp_path):
    assert [p.name for p in cut] == ["file.bin.000", "file.bin.001", "file.bin.002",
                                     "file.bin.json"]  # fmt: skip
    assert [p.stat().st_size for p in cut[:3]] == [1000, 1000, 500]
    assert gpu.join(cut[-1]) == tmp_path / "parts" / "file.bin"
    whole = (tmp_path / "file.bin").read_bytes()
    assert (tmp_path / "parts" / "file.bin").read_bytes() == whole
    assert gpu.join(cut[-1], tmp_path / "there" / "again").read_bytes() == whole


@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 2000])
def test_files_of_any_size(gpu, tmp_path, size):
    (tmp_path / "file").write_bytes(bytes(size))
    *parts, manifest = gpu.split(tmp_path / "file", tmp_path / "parts", mb=0.001)
    assert len(parts) == -(-size // 1000)
    assert gpu.join(manifest).read_bytes() == bytes(size)


def test_a_damaged_part_is_named(gpu, cut):
    cut[1].write_bytes(cut[1].read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"part 2 of 3, .*file.bin.001, is damaged: send it again"):
        gpu.join(cut[-1])
    cut[1].unlink()
    with pytest.raises(UserError, match=r"part 2 of 3, .*file.bin.001, is missing"):
        gpu.join(cut[-1])
    assert not cut[-1].with_suffix("").exists()
    assert not list(cut[-1].parent.glob(".part*"))


def test_what_cannot_be_joined_or_cut_is_a_sentence(gpu, cut, tmp_path, capsys):
    for text in ("{", "[]", '{"file": "x"}', '{"file": "x", "parts": [{"part": 3}]}'):
        cut[-1].write_text(text)
        with pytest.raises(UserError, match="is not a manifest of parts"):
            gpu.join(cut[-1])
    assert gpu.main(["join", str(tmp_path / "nothing.json")]) == 1
    assert gpu.main(["split", str(tmp_path / "nothing"), str(tmp_path / "parts")]) == 1
    assert gpu.main(["split", str(tmp_path / "file.bin"), str(tmp_path), "--mb", "0"]) == 1
    assert capsys.readouterr().err.count("gpu: ") == 3


def test_parts_fit_where_they_are_sent(gpu):
    assert gpu.Pack().mb < 60
    assert gpu.Split(Path("a"), Path("b")).mb * 1e6 < 16 * 2**20


def test_the_wheels_are_all_that_is_needed_and_no_more(gpu):
    if not importlib.util.find_spec("denoising_diffusion_pytorch"):
        pytest.skip("pip install -e '.[bench]'")
    names = {wheel.split("==")[0] for wheel in gpu.missing()}
    assert {"tyro", "pydantic", "pydantic-core", "typing-inspection", "tomli-w"} <= names
    assert not names & {*gpu.THERE, "pytest", "mypy", "triton", "gradio", "datasets", "pyarrow"}


def test_there_and_back(gpu, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(40) % 4)
    fetched = []
    monkeypatch.setattr(gpu, "missing", lambda: ["tyro==1.0"])
    monkeypatch.setattr(gpu, "fetch", lambda names, folder: fetched.extend(names))
    assert gpu.main(["pack", str(tmp_path / "set.npz"), "--out", str(tmp_path / "pack"),
                     "--mb", "0.005"]) == 0  # fmt: skip
    assert fetched == ["tyro==1.0"]
    data = tmp_path / "there" / "set.npz"
    assert gpu.main(["join", str(tmp_path / "pack" / "set.npz.json"), str(data)]) == 0

    run, back, whole = tmp_path / "there" / "run", tmp_path / "back", tmp_path / "whole"
    words = ["--", "first-run", "--data", str(data), "--steps", "60", "--unet.channels", "8",
             "--unet.groups", "4", "--unet.dropout", "0.1", "--train.batch", "16",
             "--train.log-every", "1", "--device", "cpu"]  # fmt: skip
    assert gpu.main(["train", str(whole), *words]) == 0
    seconds = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])["seconds"]
    share, steps, times = str(seconds / 60 / 2), 0, 0
    while steps < 60 and times < 10:
        command = ["train", str(run), "--minutes", share, "--out", str(back), *words]
        assert gpu.main(command) == 0
        steps = load(run).step if (run / "model.safetensors").exists() else 0
        times += 1
    assert steps == 60
    assert times > 1
    assert {"config.toml", "metrics.jsonl"} <= {p.name for p in back.iterdir()}
    state = Path("state", "state.safetensors")
    assert same(run / state, whole / state)

    assert gpu.main(["halve", str(run), str(tmp_path / "net.safetensors")]) == 0
    for path in (run / "model.safetensors", tmp_path / "net.safetensors"):
        assert gpu.main(["split", str(path), str(back), "--mb", "0.1"]) == 0
        assert len(list(back.glob(f"{path.name}.0*"))) > 1
    assert gpu.main(["join", str(back / "model.safetensors.json")]) == 0
    assert same(back / "model.safetensors", run / "model.safetensors")
    half = gpu.join(back / "net.safetensors.json", tmp_path / "half.safetensors")
    assert half.stat().st_size < 0.6 * (run / "model.safetensors").stat().st_size
    assert generate(half, n=2, device="cpu").images.shape == (2, 3, 12, 12)


def same(a, b):
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_that_fails_says_so(gpu, tmp_path):
    assert gpu.main(["train", str(tmp_path / "run"), "--", "no-such-preset"]) == 1
    assert not (tmp_path / "run").exists()


def test_speed_is_measured_beside_the_chip(gpu, tmp_path, monkeypatch, capsys):
    def here(job, *args):
        AcceleratorState._reset_state(reset_partial_state=True)
        return job(*args)

    monkeypatch.setattr(gpu, "alone", here)
    options = ["--network", "small", "--batch", "2", "--no-compiled", "--seconds", "0.01",
               "--libraries", "ours", "no-such-library", "--device", "cpu",
               "--out", str(tmp_path / "speed.json")]  # fmt: skip
    assert gpu.main(["speed", *options]) == 0
    result = json.loads((tmp_path / "speed.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["float32", "bf16"]
    for row in result["rows"]:
        assert row["images_per_second"] > 0
        assert row["flop"] / 2 == pytest.approx(2.55e9, rel=0.02)  # as docs/results.md has it
        assert row["share"] > 0
        if has_bfloat16("cpu"):  # else the product that it is a share of is emulated
            assert row["share"] < 1.5
    assert "no-such-library is not installed" in capsys.readouterr().err


def test_a_prediction_counts_operations(gpu, capsys):
    assert gpu.main(["predict", "cifar10-paper", "--tflops", "37.3"]) == 0
    said = capsys.readouterr().out
    assert "35.7 M parameters, 12.4 GFLOP forward, 37.3 GFLOP an image and step" in said
    assert "999 images/s" in said
    assert gpu.main(["predict", "mnist"]) == 1


@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for a CPU needs g++")
def test_a_compiled_run_goes_on_uncompiled_and_back(tiny, tmp_path):
    tiny = replace(tiny, unet=replace(tiny.unet, mults=(1,), attention=()))
    compiled = replace(tiny, train=replace(tiny.train, compile=True, sample_minutes=1e-5))
    counters = torch._dynamo.utils.counters
    counters.clear()
    for name, config in (("plain", tiny), ("run", compiled)):
        train(config, tmp_path / name)
    assert counters["stats"]["unique_graphs"] == 1  # though grids are of other batches
    a, b = (load_file(tmp_path / n / "state" / "state.safetensors") for n in ("plain", "run"))
    assert a.keys() == b.keys()  # the names of the weights are those of the plain network
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=2e-3)
    for steps, config in ((6, tiny), (8, compiled)):
        assert train(replace(config, steps=steps), tmp_path / "run", resume=True).step == steps
    assert load(tmp_path / "run").config.train.compile
