"""Runs that are watched, and begun."""

import json
import time

import numpy as np
import pytest
from PIL import Image

from ddpm import UserError
from ddpm.checkpoint.run_dir import RunDir
from ddpm.config import Config, write_toml
from ddpm.demo import requests, runs
from ddpm.demo.run_launcher import RunLauncher, save_photos
from lazy import Module
from pictures import data_uri

page = Module("ddpm.demo.page")


@pytest.fixture
def folder(tmp_path):
    """A run that has a hundred steps behind it."""
    run = tmp_path / "runs" / "a"
    (run / "samples").mkdir(parents=True)
    (run / "state").mkdir()
    write_toml(Config(steps=2000), run / "config.toml")
    lines = [{"step": i, "images": 8 * i, "seconds": i, "loss": 1 / i} for i in range(1, 2000)]
    torn = '{"step": 2000, "ima'
    (run / "metrics.jsonl").write_text("\n".join([*map(json.dumps, lines), torn]))
    held = {"step": 1000, "images": 8000, "held out": {"SNR over 10": 0.5, "x": float("nan")}}
    (run / "held-out.jsonl").write_text(f"{json.dumps(held)}\n[]\n7\n")
    Image.new("L", (8, 8)).save(run / "samples" / "0001000-ema.png")
    return tmp_path / "runs"


def test_a_run_has_its_curves_and_its_samples(folder):
    found = runs.describe_run(folder, "a")
    assert found["now"]["step"] == 1999
    assert 100 < len(found["loss"]) <= runs.MAX_POINTS
    assert found["bands"] == {"SNR over 10": [(8000, 0.5)]}
    assert found["rate"] == pytest.approx(8)
    (grid,) = found["grids"]
    assert grid["name"] == "0001000"
    assert grid["ema"].startswith("data:image/png")
    assert grid["raw"] == ""
    assert runs.describe_run(folder / "a", "a")["name"] == "a"  # the folder of one run
    for name in ("../../etc", "", "b"):
        with pytest.raises(UserError, match="there is no run"):
            runs.describe_run(folder, name)


def test_a_run_is_sent_anew_when_there_is_something_new(folder):
    run = folder / "a"
    first = runs.describe_run(folder, "a")["version"]
    assert runs.describe_run(folder, "a", first) == {"version": first}
    Image.new("L", (8, 8)).save(run / "samples" / "0001500-ema.png")
    second = runs.describe_run(folder, "a", first)
    assert second["version"] != first
    assert len(second["grids"]) == 2


def test_what_a_run_is_doing_is_said_truly(folder):
    run = RunDir(folder / "a")

    def state():
        return runs.list_runs(folder)[0]["state"]

    assert state() == "stopped"
    with run.locked():
        assert state() == "training"
        assert state() == "training"
    assert state() == "stopped"
    Image.new("L", (8, 8)).save(run.samples / "0001999-ema.png")
    assert state() == "finished"


def test_runs_that_train_come_first_then_the_last_written(folder):
    for i, name in enumerate("bcd"):
        (folder / name / "state").mkdir(parents=True)
        write_toml(Config(steps=5), folder / name / "config.toml")
        line = {"step": 1, "images": 8, "seconds": 1, "loss": 1}
        path = folder / name / "metrics.jsonl"
        path.write_text(json.dumps(line))
        import os

        os.utime(path, (time.time() + i + 1, time.time() + i + 1))
    with RunDir(folder / "a").locked():
        assert list(runs.runs_by_name(folder)) == ["a", "d", "c", "b"]


def test_numbers_that_are_none(folder):
    lines = ["null", "{}", '{"step": 1, "images": 1, "seconds": 1, "loss": NaN}', "[" * 10**5,
             '{"step": 1, "images": 1, "seconds": 1, "loss": "x"}',
             '{"step": 1, "images": 1, "seconds": 1, "loss": 1' + "0" * 400 + "}"]  # fmt: skip
    (folder / "a" / "metrics.jsonl").write_text("\n".join(lines))
    assert runs.describe_run(folder, "a")["loss"] == []


# ---- begun from the page ---------------------------------------------------------------------


def photos(n, side=28):
    rng = np.random.default_rng(0)
    return tuple(
        data_uri(Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)))
        for _ in range(n)
    )  # fmt: skip


def test_a_run_is_begun_watched_and_stopped(tmp_path):
    training = RunLauncher(tmp_path / "runs", allowed=True)
    name = training.start(
        requests.StartRequest(minutes=5, photos=photos(12), labels=tuple("abab" * 3))
    )
    try:
        with pytest.raises(UserError, match="is training: stop it"):
            training.start(requests.StartRequest(minutes=1))
        deadline = time.monotonic() + 240
        while not (tmp_path / "runs" / name / "metrics.jsonl").exists():
            assert training.status(name) == {"ours": True, "failed": ""}, training.last_line()
            assert time.monotonic() < deadline
            time.sleep(0.3)
        assert runs.list_runs(tmp_path / "runs") == [{"name": name, "state": "training"}]
        with pytest.raises(UserError, match="was not begun here"):
            training.stop("other")
        training.stop(name)
        training.process.wait(120)
    finally:
        training.process.kill()
    assert training.status(name) == {"ours": False, "failed": ""}
    assert runs.list_runs(tmp_path / "runs")[0]["state"] == "stopped"
    assert (tmp_path / "runs" / name / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (requests.StartRequest(minutes=1, data="/etc"), "there is no set"),
        (requests.StartRequest(minutes=1, photos=photos(3)), "too few"),
        (requests.StartRequest(minutes=1, photos=photos(8), labels=("a",)), "one class"),
        (requests.StartRequest(minutes=1, photos=photos(8, side=30)), "squares"),
        (
            requests.StartRequest(minutes=1, photos=("data:,x",) * 8),
            "did not arrive whole|cannot be read",
        ),
    ],
)
def test_what_is_not_trained_on(tmp_path, ask, says):
    with pytest.raises(UserError, match=says):
        RunLauncher(tmp_path, allowed=True).start(ask)
    assert not list(tmp_path.iterdir())


def test_where_anyone_can_reach_the_page_none_is_begun(tmp_path):
    with pytest.raises(UserError, match="asks for a password"):
        RunLauncher(tmp_path, allowed=False).start(requests.StartRequest(minutes=1))


def test_photos_become_a_set_with_their_classes(tmp_path):
    from ddpm import load_images

    ask = requests.StartRequest(minutes=1, photos=photos(9), labels=tuple("cab" * 3))
    data = load_images(str(save_photos(ask, tmp_path / "x.npz")))
    assert data.images.shape == (9, 3, 28, 28)
    assert data.info.classes == ("a", "b", "c")
    assert data.labels.tolist() == [2, 0, 1] * 3


def test_a_run_that_fails_says_why(tmp_path):
    training = RunLauncher(tmp_path / "runs", allowed=True)
    training.sets = lambda: {"nowhere": ""}
    name = training.start(requests.StartRequest(minutes=1, data="nowhere"))
    demo = page.Demo(None, training, None)
    assert name in {run["name"] for run in page.list_runs(demo, {}, "")["runs"]}
    training.process.wait(60)
    assert "nowhere" in training.status(name)["failed"]
    assert page.list_runs(demo, {}, "")["runs"] == [{"name": name, "state": "stopped"}]
    with pytest.raises(UserError, match=r"the run has failed: .*nowhere"):
        page.watch_run(demo, {"name": name}, "")
