"""Nothing that a run has learned is lost: states that are missing, folders that change hands."""

import os
import shutil
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ddpm import UserError, load, train
from ddpm.checkpoint.run_dir import RunDir
from runs import assert_same, metrics, tensors


@pytest.fixture
def longer(tiny):
    return replace(tiny, steps=tiny.steps + 2)


def test_a_run_without_its_states_is_not_begun_anew(finished, longer, tmp_path):
    run, lines, model = RunDir(finished), metrics(finished), tensors(finished)
    run.state.parent.rename(tmp_path / "away")
    for missing in (lambda: None, lambda: run.state.parent.symlink_to(tmp_path / "not-mounted")):
        missing()
        with pytest.raises(UserError, match=r"cannot go on: .*state.safetensors is missing"):
            train(longer, finished, resume=True)
        with pytest.raises(UserError, match=r"is missing|is in use"):
            train(longer, finished)
        assert metrics(finished) == lines
        assert torch.equal(load(finished).net.conv_in.weight,
                           load_file(run.model)["conv_in.weight"])  # fmt: skip
    run.state.parent.unlink()
    (tmp_path / "away").rename(run.state.parent)
    assert_same(tensors(finished), model)
    assert train(longer, finished, resume=True).step == longer.steps


def test_the_state_before_serves(tiny, longer, tmp_path, caplog):
    config = replace(longer, train=replace(tiny.train, save_minutes=1e-6))
    train(config, tmp_path / "whole")
    train(replace(config, steps=tiny.steps), tmp_path / "run")
    RunDir(tmp_path / "run").state.unlink()
    train(config, tmp_path / "run", resume=True)
    assert "is missing; going on from the checkpoint before it" in caplog.text
    assert_same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, longer.steps + 1))


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", ["lock", "config", "both"])
def test_a_run_that_died_before_it_learned_can_be_begun(tiny, trained, tmp_path, left, resume):
    run = RunDir(tmp_path / "run")
    run.lock.parent.mkdir(parents=True)
    if left != "config":
        run.lock.touch()
    if left != "lock":
        shutil.copy(RunDir(trained).config, run.config)
    train(tiny, tmp_path / "run", resume=resume)
    assert_same(tensors(tmp_path / "run"), tensors(trained))


def test_what_killed_processes_left_is_removed(finished, longer):
    left = [".part-7-model.safetensors", "state/.part-7-state.safetensors", "state/.tmpAbC123"]
    for name in (*left, ".part-of-my-notes"):
        (finished / name).write_text("half")
    train(longer, finished, resume=True)
    assert not any((finished / name).exists() for name in left)
    assert (finished / ".part-of-my-notes").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="files that are open cannot be moved")
def test_a_folder_that_another_run_has_taken(tiny, tmp_path):
    """The first run must not write into the second."""
    train(replace(tiny, seed=2), tmp_path / "alone")
    endless = replace(tiny, steps=10**6, train=replace(tiny.train, save_minutes=1e-6))
    ended = []

    def first():
        try:
            train(endless, tmp_path / "run")
        except (UserError, OSError) as error:
            ended.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    while not RunDir(tmp_path / "run").model.exists():
        time.sleep(0.02)
    (tmp_path / "run").rename(tmp_path / "moved")
    train(replace(tiny, seed=2), tmp_path / "run")
    thread.join(60)
    assert ended
    assert not thread.is_alive()
    assert_same(tensors(tmp_path / "run"), tensors(tmp_path / "alone"))
    assert len(metrics(tmp_path / "run")) == tiny.steps


def test_weights_that_are_no_numbers_are_told(finished):
    path = RunDir(finished).model
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    metadata["ddpm"] = metadata["ddpm"].replace('"sha256"', '"unused"')
    bad = load_file(path)
    bad["conv_in.weight"][0] = float("nan")
    header = metadata["ddpm"].rsplit(', "unused"', 1)[0] + "}"
    save_file(bad, path, {"ddpm": header})
    with pytest.raises(UserError, match=r"NaN or infinite, conv_in.weight"):
        load(finished)


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="names of open files are asked of /proc"
)
def test_what_is_written_is_on_disk_before_it_has_its_name(tiny, tmp_path, monkeypatch):
    """Contents first, then the name, then the folder; and logs before their checkpoint."""
    seen, fsync, rename = [], os.fsync, os.replace

    def recorded_fsync(handle):
        seen.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))))
        fsync(handle)

    def recorded_rename(old, new):
        seen.append(("rename", os.path.basename(old), os.path.basename(new)))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_rename)
    train(tiny, tmp_path / "run")
    for name, folder in (("state.safetensors", "state"), ("model.safetensors", "run")):
        last = max(i for i, event in enumerate(seen) if event[0] == "rename" and event[2] == name)
        assert ("fsync", seen[last][1]) in seen[:last]
        assert ("fsync", folder) in seen[last:]
        if name == "state.safetensors":
            assert ("fsync", "metrics.jsonl") in seen[:last]
