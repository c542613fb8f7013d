"""Whatever ends a run, the last checkpoint is whole and the one before is there."""

import multiprocessing
import os
import random
import shutil
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ddpm import UserError, load, train
from ddpm.utils.files import link_or_copy

KILLS = int(os.environ.get("DDPM_KILLS", 0)) or 15


def tensors(run):
    return load_file(run / "state" / "state.safetensors") | load_file(run / "model.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a), "weights differ"


def go(config, run, resume):
    """What a killed process was doing; quietly."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    train(config, run, device="cpu", resume=resume)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked from a server")
def test_killed_many_times_it_ends_with_the_same_weights(tiny_dropout, tmp_path):
    """At moments drawn at random: while it reads, steps, writes, renames or draws."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ddpm.training.train"])
    config = replace(tiny_dropout, steps=12, held_out=8)
    config = replace(config, train=replace(config.train, save_minutes=1e-6))  # at every step
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(config, tmp_path / "whole", device="cpu")
    torch.set_num_threads(threads)
    wanted, rng = tensors(tmp_path / "whole"), random.Random(0)

    start, kills, ends = time.monotonic(), 0, 0
    whole = context.Process(target=go, args=(config, tmp_path / "timed", False))
    whole.start()
    whole.join()
    takes = time.monotonic() - start
    while kills < KILLS:
        run = tmp_path / f"run-{ends}"
        process = context.Process(target=go, args=(config, run, (run / "config.toml").exists()))
        process.start()
        process.join(rng.uniform(0.2, 0.8) * takes)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
        else:
            assert process.exitcode == 0
            assert_same(tensors(run), wanted)
            ends += 1
    go_on = context.Process(target=go, args=(config, run, (run / "config.toml").exists()))
    go_on.start()
    go_on.join()
    assert_same(tensors(run), wanted)


def full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone to zeros"])
def test_a_damaged_state_is_found_and_the_one_before_serves(tiny, tmp_path, damage, capsys):
    config = replace(tiny, steps=8, train=replace(tiny.train, save_minutes=1e-6))
    train(config, tmp_path / "whole", device="cpu")
    run = tmp_path / "run"
    train(replace(config, steps=6), run, device="cpu")
    state = run / "state" / "state.safetensors"
    data = bytearray(state.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[-100] ^= 1
    else:
        data = bytearray(len(data))
    state.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:  # the disk is full when the next is to be written
        patch.setattr("ddpm.checkpoint.checkpoint.save_file", full_disk)
        with pytest.raises(OSError, match="No space left"):
            train(replace(config, steps=8), run, device="cpu", resume=True)
    assert "going on from the checkpoint before it" in capsys.readouterr().err
    result = train(replace(config, steps=8), run, device="cpu", resume=True)
    assert result.finished
    assert result.step == 8
    for path in (state, state.with_name("state-before.safetensors")):
        path.write_bytes(b"torn")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        train(replace(config, steps=9), run, device="cpu", resume=True)


def test_a_flipped_bit_in_a_model_is_found(tiny, tmp_path):
    train(tiny, tmp_path / "run", device="cpu")
    path = tmp_path / "run" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 64
    path.write_bytes(data)
    with pytest.raises(UserError, match="its contents are not those that were written"):
        load(path)


def test_the_state_before_is_kept(tiny, tmp_path):
    config = replace(tiny, steps=3, train=replace(tiny.train, save_minutes=1e-6))
    train(config, tmp_path / "run", device="cpu")
    before = load_file(tmp_path / "run" / "state" / "state-before.safetensors")
    now = load_file(tmp_path / "run" / "state" / "state.safetensors")
    assert before.keys() >= {k for k in now if k.startswith("raw.")}


def test_a_second_name_for_a_file(tmp_path, monkeypatch):
    link_or_copy(tmp_path / "none", tmp_path / "b")
    assert not (tmp_path / "b").exists()
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new"

    def no_links(*args):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "a").write_text("newer")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "newer"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_disk_that_fills_up_ends_the_run_with_a_word_and_keeps_the_checkpoint(
    tiny, tmp_path, monkeypatch
):
    """Writing fails half-way, as on a full disk; what was there stays."""
    from ddpm.checkpoint import checkpoint

    run = tmp_path / "run"
    train(tiny, run, device="cpu")
    wanted = tensors(run)
    honest = checkpoint.save_file

    def full(tensors, path, metadata=None):
        honest(tensors, path, metadata)
        with open(path, "r+b") as file:
            file.truncate(1000)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        train(replace(tiny, steps=8), run, device="cpu", resume=True)
    monkeypatch.undo()
    assert_same(tensors(run), wanted)
    assert not list(run.rglob(".part-*"))
    assert train(replace(tiny, steps=8), run, device="cpu", resume=True).step == 8


def test_a_folder_that_is_removed_while_it_trains(tiny, tmp_path, monkeypatch):
    module = sys.modules["ddpm.training.train"]
    honest = module.train_step

    def removing(*args):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return honest(*args)

    monkeypatch.setattr(module, "train_step", removing)
    with pytest.raises(OSError, match="No such file"):
        train(tiny, tmp_path / "run", device="cpu")


def test_a_restart_goes_on_with_its_own_run_alone(tiny, tmp_path, monkeypatch):
    """torchrun starts everything anew where it fails, also where a run was rightly refused."""
    train(replace(tiny, steps=2), tmp_path / "run", device="cpu")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(replace(tiny, steps=3), tmp_path / "run", device="cpu").step == 3
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another job")
    with pytest.raises(UserError, match="is in use"):
        train(replace(tiny, steps=4), tmp_path / "run", device="cpu")
    assert load(tmp_path / "run").step == 3


def test_a_disk_without_locks_keeps_nobody_out(tiny, tmp_path, monkeypatch):
    def none(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    assert train(tiny, tmp_path / "run", device="cpu").finished
