"""Curves and grids that are sent elsewhere are those of the run's own files."""

import importlib.util
import json
from dataclasses import replace

import pytest

from ddpm import UserError, train
from ddpm.checkpoint.run_dir import RunDir
from ddpm.config import read_toml
from ddpm.training.track import Tracker
from runs import assert_same, metrics, tensors

LOOKS = 1e-5  # minutes between previews


def needs(name):
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed")


@pytest.fixture
def often(tiny):
    return replace(tiny, train=replace(tiny.train, sample_minutes=LOOKS))


def events(path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(path), size_guidance={"images": 0, "scalars": 0})
    return reader.Reload()


@needs("tensorboard")
def test_tensorboards_own_reader_finds_what_the_run_has_written(often, tmp_path):
    train(replace(often, track="tensorboard"), tmp_path / "run", device="cpu")
    run = RunDir(tmp_path / "run")
    found = events(run.path / "tensorboard")
    lines = metrics(run.path)
    for name in ("loss", "lr", "grad_norm"):
        sent = [(e.step, e.value) for e in found.Scalars(name)]
        assert sent == [(line["step"], pytest.approx(line[name])) for line in lines]
    assert all(e.value > 0 for e in found.Scalars("images per second"))
    losses = [json.loads(line) for line in run.held_out.read_text().splitlines()]
    for kind in ("held out", "learned"):
        for band in losses[0][kind]:
            sent = [(e.step, e.value) for e in found.Scalars(f"{kind}/{band}")]
            assert sent == [(one["step"], pytest.approx(one[kind][band])) for one in losses]
    steps = sorted({path.name[:7] for path in run.samples.iterdir()})
    assert steps
    for name in ("samples ema", "samples raw"):
        assert [f"{e.step:07}" for e in found.Images(name)] == steps
    (text,) = [tag for tag in found.Tags()["tensors"] if "settings" in tag]
    assert b"train.batch = 16" in found.Tensors(text)[0].tensor_proto.string_val[0]


@needs("tensorboard")
def test_tensorboard_has_the_scores(tiny, tmp_path):
    asked = replace(tiny, track="tensorboard", train=replace(tiny.train, score_minutes=60.0))
    train(asked, tmp_path / "run", device="cpu")
    (line,) = RunDir(tmp_path / "run").scores.read_text().splitlines()
    (sent,) = events(tmp_path / "run" / "tensorboard").Scalars("distance of 500 samples")
    score = json.loads(line)
    assert (sent.step, sent.value) == (score["step"], pytest.approx(score["distance"]))


@needs("tensorboard")
def test_a_run_that_is_tracked_is_the_same_run_and_goes_on(often, tmp_path):
    tracked = replace(often, track="tensorboard")
    train(often, tmp_path / "plain", device="cpu")
    train(replace(tracked, steps=2), tmp_path / "run", device="cpu")
    assert read_toml(tmp_path / "run" / "config.toml").track == "tensorboard"
    train(tracked, tmp_path / "run", device="cpu", resume=True)
    steps = [e.step for e in events(tmp_path / "run" / "tensorboard").Scalars("loss")]
    assert steps == [1, 2, 3, 4]
    train(tracked, tmp_path / "whole", device="cpu")
    assert_same(tensors(tmp_path / "plain"), tensors(tmp_path / "whole"))


@needs("wandb")
def test_weights_and_biases_keeps_a_run_without_a_connection(often, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(replace(often, track="wandb"), tmp_path / "run", device="cpu")
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/files/media/images/*.png"))


@needs("mlflow")
def test_mlflow_has_the_numbers_and_the_grids(often, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    train(replace(often, track="mlflow"), tmp_path / "run", device="cpu")
    (kept,) = (tmp_path / "mlruns").glob("*/*/metrics/loss")
    lines = [line.split() for line in kept.read_text().splitlines()]
    assert [int(line[2]) for line in lines] == [1, 2, 3, 4]
    assert list(kept.parents[1].glob("artifacts/samples/*-ema.png"))


def test_a_tracker_that_is_not_installed_is_told_before_any_work(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.training.track.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--track mlflow needs a package: pip install mlflow"):
        train(replace(tiny, track="mlflow"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_fails_on_the_way_ends_tracking_alone(tiny, tmp_path, caplog):
    class Broken:
        def log(self, values, step):
            raise ConnectionError("the line is dead")

    tracker = Tracker(RunDir(tmp_path), replace(tiny, track="wandb"))
    tracker.tracker = Broken()
    tracker.log({"loss": 1.0}, 1)
    tracker.log({"loss": 1.0}, 2)
    tracker.close()
    assert caplog.text.count("wandb is sent nothing any more: the line is dead") == 1


def test_without_a_tracker_nothing_is_sent(tiny, tmp_path):
    tracker = Tracker(RunDir(tmp_path), tiny)
    tracker.log({"loss": 1.0}, 1)
    tracker.log_held_out(1)
    tracker.log_grids(1)
    tracker.close()
    assert not list(tmp_path.iterdir())
