"""One answer to what lies in a run's folder, and one run at a time in it."""

import subprocess
import sys

import pytest

from ddpm import UserError, train
from ddpm.checkpoint.run_dir import RunDir, check_trainable, find_runs, inspect_run
from ddpm.config import Config


def test_nothing(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        run = inspect_run(path)
        assert (run.kind, run.states, run.model, run.guide, run.damaged) == (
            "nothing", (), None, None, (),
        )  # fmt: skip
        assert not run.is_run


def test_what_a_killed_run_leaves_before_it_has_begun_is_nothing(tmp_path):
    with RunDir(tmp_path).locked():
        pass
    (tmp_path / ".part-123-config.toml").write_text("steps =")
    assert inspect_run(tmp_path).kind == "nothing"


def test_files_of_another_program(tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    assert inspect_run(tmp_path).kind == "other"
    assert inspect_run(tmp_path / "diary.txt").kind == "other"


def test_a_run_that_has_begun(tmp_path):
    (tmp_path / "config.toml").write_text("steps = 1\n")
    run = inspect_run(str(tmp_path))
    assert run.kind == "begun"
    assert run.is_run


def test_a_run_with_checkpoints(tiny, tmp_path):
    train(tiny, tmp_path, device="cpu")
    run = inspect_run(tmp_path)
    assert run.kind == "saved"
    assert run.states == (run.dir.state, run.dir.previous_state)
    assert (run.model, run.guide, run.damaged) == (run.dir.model, run.dir.guide, ())
    run.dir.state.write_bytes(run.dir.state.read_bytes()[:-1])
    run.dir.guide.write_text("no weights")
    assert inspect_run(tmp_path).damaged == (run.dir.state, run.dir.guide)


def test_weights_alone_are_no_run(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    run = inspect_run(tmp_path)
    assert (run.kind, run.model) == ("other", tmp_path / "model.safetensors")


def test_runs_in_a_folder(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text("")
    (tmp_path / "c").mkdir()
    assert [run.path.name for run in find_runs(tmp_path)] == ["a", "b"]
    assert [run.path for run in find_runs(tmp_path / "a")] == [tmp_path / "a"]
    assert find_runs(tmp_path / "none") == []


def test_where_a_run_can_begin_and_where_it_can_go_on(tmp_path):
    assert check_trainable(tmp_path / "new", resume=False).kind == "nothing"
    assert (tmp_path / "new").is_dir()
    with pytest.raises(UserError, match="there is no run to resume in"):
        check_trainable(tmp_path / "new", resume=True)
    with RunDir(tmp_path / "new").locked():  # of a run that got no further
        pass
    assert check_trainable(tmp_path / "new", resume=True).kind == "nothing"
    (tmp_path / "new" / "config.toml").write_text("steps = 3")
    assert check_trainable(tmp_path / "new", resume=True).kind == "begun"
    check_trainable(tmp_path / "new", resume=False, config=Config(steps=3))
    with pytest.raises(UserError, match="is in use"):
        check_trainable(tmp_path / "new", resume=False, config=Config(steps=4))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write to"):
        check_trainable(tmp_path / "file" / "run", resume=False)


def test_one_run_at_a_time(tmp_path):
    run = RunDir(tmp_path)
    message = "another process is training in"
    with run.locked():
        with pytest.raises(UserError, match=message), RunDir(tmp_path).locked():
            pass
        code = (
            "import sys; from ddpm.checkpoint.run_dir import RunDir; from pathlib import Path\n"
            "with RunDir(Path(sys.argv[1])).locked(): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True
        )
        assert message in other.stderr
    with RunDir(tmp_path).locked():
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="locks are made in another way")
def test_a_disk_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    with RunDir(tmp_path).locked(), RunDir(tmp_path).locked():
        pass
