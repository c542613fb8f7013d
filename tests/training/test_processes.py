"""Several processes are as one: the same losses, the same weights, one writer."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import forked
from ddpm import load, train
from ddpm.cli.main import main
from ddpm.config import Config, TrainConfig, UNetConfig, write_toml

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked from another")


def launched(n, *words):
    """What n processes of ddpm do, as torchrun starts them."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}",
        *words,
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


def together(n, config, run, tmp_path):
    """Train with n processes."""
    write_toml(config, tmp_path / "wanted.toml")
    return forked.run(n, forked.trained, tmp_path / "wanted.toml", run, folder=tmp_path)


def command(n, capsys, folder, *words):
    """What a command of ddpm by n processes prints, which succeeds."""
    words = [*map(str, words), "--device", "cpu"]
    if n == 1:
        capsys.readouterr()
        assert main(words) == 0
        return capsys.readouterr().out
    if n > 2:  # of a long test
        done = launched(n, "-m", "--", "ddpm", *words)
    else:
        done = forked.run(n, main, words, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(line)["loss"] for line in lines])


def same_weights(run, other):
    """To rounding, each tensor as a whole: where a gradient is rounding, so is Adam's step."""
    ours, theirs = (load_file(r / "model.safetensors") for r in (run, other))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert (ours[name] - theirs[name]).norm() <= 1e-3 * theirs[name].norm(), name


@pytest.fixture(scope="module")
def config(request):
    from ddpm.config import Config, DiffusionConfig, SampleConfig, TrainConfig, UNetConfig

    unet = UNetConfig(channels=8, mults=(1, 2), blocks=1, attention=(), groups=4, patch=4)
    return Config(
        steps=12, flip=True, held_out=8, unet=unet, diffusion=DiffusionConfig(T=100),
        sample=SampleConfig(steps=2, guidance=2.0),
        train=TrainConfig(batch=16, lr=1e-2, log_every=1, ema=0.9, augment=0.5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "run"
    train(config, run, device="cpu")
    return run


@pytest.mark.parametrize("n", [2, pytest.param(4, marks=pytest.mark.long)])
def test_the_same_losses_as_one_process(n, config, alone, tmp_path):
    """Though it is scored, by the main one alone."""
    run, scored = tmp_path / "run", replace(config, train=replace(config.train, score_minutes=60.0))
    done = together(n, scored, run, tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = (run / "scores.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == load(run / "best.safetensors").step == 12
    assert done.stderr.count("note: step 12: distance") == 1
    torch.testing.assert_close(losses(run), losses(alone), rtol=1e-4, atol=1e-4)
    same_weights(run, alone)
    assert len(list((run / "samples").iterdir())) == 2
    assert done.stderr.count("note: mirror images can be told") == 1


@pytest.mark.long
def test_it_goes_on_with_another_number_of_processes(config, alone, tmp_path):
    run = tmp_path / "run"
    assert together(2, replace(config, steps=5), run, tmp_path).returncode == 0
    # The budget decides nothing else here: the learning rate is constant.
    train(config, run, device="cpu", resume=True)
    torch.testing.assert_close(losses(run), losses(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("several", [2, pytest.param(3, marks=pytest.mark.long)])
def test_the_same_images_and_scores_as_of_one_process(several, alone, tmp_path, capsys):
    outputs = []
    for n in (1, several):
        images, score = tmp_path / f"{n}.npz", tmp_path / f"{n}.json"
        told = command(
            n, capsys, tmp_path, "generate", alone, "--n", 22, "--batch", 4, "--out", images
        )
        assert told.count("22 images") == 1
        told = command(
            n, capsys, tmp_path, "evaluate", alone, "--data", "mnist5k", "--n", 22, "--batch", 4,
            "--out", score, "--held-out", tmp_path / "1.npz", "--likelihood", 6,
        )  # fmt: skip
        assert told.count("bits/dim") == 1
        outputs.append((np.load(images)["arr_0"], json.loads(score.read_text())))
    assert np.array_equal(outputs[0][0], outputs[1][0])
    assert outputs[0][1] == outputs[1][1]


@pytest.mark.long
def test_an_animation_is_of_one_process(alone, tmp_path):
    words = ("-m", "--", "ddpm", "generate", str(alone), "--out", str(tmp_path / "a.gif"))
    done = launched(2, *words)
    assert done.returncode != 0
    assert "an animation is made by one process, and these are 2" in done.stderr


WORDS = [
    "--unet.channels", "8", "--unet.mults", "1", "2", "--unet.blocks", "1", "--unet.groups", "4",
    "--unet.patch", "4", "--train.batch", "16", "--train.log-every", "1", "--sample.steps", "2",
]  # fmt: skip


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.long)])
def test_a_signal_to_any_process_stops_all_within_a_step(rank, tmp_path):
    """Though no line of the log is due for long: each step is, as the optimizer stands in the way,
    half a second."""
    write_toml(Config(steps=10_000, held_out=0, train=TrainConfig(batch=4, log_every=10_000),
                      unet=UNetConfig(channels=8, mults=(1,), blocks=1, attention=(), groups=4)),
               tmp_path / "wanted.toml")  # fmt: skip
    ranks = forked.start(2, forked.trained_slowly, Path("wanted.toml"), "run", folder=tmp_path)
    steps, deadline = tmp_path / "steps", time.monotonic() + 120
    try:
        while not (steps.exists() and len(steps.read_text()) >= 3):
            alive = all(process.is_alive() for process in ranks)
            assert alive, (tmp_path / "stderr-0").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(ranks[rank].pid, signal.SIGTERM)
        taken = len(steps.read_text())
        done = forked.ended(ranks, tmp_path)
    finally:
        for process in ranks:
            process.kill()
    assert done.stderr.count("stopping: saving after this step") == 1
    saved = load(tmp_path / "run").step
    assert saved == len(steps.read_text()), "a step was lost, or taken after all had agreed"
    assert taken <= saved <= taken + 1


@pytest.mark.long
def test_two_hosts(tmp_path):
    """Two agents that find one another by an address, as on two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
        "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test", "-m", "--",
        "ddpm", "train", *WORDS, "--steps", "6", "--out", "run",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    hosts = [
        subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for host in hosts:
        _, error = host.communicate(timeout=300)
        assert host.returncode == 0, error
    one = ["train", *WORDS, "--steps", "6", "--out", str(tmp_path / "one"), "--device", "cpu"]
    assert main(one) == 0
    torch.testing.assert_close(
        losses(tmp_path / "run"), losses(tmp_path / "one"), rtol=1e-4, atol=1e-4
    )


@pytest.mark.long
def test_minutes_are_the_main_processs(config, tmp_path):
    run = tmp_path / "run"
    timed = replace(config, steps=None, minutes=0.3, train=replace(config.train, log_every=5))
    done = together(2, timed, run, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(losses(run)) > 1
