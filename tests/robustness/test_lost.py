"""What a run has learned is not lost: not with its state, its folder, the power, or its numbers."""

import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ddpm import UserError, load, train
from ddpm.checkpoint.run_dir import RunDir
from ddpm.checkpoint.tensors import load_tensors, save_tensors
from ddpm.cli.main import main
from ddpm.cli.train import read_train_options
from ddpm.training.state import StateHeader
from runs import metrics


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def small(tiny):
    return replace(tiny, steps=3, held_out=2, train=replace(tiny.train, batch=8, decay=0.0))


@pytest.fixture
def begin(small, images, tmp_path):
    """Trains in a folder, in as many steps as are asked for."""

    def begin(path=tmp_path / "run", steps=3, **more):
        return train(replace(small, steps=steps), path, images=images, device="cpu", **more)

    return begin


@pytest.fixture(scope="module")
def trained_runs(small, images, tmp_path_factory):
    """A run of three steps, and one of two that went on to four."""
    folder = tmp_path_factory.mktemp("runs")
    for name, steps in (("three", 3), ("four", 2), ("four", 4)):
        path = folder / name
        config = replace(small, steps=steps)
        train(config, path, images=images, device="cpu", resume=path.exists())
    return folder


@pytest.fixture
def begun(trained_runs, tmp_path):
    """A run at its third step, as if it had just been trained."""
    return RunDir(shutil.copytree(trained_runs / "three", tmp_path / "run"))


@pytest.fixture
def gone_on(trained_runs, tmp_path):
    """A run at its fourth step, with the checkpoint of the second kept."""
    return RunDir(shutil.copytree(trained_runs / "four", tmp_path / "run"))


def leftovers(path):
    return [p for p in path.rglob("*") if p.name.startswith((".part-", ".tmp"))]


# ---- a state that is missing -----------------------------------------------------------------


