"""A disk that is full or damaged, a folder that goes away: what was whole before still is."""

import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from ddpm import UserError, train
from ddpm.checkpoint import tensors as module
from ddpm.checkpoint.run_dir import RunDir, inspect_run
from ddpm.cli.main import main
from runs import assert_same, metrics, tensors


def full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def often(tiny, tmp_path_factory):
    """Eight steps, each saved, and a run of six of them."""
    config = replace(tiny, steps=8, train=replace(tiny.train, save_minutes=1e-6))
    path = tmp_path_factory.mktemp("often") / "run"
    train(replace(config, steps=6), path, device="cpu")
    return config, path


@pytest.mark.parametrize(
    "damage", [pytest.param("cut", marks=pytest.mark.long), "flipped", "gone to zeros"]
)
def test_a_damaged_state_is_found_and_the_one_before_serves(often, tmp_path, damage, caplog):
    config, six = often
    run = RunDir(shutil.copytree(six, tmp_path / "run"))
    data = bytearray(run.state.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[-100] ^= 1
    else:
        data = bytearray(len(data))
    run.state.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:  # the disk is full when the next is to be written
        patch.setattr(module, "save_file", full_disk)
        with pytest.raises(OSError, match="No space left"):
            train(config, run.path, device="cpu", resume=True)
    assert "going on from the checkpoint before it" in caplog.text
    result = train(config, run.path, device="cpu", resume=True)
    assert (result.finished, result.step) == (True, 8)
    for path in (run.state, run.previous_state):
        path.write_bytes(b"torn")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        train(replace(config, steps=9), run.path, device="cpu", resume=True)


def test_a_state_that_is_gone_is_replaced_by_the_one_before(tiny, tmp_path):
    config = replace(tiny, train=replace(tiny.train, save_minutes=1e-6))
    train(config, tmp_path / "run", device="cpu")
    wanted = tensors(tmp_path / "run")
    RunDir(tmp_path / "run").state.unlink()
    assert train(config, tmp_path / "run", device="cpu", resume=True).finished
    assert_same(tensors(tmp_path / "run"), wanted)


def test_a_disk_that_fills_up_half_way_leaves_the_checkpoint(tiny, finished, monkeypatch):
    run = finished
    wanted = tensors(run)
    honest = module.save_file

    def full(tensors, path, metadata=None):
        honest(tensors, path, metadata)
        with open(path, "r+b") as file:
            file.truncate(1000)
        full_disk()

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        train(replace(tiny, steps=8), run, device="cpu", resume=True)
    monkeypatch.undo()
    assert_same(tensors(run), wanted)
    assert not list(run.rglob(".part-*"))
    assert train(replace(tiny, steps=8), run, device="cpu", resume=True).step == 8


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_file_that_may_not_grow_is_a_sentence(finished, capfd):
    import resource

    wanted, limit = tensors(finished), resource.RLIMIT_FSIZE
    before = resource.getrlimit(limit), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(limit, (20_000, before[0][1]))
    try:
        assert main(["train", "--resume", "--steps", "6", "--out", str(finished)]) == 1
        error = capfd.readouterr().err
    finally:
        resource.setrlimit(limit, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert "Traceback" not in error
    assert "File too large" in error
    assert_same(wanted, tensors(finished))
    assert not list((finished).rglob(".part*"))


def test_a_folder_that_is_removed_while_it_trains(tiny, tmp_path, monkeypatch):
    train_module = sys.modules["ddpm.training.train"]
    honest = train_module.train_step

    def removing(*args):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return honest(*args)

    monkeypatch.setattr(train_module, "train_step", removing)
    with pytest.raises(OSError, match="No such file"):
        train(tiny, tmp_path / "run", device="cpu")


def test_the_state_before_is_kept(tiny, tmp_path):
    config = replace(tiny, steps=3, train=replace(tiny.train, save_minutes=1e-6))
    run = RunDir(tmp_path)
    train(config, run.path, device="cpu")
    before, _ = module.read_tensors(run.previous_state)
    now, _ = module.read_tensors(run.state)
    assert before.keys() >= {k for k in now if k.startswith("raw.")}


@pytest.fixture
def disk(tmp_path):
    """Makes a disk of so many kB, and gives it another size."""
    path = tmp_path / "disk"

    def sized(kb):
        again = "remount," if path.exists() else ""
        path.mkdir(exist_ok=True)
        words = ["mount", "-t", "tmpfs", "-o", f"{again}size={kb}k", "none", path]
        if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("no disk can be mounted here")
        return path

    yield sized
    subprocess.run(["umount", path], capture_output=True)


@pytest.fixture
def small(tiny):
    unet = replace(tiny.unet, channels=4, mults=(1,), attention=(), groups=2, patch=1)
    config = replace(tiny, unet=unet, held_out=2, steps=4)
    return replace(config, train=replace(tiny.train, batch=4, save_minutes=1e-6))


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)


def assert_goes_on(config, path, wanted):
    """What was whole still is, nothing is left over, and with more room the run ends the same."""
    contents = inspect_run(path)
    assert not contents.damaged
    assert not [p for p in path.rglob("*") if p.name.startswith((".part", ".tmp"))]
    yield
    result = train(config, path, images=IMAGES, device="cpu", resume=contents.is_run)
    assert result.finished
    assert_same(tensors(path), tensors(wanted))
    assert [line["step"] for line in metrics(path)] == [*range(1, config.steps + 1)]


SIZES = [16, 28, 60, 90, 120, 160]


@pytest.mark.parametrize(
    "kb", [k if k in (60, 120) else pytest.param(k, marks=pytest.mark.long) for k in SIZES]
)
def test_a_small_disk_is_full_in_a_checkpoint(small, disk, tmp_path, kb):
    train(small, tmp_path / "whole", images=IMAGES, device="cpu")
    run = disk(kb) / "run"
    with pytest.raises((OSError, UserError), match="No space left"):
        train(small, run, images=IMAGES, device="cpu")
    check = assert_goes_on(small, run, tmp_path / "whole")
    next(check)
    disk(4000)
    assert list(check) == []


def test_a_small_disk_is_full_in_the_log(small, disk, tmp_path, monkeypatch):
    """A line that crosses a block's end has no room, and is torn there."""
    config = replace(small, steps=40, train=replace(small.train, save_minutes=9.0))
    train(config, tmp_path / "whole", images=IMAGES, device="cpu")
    run = disk(1000) / "run"
    module = sys.modules["ddpm.training.train"]
    honest, taken = module.train_step, []

    def filling(*args):
        taken.append(1)
        if len(taken) < 20:  # the first block of the log is not full yet
            return honest(*args)
        with suppress(OSError), (run.parent / "others").open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        return honest(*args)

    monkeypatch.setattr(module, "train_step", filling)
    with pytest.raises(OSError, match="No space left"):
        train(config, run, images=IMAGES, device="cpu")
    monkeypatch.undo()
    lines = RunDir(run).metrics.read_text().splitlines()
    assert 20 <= len(lines) < 40
    check = assert_goes_on(config, run, tmp_path / "whole")
    next(check)
    (run.parent / "others").unlink()
    assert list(check) == []
