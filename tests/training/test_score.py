"""Scores while a run trains, and the weights that had the best one."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

from ddpm import ImageDataset, UserError, evaluate, generate, load, train
from ddpm.checkpoint.checkpoint import save
from ddpm.checkpoint.header import Header, Score, header_of
from ddpm.checkpoint.run_dir import RunDir, inspect_run
from ddpm.cli.train import read_train_options
from ddpm.config import read_toml
from ddpm.data.load import load_images
from ddpm.training import clock, score
from ddpm.training.monitor import Monitor
from ddpm.training.validation import split_held_out
from pictures import photos
from runs import assert_same, tensors


@pytest.fixture(scope="module")
def digits():
    """A few digits of each class, so that their features are soon known."""
    all_of_them = load_images("mnist5k")
    images, labels = all_of_them.images[::25], all_of_them.labels[::25]
    return ImageDataset.from_array(images, labels, all_of_them.classes, "few digits")


@pytest.fixture(scope="module")
def scored(tiny):
    """Scores at every step, of few samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "SAMPLES", 40)
        patch.setattr(clock, "SCORE_SHARE", 1e9)
        yield replace(tiny, held_out=0, train=replace(tiny.train, score_minutes=1e-7))


@pytest.fixture(scope="module")
def whole(scored, digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("scored") / "run"
    train(scored, path, images=digits, device="cpu")
    return path


@pytest.fixture
def run(whole, tmp_path):
    """A run that was scored, at its end."""
    return RunDir(shutil.copytree(whole, tmp_path / "run"))


def scores(path):
    return [json.loads(line) for line in RunDir(path).scores.read_text().splitlines()]


def best(path):
    return header_of(RunDir(path).best, Header)


def test_scores_are_logged_and_the_best_weights_are_kept(scored, digits, tmp_path, caplog):
    caplog.set_level("INFO")
    train(replace(scored, steps=8), tmp_path / "run", images=digits, device="cpu")
    lines = scores(tmp_path / "run")
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    assert len(lines) > 3
    assert lines[-1]["step"] == 8  # the weights that the run ends with too
    assert {line["n"] for line in lines} == {40}
    assert all(line["features"].startswith("digit-net ") for line in lines)
    least = min(lines, key=lambda line: line["distance"])
    kept = best(tmp_path / "run")
    assert (kept.step, kept.images_seen) == (least["step"], least["images"])
    assert kept.score == Score(least["distance"], 40, least["features"])
    assert inspect_run(tmp_path / "run").best == RunDir(tmp_path / "run").best
    assert header_of(RunDir(tmp_path / "run").model, Header).score is None
    assert caplog.text.count("the best so far, kept in") >= 1
    assert f"step 8: distance {lines[-1]['distance']:.4g}, of 40 samples" in caplog.text


def test_the_score_is_that_of_evaluate(run, digits):
    """Of the weights that were kept, as they are used."""
    report = evaluate(run.best, data=digits, n=40, device="cpu")
    assert report.distance == pytest.approx(best(run.path).score.distance, rel=1e-6)
    assert load(run.best).step == best(run.path).step
    assert generate(run.best, n=2).images.shape == (2, 1, 28, 28)


def test_images_that_are_held_out_are_no_part_of_what_is_compared_with(scored, digits, tmp_path):
    config = replace(scored, held_out=8)
    train(config, tmp_path / "run", images=digits, device="cpu")
    learned, held_out = split_held_out(len(digits), 8)
    assert len(held_out) == 8
    others = ImageDataset.from_array(digits.images[learned], source="learned")
    report = evaluate(RunDir(tmp_path / "run").best, data=others, n=40, device="cpu")
    assert report.distance == pytest.approx(best(tmp_path / "run").score.distance, rel=1e-5)


def test_scores_do_not_disturb_the_training(tiny_dropout, scored, digits, tmp_path):
    train(tiny_dropout, tmp_path / "plain", images=digits, device="cpu")
    config = replace(tiny_dropout, train=scored.train)
    train(config, tmp_path / "scored", images=digits, device="cpu")
    assert len(scores(tmp_path / "scored")) > 2
    assert_same(tensors(tmp_path / "plain"), tensors(tmp_path / "scored"))
    run = RunDir(tmp_path / "plain")
    assert not run.scores.exists()
    assert not run.best.exists()


def keep(path, distance, step, like):
    """Put other weights in the place of the best, with that score."""
    run, known = RunDir(path), best(path)
    net = load(run.best).net
    with torch.no_grad():
        net.conv_out.weight.zero_()
    config = replace(known.config, sample=like)
    score = replace(known.score, distance=distance)
    save(run.best, net, config, known.data, step, 0, score=score)
    return run.best.read_bytes()


def test_a_resumed_run_keeps_the_best_until_there_is_a_better_one(scored, digits, run):
    run, longer = run.path, replace(scored, steps=6)
    written = keep(run, 0.0, 1000, scored.sample)  # of a step beyond the checkpoint
    train(longer, run, images=digits, device="cpu", resume=True)
    assert RunDir(run).best.read_bytes() == written
    steps = [line["step"] for line in scores(run)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 6
    keep(run, 1e9, 1000, scored.sample)
    train(replace(scored, steps=8), run, images=digits, device="cpu", resume=True)
    assert 6 < best(run).step <= 8
    assert best(run).score.distance == min(
        line["distance"] for line in scores(run) if line["step"] > 6
    )


def test_other_settings_of_samples_are_compared_by_a_score_of_the_same(scored, digits, run, caplog):
    """Weights that make noise had a good score by two steps: by three, they have their own."""
    caplog.set_level("INFO")
    keep(run.path, 0.0, 2, scored.sample)
    three = replace(scored.sample, steps=3)
    longer = replace(scored, steps=5, sample=three)
    monitor = Monitor(
        run, Running(load(run.path), longer), load(run.path).diffusion, digits,
        split_held_out(len(digits), 0), main=True,
    )  # fmt: skip
    distance, step = monitor.scoring.best(monitor.state, Quiet(), [])
    assert step == 2
    network = replace(load(run.best), config=longer)
    report = evaluate(network, data=digits, n=40, settings=three, device="cpu")
    assert distance == pytest.approx(report.distance, rel=1e-6)
    assert distance > 1


class Quiet:
    def say(self, text):
        pass

    def scored(self, step, distance, n):
        pass


class Running:
    """The state of a run, of a checkpoint's weights."""

    def __init__(self, checkpoint, config):
        self.config, self.data, self.step = config, checkpoint.data, checkpoint.step
        self.images_seen, self.seconds = checkpoint.images_seen, 1.0
        self.ema = type("EMA", (), {"model": checkpoint.net})


def test_a_score_that_is_stopped_writes_nothing(scored, digits, run):
    run.scores.unlink()
    run.best.unlink()
    state = Running(load(run.path), scored)
    parts = split_held_out(len(digits), 0)
    scoring = Monitor(run, state, load(run.path).diffusion, digits, parts, main=True).scoring
    scoring(state, Quiet(), [2])
    assert not run.scores.exists()
    assert not run.best.exists()


def test_a_damaged_best_is_replaced(scored, digits, run):
    run.best.write_bytes(run.best.read_bytes()[:-10])
    assert inspect_run(run.path).damaged == (run.best,)
    train(replace(scored, steps=6), run.path, images=digits, device="cpu", resume=True)
    assert best(run.path).step > 4


def test_a_run_that_was_killed_in_its_last_score_makes_it(scored, digits, tmp_path):
    scored = replace(scored, data=digits.source)  # as the state has it: else nothing is finished
    run = RunDir(tmp_path / "run")
    train(scored, run.path, images=digits, device="cpu")
    lines = run.scores.read_text().splitlines(keepends=True)
    run.scores.write_text("".join(lines[:-1]) + lines[-1][:-9])
    train(scored, run.path, images=digits, device="cpu", resume=True)
    again = run.scores.read_text().splitlines(keepends=True)
    assert json.loads(again[-1])["distance"] == json.loads(lines[-1])["distance"]
    assert again[:-1] == lines[:-1]


def test_weights_that_explode_are_neither_scored_nor_kept(scored, digits, tmp_path):
    wild = replace(scored.train, lr=1e30, warmup=0, decay=0.0)
    with pytest.raises(UserError, match=r"try a lower --train\.lr"):
        train(replace(scored, steps=400, train=wild), tmp_path, images=digits, device="cpu")
    run = RunDir(tmp_path)
    assert all(line["step"] == 0 for line in (scores(tmp_path) if run.scores.exists() else []))
    assert not run.best.exists() or best(tmp_path).step == 0


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_32x32_is_compared_in_the_bundled_features(scored, tmp_path, channels):
    config = replace(scored, steps=1, train=replace(scored.train, batch=4, score_minutes=60))
    images = photos(20, side=32, channels=channels).permute(0, 2, 3, 1).numpy()
    train(config, tmp_path, images=images, device="cpu")
    (line,) = scores(tmp_path)  # of the end alone
    assert line["features"].startswith("cifar-net ")
    assert math.isfinite(line["distance"])


def test_features_that_are_missing_are_told_before_anything_is_written(
    scored, tmp_path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    images = photos(20).permute(0, 2, 3, 1).numpy()
    with pytest.raises(UserError, match=r"--score-every: Inception features need torch-fidelity"):
        train(scored, tmp_path / "run", images=images, device="cpu")
    few = images[:3]
    with pytest.raises(UserError, match=r"--score-every: "):
        train(scored, tmp_path / "run", images=few, device="cpu")
    assert not list((tmp_path / "run").iterdir())


def test_a_budget_that_has_no_room_for_a_score_is_told(scored, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(score, "SAMPLES", 10_000)
    short = replace(scored, steps=None, minutes=0.01)
    with pytest.raises(UserError, match=r"takes about .* here, more than 40% of --minutes 0.01"):
        train(short, tmp_path / "run", images=digits, device="cpu")
    assert not list((tmp_path / "run").iterdir())


def test_it_is_a_setting_of_the_run(run):
    for words in (["--score-every", "1h"], ["--train.score-minutes=60"]):
        assert read_train_options(words).config.train.score_minutes == 60
    assert read_train_options([]).config.train.score_minutes == 0
    assert read_toml(run.config).train.score_minutes == 1e-7
