"""What a checkpoint claims and its weights do not bear out: sizes, steps, and names of data."""

import ctypes
import logging
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm import UserError, evaluate, generate, load, train
from ddpm.checkpoint.checkpoint import Header, build, save
from ddpm.checkpoint.memory import bytes_per_image
from ddpm.checkpoint.tensors import load_tensors, save_tensors
from ddpm.cli.main import main
from ddpm.config import Config, DataInfo
from ddpm.demo.models import ModelStore
from ddpm.training.nonfinite import BatchHeader, save_batch
from ddpm.training.replay import replay
from ddpm.utils import memory
from promise import peak_memory, promised

BASE = replace(
    Config(data="/etc/photos", root="/etc/data", steps=4),
    unet=replace(Config().unet, channels=8, mults=(1, 2), blocks=1, groups=4, attention=()),
)
INFO = DataInfo("/etc/photos", 9, 1, 8, 8, (), "f")


@pytest.fixture
def foreign(tmp_path):
    """Makes a file of 100 kB whose header says what is asked for."""

    def make(name="x.safetensors", diffusion=None, sample=None, **claims):
        config = replace(
            BASE,
            diffusion=replace(BASE.diffusion, **(diffusion or {})),
            sample=replace(BASE.sample, **({"steps": 2} | (sample or {}))),
        )
        info = replace(INFO, **claims)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name, build(config, info)[0], config, info, 4, 8)
        return tmp_path / name

    return make


def refused_soon(words, read, *args, **more):
    """Little memory and time are spent before this is refused."""
    before = peak_memory(reset=True)
    with promised(), pytest.raises(UserError, match=words):
        read(*args, **more)
    assert peak_memory() - before < 100e6


# ---- memory ----------------------------------------------------------------------------------

LARGE = {"height": 8192, "width": 8192}
TOO_LARGE = r"images of 8192x8192 at a time takes about [\d,.]+ GB of memory, and [\d,.]+ GB are"


@pytest.fixture
def small_machine(monkeypatch):
    """A machine with little memory left, whichever runs this."""
    monkeypatch.setattr("ddpm.checkpoint.memory.free_memory", lambda device: 2 * 10**9)


@pytest.mark.parametrize(
    "command",
    ["generate {} -n 1 -o {}.png", "generate {} -n 1 -o {}.gif", "evaluate {} --data mnist -n 9",
     "convert {} {}.onnx", "publish {} me/x --dry-run {}-pub", "demo {} --port 7999"],
)  # fmt: skip
def test_images_that_memory_has_no_room_for(foreign, small_machine, capfd, command):
    path = str(foreign(**LARGE))
    before = peak_memory(reset=True)
    assert main([word.replace("{}", path) for word in command.split()]) == 1
    assert peak_memory() - before < 500e6
    assert "at a time takes about" in capfd.readouterr().err
    assert not list(foreign().parent.glob("*.png")) + list(foreign().parent.glob("*.onnx"))


def test_the_sum_is_said_and_what_can_be_made(foreign, monkeypatch, caplog):
    path = foreign(height=256, width=256)
    each = bytes_per_image(BASE.unet, (1, 256, 256))
    monkeypatch.setattr("ddpm.checkpoint.memory.free_memory", lambda device: 5 * each)
    with pytest.raises(UserError, match="ask for fewer, or for --batch 4"):
        generate(path, 9, device="cpu")
    monkeypatch.setattr("ddpm.checkpoint.memory.LARGE", each)
    with caplog.at_level(logging.INFO):
        generate(path, 2, batch=2, device="cpu")
    assert "2 images of 256x256 at a time takes about" in caplog.text


@pytest.mark.parametrize(("patch", "fine"), [pytest.param(1, 0, marks=pytest.mark.long), (4, 8)])
def test_the_sum_is_near_what_is_taken(patch, fine):
    unet = replace(BASE.unet, channels=32, patch=patch, fine=fine)
    info = replace(INFO, channels=3, height=512, width=512)
    net = build(replace(BASE, unet=unet), info)[0].to(memory_format=torch.channels_last).eval()
    x = torch.zeros(1, *info.shape)
    if not peak_memory():
        pytest.skip("this system does not tell the most memory that was in use")
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is not used again unseen
    before = peak_memory(reset=True)
    with torch.inference_mode():
        net(x, torch.ones(1, dtype=torch.long))
    assert 0.5 < (peak_memory() - before) / bytes_per_image(unet, info.shape) < 1.5


def test_other_commands_spend_nothing_on_what_is_claimed(foreign, tmp_path, tiny):
    path = foreign(**LARGE, count=2**62)
    with promised():
        load(path)
        assert main(["convert", str(path), str(tmp_path / "theirs")]) == 0
    images = np.zeros((40, 8, 8), np.uint8)
    config = replace(BASE, init=str(path), held_out=0, train=tiny.train, sample=tiny.sample)
    with promised():
        train(replace(config, steps=1), tmp_path / "run", images=images, device="cpu")


def test_real_images_are_not_read_at_a_size_that_is_claimed(foreign, tmp_path, monkeypatch):
    """The header of a small network asks for crops of another size than its images."""
    path = foreign()
    checkpoint = replace(load(path), config=replace(BASE, size=(8192, 8192)))
    monkeypatch.setattr("ddpm.data.cache.write_cache", None)
    np.save(tmp_path / "a.npy", np.zeros((9, 16, 16), np.uint8))
    with pytest.raises(UserError, match="8x8"):
        evaluate(checkpoint, data=tmp_path / "a.npy", features="digit-net", n=4, device="cpu")


