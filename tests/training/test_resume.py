"""A run that was stopped goes on as if it had not been, and only as the same run."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ddpm import UserError, load, train
from ddpm.checkpoint.run_dir import RunDir
from ddpm.config import read_toml
from pictures import folder_of, photos
from runs import assert_same, before_step, metrics, tensors


def start_process(config, run, *more):
    """`ddpm train` in a process of its own, on a config given as a file."""
    code = (
        "import sys, pathlib; from ddpm.config import read_toml; from ddpm import train;"
        "train(read_toml(pathlib.Path(sys.argv[1])), sys.argv[2], resume=len(sys.argv) > 3)"
    )
    from ddpm.config import write_toml

    path = run.with_suffix(".toml")
    write_toml(config, path)
    return subprocess.Popen(
        [sys.executable, "-c", code, path, run, *more], stderr=subprocess.PIPE, text=True
    )


def wait_for_step(run, step, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "metrics.jsonl").exists() and len(metrics_lines(run)) >= step:
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} was never reached: {process.stderr.read()}")


def metrics_lines(run):
    return (run / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("how", "optimizer"),
    [
        pytest.param(signal.SIGINT, "adamw", marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, "adamw", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, "muon", marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(how, optimizer, tiny_dropout, tmp_path):
    config = replace(tiny_dropout, steps=40)
    config = replace(config, train=replace(config.train, optimizer=optimizer))
    train(config, tmp_path / "whole")
    saving = replace(config, train=replace(config.train, save_minutes=1e-4))  # at every step
    run = tmp_path / "stopped"
    process = start_process(saving if how == signal.SIGKILL else config, run)
    wait_for_step(run, 4, process)
    process.send_signal(how)
    process.wait(timeout=60)
    stopped_at = load(run).step
    assert 0 < stopped_at < 40
    result = train(config, run, resume=True)
    assert (result.step, result.finished) == (40, True)
    assert_same(tensors(tmp_path / "whole"), tensors(run))
    assert [line["step"] for line in metrics(run)] == list(range(1, 41))


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_run_that_a_signal_stops_goes_on_bit_for_bit(tiny_dropout, tmp_path):
    """The signal comes in the middle of a run, to this process."""
    config = replace(tiny_dropout, steps=12, train=replace(tiny_dropout.train, optimizer="muon"))
    train(config, tmp_path / "whole")

    def stop(net):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # which ends the tests
        os.kill(os.getpid(), signal.SIGTERM)

    with before_step(5, stop):
        result = train(config, tmp_path / "run")
    assert (result.step, result.finished) == (5, False)
    assert train(config, tmp_path / "run", resume=True).finished
    assert_same(tensors(tmp_path / "whole"), tensors(tmp_path / "run"))
    assert [line["step"] for line in metrics(tmp_path / "run")] == [*range(1, 13)]


def test_a_finished_run_can_be_given_more(tiny, finished):
    result = train(replace(tiny, steps=6), finished, resume=True)
    assert result.step == 6
    assert load(finished).step == 6


def test_a_run_stopped_before_its_first_checkpoint_begins_again(tiny, trained, finished):
    (finished / "state" / "state.safetensors").unlink()
    train(tiny, finished, resume=True)
    assert_same(tensors(trained), tensors(finished))


def test_a_run_may_go_on_with_another_weight_of_its_loss(tiny, finished):
    other = replace(tiny.diffusion, weight="min-snr", min_weight=0.5, time_sampling="by-weight")
    result = train(replace(tiny, steps=6, diffusion=other), finished, resume=True)
    assert result.step == 6
    assert load(finished).config.diffusion == other


def test_resuming_refuses_what_would_not_be_the_same_run(tiny, finished, tmp_path):
    with pytest.raises(UserError, match="there is no run to resume in"):
        train(tiny, tmp_path / "none", resume=True)
    before = tensors(finished)
    for other in (
        replace(tiny, seed=5),
        replace(tiny, unet=replace(tiny.unet, channels=16)),
        replace(tiny, train=replace(tiny.train, batch=8)),
        replace(tiny, train=replace(tiny.train, optimizer="muon")),
        replace(tiny, diffusion=replace(tiny.diffusion, target="x0")),
        replace(tiny, init="mnist"),
    ):
        with pytest.raises(UserError, match="cannot go on with another"):
            train(other, finished, resume=True)
    state = finished / "state" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    RunDir(finished).previous_state.unlink()
    with pytest.raises(UserError, match="not a whole safetensors file"):
        train(replace(tiny, steps=6), finished, resume=True)
    assert torch.equal(load(finished).net.conv_in.weight, before["conv_in.weight"])


def test_two_trainings_in_one_folder_are_one_too_many(tiny, finished):
    more = replace(tiny, steps=8)
    with (
        RunDir(finished).locked(),
        pytest.raises(UserError, match="another process is training in"),
    ):
        train(more, finished, resume=True)
    assert train(more, finished, resume=True).step == 8


def test_settings_edited_by_hand_are_seen(tiny, finished):
    path = finished / "config.toml"
    path.write_text("# mine\n" + path.read_text())
    train(tiny, finished, resume=True)
    assert path.read_text().startswith("# mine")  # the same settings: the file is left alone
    path.write_text(path.read_text().replace('target = "v"', 'target = "eps"'))
    with pytest.raises(UserError, match="another diffusion"):
        train(read_toml(path), finished, resume=True)


def test_a_run_follows_its_images_to_another_place(tiny, tmp_path):
    images = torch.randint(0, 256, (20, 12, 12), dtype=torch.uint8).numpy()
    np.savez(tmp_path / "here.npz", images=images)
    config = replace(tiny, data=str(tmp_path / "here.npz"))
    train(config, tmp_path / "run")
    (tmp_path / "here.npz").rename(tmp_path / "there.npz")
    moved = replace(config, steps=6, data=str(tmp_path / "there.npz"))
    assert train(moved, tmp_path / "run", resume=True).step == 6
    np.savez(tmp_path / "other.npz", images=255 - images)
    other = replace(config, steps=8, data=str(tmp_path / "other.npz"))
    with pytest.raises(UserError, match="the images are not those"):
        train(other, tmp_path / "run", resume=True)


def test_a_finished_run_without_its_model_gets_it_back(tiny, finished):
    before = tensors(finished)
    (finished / "model.safetensors").unlink()
    assert train(tiny, finished, resume=True).finished
    assert_same(before, tensors(finished))


@pytest.mark.parametrize(
    ("key", "value"), [("step", None), ("step", -5), ("seconds", 1e999), ("ema_updates", "many")]
)
def test_a_damaged_state_is_a_sentence(tiny, finished, key, value):
    path = finished / "state" / "state.safetensors"
    RunDir(finished).previous_state.unlink()
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["ddpm"]) | {key: value}
    save_file(load_file(path), path, metadata={"ddpm": json.dumps(header)})
    with pytest.raises(UserError, match=f"damaged header: {key}"):
        train(replace(tiny, steps=6), finished, resume=True)


@pytest.mark.parametrize("lost", ["optimizer.0.", "optimizer.", "raw.conv_in", "ema."])
def test_a_state_that_lacks_a_part_is_refused(tiny, finished, lost):
    path = finished / "state" / "state.safetensors"
    RunDir(finished).previous_state.unlink()
    with safe_open(path, "pt") as file:
        metadata = {"ddpm": file.metadata()["ddpm"]}
    kept = {k: v for k, v in load_file(path).items() if not k.startswith(lost)}
    save_file(kept, path, metadata=metadata)
    with pytest.raises(UserError, match="is damaged"):
        train(replace(tiny, steps=6), finished, resume=True)


@pytest.mark.parametrize("save_minutes", [1e-6, 1000], ids=["saved often", "never saved"])
def test_a_diverged_run_does_not_replace_its_last_good_checkpoint(
    tiny, finished, monkeypatch, save_minutes
):
    monkeypatch.setattr("ddpm.training.nonfinite.MAX_NONFINITE_STEPS", 5)
    good = tensors(finished)
    often = {"log_every": 1 if save_minutes > 1 else 1000, "save_minutes": save_minutes}
    wild = replace(tiny.train, lr=1e30, warmup=0, decay=0, **often)
    with pytest.raises(UserError, match="the last checkpoint is kept"):
        train(replace(tiny, steps=400, train=wild), finished, resume=True)
    assert [line["step"] for line in metrics(finished)] == [1, 2, 3, 4]
    kept = tensors(finished)
    assert good.keys() == kept.keys()
    assert all(torch.equal(t, kept[name]) for name, t in good.items())


def test_a_run_of_few_images_is_known_to_be_finished(tiny, tmp_path, monkeypatch):
    """None of 19 images is held out, so there is no loss on such images to wait for."""
    few = replace(
        tiny, data=str(folder_of(photos(19, side=8), tmp_path / "few")), size=(8,),
        unet=replace(tiny.unet, attention=()), train=replace(tiny.train, batch=4),
        sample=replace(tiny.sample, guidance=1.0),
    )  # fmt: skip
    train(few, tmp_path / "run")
    monkeypatch.setattr("ddpm.training.preview.sample_grid", lambda *_: pytest.fail("drawn again"))
    again = train(few, tmp_path / "run", resume=True)
    assert (again.step, again.finished) == (few.steps, True)