def test_a_new_run_whose_state_leads_nowhere(begin, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state").symlink_to(tmp_path / "not mounted")
    for resume in (False, True):
        with pytest.raises(UserError, match="is missing"):
            begin(resume=resume)


def test_a_state_of_a_newer_version_is_not_replaced_by_an_older(begin, begun):
    state = begun.state
    content, header = load_tensors(state, StateHeader)
    save_tensors(state, content, replace(header, version=99))
    newer = state.read_bytes()
    with pytest.raises(UserError, match="newer ddpm"):
        begin(steps=6, resume=True)
    assert state.read_bytes() == newer


def test_the_command_resumes_where_no_settings_were_written(tmp_path):
    (tmp_path / "run" / "state").mkdir(parents=True)
    options = read_train_options(["--out", str(tmp_path / "run"), "--resume", "--steps", "3"])
    assert (options.resume, options.config.steps) == (True, 3)
    options = read_train_options(["cifar10", "--out", str(tmp_path / "run"), "--resume"])
    assert options.config.data == "cifar10"


def test_a_run_goes_on_whose_settings_are_gone(begin, small, tmp_path, images, caplog):
    np.save(tmp_path / "a.npy", images)
    config = replace(small, data=str(tmp_path / "a.npy"))
    run, words = RunDir(tmp_path / "run"), ["train", "--out", str(tmp_path / "run")]
    train(config, run.path, device="cpu")
    wanted = run.config.read_text()
    run.config.unlink()
    assert main([*words, "--data", config.data]) == 1
    assert main([*words, "--resume", "--steps", "5", "--device", "cpu"]) == 0
    assert f"{run.config} is missing: going on with the settings in {run.state}" in caplog.text
    assert run.config.read_text() == wanted.replace("steps = 3", "steps = 5", 1)
    assert [line["step"] for line in metrics(run.path)] == [1, 2, 3, 4, 5]
    run.config.unlink()
    run.state.write_text("torn")
    assert read_train_options([*words[1:], "--resume"]).config.data == config.data


def test_weights_without_a_state_or_settings_are_told(begin, begun):
    for path in (begun.config, begun.state, begun.previous_state):
        path.unlink()
    with pytest.raises(UserError, match=r"cannot go on: .* there are .*model.safetensors.*--init"):
        begin(resume=True)
    with pytest.raises(UserError, match="is in use: give another --out"):
        begin()


# ---- the lock --------------------------------------------------------------------------------


def replace_folder_at(step, path, monkeypatch):
    """Have the folder of a run replaced by another run's while it trains."""
    module = sys.modules["ddpm.training.train"]
    honest, seen = module.train_step, []

    def replacing(*args):
        seen.append(1)
        if len(seen) == step:
            path.rename(path.with_name("gone"))
            path.mkdir()
            with RunDir(path).locked():
                pass
            (path / "metrics.jsonl").write_text("another's\n")
        return honest(*args)

    monkeypatch.setattr(module, "train_step", replacing)


def test_a_folder_that_another_run_has_taken_is_left_alone(begin, tmp_path, monkeypatch):
    path = tmp_path / "run"
    replace_folder_at(2, path, monkeypatch)
    with pytest.raises(UserError, match="another has taken its place"):
        begin(steps=9)
    assert sorted(p.name for p in path.iterdir()) == ["metrics.jsonl", "state"]
    assert (path / "metrics.jsonl").read_text() == "another's\n"
    assert [p.name for p in (path / "state").iterdir()] == ["lock"]


def test_a_run_that_was_slow_to_read_its_images_does_not_overwrite(begin, tmp_path, monkeypatch):
    module = sys.modules["ddpm.training.train"]
    honest = module.load_data

    def slow(*args, **options):
        data = honest(*args, **options)
        monkeypatch.setattr(module, "load_data", honest)
        begin(steps=5)  # another begins, and ends, while this one reads
        return data

    monkeypatch.setattr(module, "load_data", slow)
    with pytest.raises(UserError, match="is in use"):
        begin(steps=3)
    assert load(tmp_path / "run").step == 5


def test_what_is_in_the_lock_stays(tmp_path):
    run = RunDir(tmp_path)
    run.lock.parent.mkdir()
    run.lock.write_text("somebody's")
    with run.locked():
        assert run.lock.read_text() == "somebody's"
    assert run.lock.read_text() == "somebody's"


@pytest.mark.skipif(sys.platform == "win32", reason="locks are made in another way")
def test_a_lock_that_may_not_be_taken_is_not_passed_over(tmp_path, monkeypatch):
    def refused(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(OSError, match="Input/output"), RunDir(tmp_path).locked():
        pass


def test_leftovers_are_cleaned_by_whoever_holds_the_lock(begin, begun):
    path = begun.path
    dead = [
        ".part-1-metrics.jsonl", ".part-1-model.safetensors", ".tmpa1b2c3", "state/.tmpa1b2c3",
        "state/.part-1-state.safetensors", "samples/.part-1-0000003-ema.png",
    ]  # fmt: skip
    for name in dead:
        (path / name).write_text("half")
    (path / ".part-1-mine.png").write_text("of another program that lives")
    with RunDir(path).locked():
        assert [p.name for p in leftovers(path)] == [".part-1-mine.png"]
        living = path / "state" / ".part-2-state.safetensors"
        living.write_text("half")
        with pytest.raises(UserError, match="another process"):
            begin(resume=True)
        assert living.exists()


# ---- numbers ---------------------------------------------------------------------------------


def explode_at(step, monkeypatch, factor=1e4):
    """Have the weights multiplied after a step, once."""
    module = sys.modules["ddpm.training.train"]
    honest, seen = module.train_step, []

    def exploding(accelerator, net, *args):
        terms = honest(accelerator, net, *args)
        seen.append(1)
        if len(seen) == step:
            with torch.no_grad():
                for p in net.parameters():
                    p.mul_(factor).add_(factor)
        return terms

    monkeypatch.setattr(module, "train_step", exploding)


@pytest.mark.parametrize("factor", [1e4, float("nan")])
def test_weights_that_explode_do_not_replace_sound_ones(begin, begun, monkeypatch, caplog, factor):
    explode_at(2, monkeypatch, factor)
    result = begin(steps=5, resume=True)
    assert result.finished
    assert "have exploded" in caplog.text
    assert "back to step 3, and on with 0.5 of the learning rate" in caplog.text
    for path in (begun.state, begun.previous_state, begun.model):
        assert all(t.abs().max() < 100 for t in load_file(path).values())
    assert [line["step"] for line in metrics(begun.path)] == [1, 2, 3, 4, 5]


def test_going_back_goes_further_where_the_last_checkpoint_does_not_help(
    begin, gone_on, monkeypatch, caplog
):
    """Steps that follow on the newest checkpoint always explode; not those on the one before."""
    module = sys.modules["ddpm.training.train"]
    honest = module.train_step
    steps = []

    def exploding(accelerator, net, loss, optimizer, *args):
        terms = honest(accelerator, net, loss, optimizer, *args)
        if 2 not in steps:
            steps.append(int(optimizer.state_dict()["state"][0]["step"]) - 1)
            with torch.no_grad():
                for p in net.parameters():
                    p.mul_(1e4 if 2 not in steps else 1)
        return terms

    monkeypatch.setattr(module, "train_step", exploding)
    assert begin(steps=6, resume=True).finished
    assert "back to step 4" in caplog.text
    assert "back to step 2" in caplog.text


def explode_after(step, monkeypatch, ends_at=None):
    """Have every step that follows on this one explode, until the run has gone further back. Where
    it `ends_at` a step, nothing more is written from then on, as if it had been killed."""
    module = sys.modules["ddpm.training.train"]
    honest, taken = module.train_step, []

    def exploding(accelerator, net, loss, optimizer, *args):
        terms = honest(accelerator, net, loss, optimizer, *args)
        taken.append(int(optimizer.state_dict()["state"][0]["step"]))
        if ends_at in taken:
            raise KeyboardInterrupt
        if min(taken) > step and taken[-1] > step:
            with torch.no_grad():
                for p in net.parameters():
                    p.mul_(1e4)
        return terms

    monkeypatch.setattr(module, "train_step", exploding)
    return taken


def test_a_kill_after_going_back_twice_leaves_no_gap_in_the_logs(begin, gone_on, monkeypatch):
    with monkeypatch.context() as patch:
        explode_after(4, patch, ends_at=3)
        with pytest.raises(KeyboardInterrupt):
            begin(steps=6, resume=True)
    assert [line["step"] for line in metrics(gone_on.path)] == [1, 2]
    assert load_tensors(gone_on.state, StateHeader)[1].step == 2
    assert begin(steps=6, resume=True).finished
    assert [line["step"] for line in metrics(gone_on.path)] == [1, 2, 3, 4, 5, 6]


def test_saves_at_each_step_keep_the_checkpoint_before_what_failed(
    small, images, gone_on, monkeypatch, caplog
):
    """Where it has gone back to step 4, it is saved at once, and so is what follows."""
    explode_after(4, monkeypatch)
    config = replace(small, steps=8, train=replace(small.train, save_minutes=1e-6))
    assert train(config, gone_on.path, images=images, device="cpu", resume=True).finished
    assert "back to step 4" in caplog.text
    assert "back to step 2" in caplog.text
    assert [line["step"] for line in metrics(gone_on.path)] == [*range(1, 9)]


def test_a_state_of_no_numbers_is_passed_over(begin, tmp_path, caplog):
    begin(steps=2)
    begin(steps=3, resume=True)
    state = RunDir(tmp_path / "run").state
    content, header = load_tensors(state, StateHeader)
    content["raw.conv_in.weight"] /= 0
    save_tensors(state, content, header)
    assert begin(steps=4, resume=True).finished
    assert "NaN or infinite" in caplog.text
    assert "going on from the checkpoint before it" in caplog.text


# ---- the power -------------------------------------------------------------------------------


@pytest.fixture
def recorder(monkeypatch):
    """What the system is asked to force to disk and to rename, in order; all of it happens."""
    events, fsync, rename = [], os.fsync, os.replace

    def recording_fsync(handle):
        fsync(handle)
        stat = os.fstat(handle)
        events.append(("fsync", stat.st_ino, stat.st_mtime_ns, stat.st_size))

    def recording_replace(source, target):
        stat = os.stat(source)
        events.append(("rename", stat.st_ino, stat.st_mtime_ns, stat.st_size, os.fspath(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    return events


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not forced to disk there")
def test_all_is_on_disk_before_and_after_it_is_renamed(begin, small, tmp_path, recorder):
    begin(steps=2)
    begin(steps=3, resume=True)
    renames = [i for i, event in enumerate(recorder) if event[0] == "rename"]
    names = {os.path.basename(recorder[i][4]) for i in renames}
    assert names >= {
        "config.toml", "metrics.jsonl", "state.safetensors", "state-before.safetensors",
        "model.safetensors", "guide.safetensors", "0000003-ema.png",
    }  # fmt: skip
    for i in renames:
        _, *what, target = recorder[i]
        assert ("fsync", *what) in recorder[:i], f"{target} is renamed before it is on disk"
        folder = os.stat(os.path.dirname(target)).st_ino
        assert recorder[i + 1][:2] == ("fsync", folder), f"the name {target} is not forced to disk"


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not forced to disk there")
def test_logs_are_on_disk_before_the_state_that_follows_on_them(begin, tmp_path, recorder):
    begin()
    run = RunDir(tmp_path / "run")
    last = max(i for i, e in enumerate(recorder) if e[0] == "rename" and e[4] == str(run.state))
    synced = {event[1]: event for event in recorder[:last] if event[0] == "fsync"}
    assert synced[run.metrics.stat().st_ino][3] == run.metrics.stat().st_size
    made = {p.stat().st_ino for p in (run.path.parent, run.path)}
    assert made <= {event[1] for event in recorder if event[0] == "fsync"}


def test_a_finished_run_that_is_resumed_logs_nothing_twice(begin, begun):
    before = begun.metrics.read_text(), begun.held_out.read_text()
    begin(resume=True)
    assert (begun.metrics.read_text(), begun.held_out.read_text()) == before


def test_a_run_that_was_killed_in_its_last_preview_makes_it_anew(begin, begun):
    run = begun
    (grid,) = run.samples.glob("*-raw.png")
    before = grid.read_bytes(), run.held_out.read_text()
    run.held_out.write_text(before[1][:-9])
    begin(resume=True)
    grid.unlink()
    begin(resume=True)
    assert (grid.read_bytes(), run.held_out.read_text()) == before


def test_an_unexplained_refusal_is_a_sentence():
    from ddpm.utils.errors import explained

    text = explained(PermissionError(13, "Permission denied", "runs/x/metrics.jsonl"))
    assert text == "runs/x/metrics.jsonl may not be written or read: Permission denied"