def test_a_step_is_not_replayed_for_a_batch_that_is_claimed(tmp_path, small_machine):
    info = replace(INFO, height=512, width=512)
    config = replace(BASE, train=replace(BASE.train, batch=1024))
    header = BatchHeader(2, 4, 0, info, config)
    save_batch(tmp_path / "x", torch.zeros(1, *info.shape), None, build(config, info)[0], header)
    refused_soon("at a time takes about", replay, tmp_path / "x")


def test_blocks_that_there_are_no_weights_for(foreign, monkeypatch):
    path = foreign()
    deep = replace(BASE.unet, blocks=64, mults=(1,) * 16)
    tensors, header = load_tensors(path, Header)
    save_tensors(path, tensors, replace(header, config=replace(header.config, unet=deep)))

    def build_net(*args):
        raise AssertionError("a network of thousands of blocks is built, which takes seconds")

    monkeypatch.setattr("ddpm.checkpoint.checkpoint.build_net", build_net)
    with pytest.raises(UserError, match="do not fit its own config"):
        load(path)


# ---- steps -----------------------------------------------------------------------------------

MANY = {"diffusion": {"T": 100_000, "schedule": "linear"}, "sample": {"steps": 100_000}}


def test_steps_that_nobody_asked_for(foreign, tmp_path, capfd):
    path = foreign(**MANY)
    for read in (generate, evaluate):
        refused_soon("asks for 100,000 steps", read, path, n=4)
    for command in ("generate", "evaluate"):
        assert main([command, str(path)]) == 1
        assert "say how many it may take, such as --steps 50" in capfd.readouterr().err
    out = tmp_path / "x.npz"
    assert main(["generate", str(path), "--steps", "2", "-n", "1", "-o", str(out)]) == 0


# ---- what is left of memory ------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups(tmp_path, monkeypatch, version):
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
    names = names if version == 1 else ("memory.max", "memory.current", "file")
    kind = "memory" if version == 1 else ""
    for folder, most in (("", 9 * 10**8), ("a", 5 * 10**8), ("a/b", 2**63)):
        group = tmp_path / kind / folder
        group.mkdir(parents=True, exist_ok=True)
        (group / names[0]).write_text("max" if version == 2 and most == 2**63 else f"{most}")
        (group / names[1]).write_text(f"{3 * 10**8}\n")
        (group / "memory.stat").write_text(f"anon 7\n{names[2]} {10**8}\n")
    (tmp_path / "cgroup").write_text(f"9:cpu:/x\n{4 if kind else 0}:{kind}:/a/b\n")
    assert memory.free_memory(process=tmp_path) == 3 * 10**8


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_limit_on_the_memory_of_the_process(foreign):
    code = (
        "import resource, sys; from ddpm import load, generate; c = load(sys.argv[1]);"
        "from pathlib import Path; pages = int(Path('/proc/self/statm').read_text().split()[0]);"
        "most = pages * resource.getpagesize() + 600_000_000;"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most)); generate(c, 1, device='cpu')"
    )
    path = foreign(height=2048, width=2048)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "1 image of 2048x2048 at a time takes about" in done.stderr


# ---- names -----------------------------------------------------------------------------------


@pytest.fixture
def nothing_opened(monkeypatch):
    """No images are read, and nothing is asked of the network."""

    def refuse(*args, **more):
        raise AssertionError(f"opened: {args}")

    monkeypatch.setattr("ddpm.evaluation.reference.load_images", refuse)
    monkeypatch.setattr("ddpm.demo.models.load_images", refuse)
    monkeypatch.setattr("ddpm.demo.models.is_downloaded", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", ["/etc/photos", "hf:somebody/photos", "cifar10", "a; rm b"])
def test_data_that_a_foreign_checkpoint_names(foreign, nothing_opened, name, capfd):
    config, info = replace(BASE, data=name, sample=replace(BASE.sample, steps=2)), INFO
    path = foreign()
    save(path, build(config, info)[0], config, info, 4, 8)
    assert main(["evaluate", str(path), "-n", "4", "--memorization", str(path) + ".png"]) == 1
    said = capfd.readouterr().err
    assert f"this checkpoint names {name} as what it was trained on" in said
    assert ("say --data 'a; rm b'" if " " in name else f"say --data {name}") in said


def test_the_root_that_a_foreign_checkpoint_names(foreign, monkeypatch):
    roots = []

    def read(source, size, root, *args, **more):
        roots.append(str(root))
        raise UserError("not read here")

    monkeypatch.setattr("ddpm.evaluation.reference.load_images", read)
    for more in ({}, {"root": "mine"}):
        with pytest.raises(UserError, match="not read here"):
            evaluate(foreign(), data="cifar10", n=4, **more)
    assert roots == ["data", "mine"]


def test_the_demo_shows_no_images_that_a_foreign_checkpoint_names(foreign, nothing_opened):
    path = str(foreign(source="mnist"))
    store = ModelStore([path], "cpu")
    assert not store.has_real_examples(path)
    assert store.example(path, 0).shape == (1, 8, 8)


def test_a_run_of_ones_own_is_compared_with_what_it_was_trained_on(tiny, tmp_path, scripted):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (40, 16, 16), np.uint8))
    config = replace(tiny, data=str(tmp_path / "a.npy"), steps=1)
    run = tmp_path / "run"
    train(config, run, device="cpu")
    for what in (run, run / "model.safetensors"):
        assert evaluate(what, n=4, features=scripted, device="cpu").protocol.n == 4
    assert load("mnist").trusted
    (run / "config.toml").write_text('data = "elsewhere"\nsteps = 1\n')
    with pytest.raises(UserError, match="is not opened unasked"):
        evaluate(run, n=4, features=scripted, device="cpu")
