"""docs/troubleshooting.md quotes what is said: its faults are caused here, but for one of a GPU."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import forked
from ddpm.checkpoint.run_dir import RunDir
from ddpm.cli.main import COMMANDS, main
from ddpm.cli.replay import ReplayOptions
from ddpm.training import nonfinite
from ddpm.utils.images import to_pil
from pictures import folder_of, photos
from runs import before_step

DOC = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
BLOCKS = re.findall(r"^```text\n(.*?)^```", DOC.read_text(encoding="utf-8"), re.S | re.M)
QUOTED = [line for block in BLOCKS for line in block.splitlines()]
TINY = [
    "--unet.channels", "8", "--unet.mults", "1", "2", "--unet.blocks", "1", "--unet.groups", "4",
    "--unet.patch", "4", "--train.batch", "16", "--train.log-every", "1", "--sample.steps", "2",
    "--device", "cpu", "--held-out", "16",
]  # fmt: skip

LONG = {"test_learned_by_heart", "test_a_jump_of_too_high_a_rate"}
seen = set()


def told(text, *beginnings):
    """Every line of the text that the page quotes is noted; there is one for each beginning."""
    said = {
        quoted
        for quoted in QUOTED
        for line in text.splitlines()
        if re.fullmatch(".*".join(map(re.escape, quoted.split("…"))), line.strip())
    }
    seen.update(said)
    for beginning in beginnings:
        at = [quoted for quoted in said if quoted.startswith(beginning)]
        assert at, f"{beginning!r} is not in the page, or was not said: {text}"


@pytest.fixture
def say(tmp_path, monkeypatch, capfd):
    """What a command of ddpm says, and that it ends with the code wanted."""
    monkeypatch.chdir(tmp_path)

    def say(words, *beginnings, code=1):
        capfd.readouterr()
        ended = main(words if isinstance(words, list) else words.split())
        text = capfd.readouterr().err
        assert ended == code, text
        assert "Traceback" not in text
        told(text, *beginnings)

    return say


def train(*words, out="run", steps="2"):
    return ["train", *TINY, "--steps", steps, "--out", out, *words]


def test_images(say, tmp_path):
    photos_in = folder_of(photos(30), tmp_path / "photos")
    (photos_in / "torn.png").write_bytes((photos_in / "001.png").read_bytes()[:100])
    (photos_in / "text.png").write_text("not an image")
    say(train("--data", "photos"), "note: … of … images skipped", "note: … images are few", code=0)
    with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(60_000_000))
    say(train("--data", "bomb.zip", out="a"), "ddpm: there are no usable images")
    with zipfile.ZipFile("out.zip", "w") as archive:
        archive.write("photos/001.png", "../../escaped.png")
    main(train("--data", "out.zip", out="b"))
    assert not list(tmp_path.parent.parent.glob("escaped.png"))
    (tmp_path / "empty").mkdir()
    say(train("--data", "empty", out="c"), "ddpm: there are no images in")
    say(train("--data", "nothing", out="d"), "ddpm: there is no data at")
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04 and no more")
    say(train("--data", "torn.zip", out="e"), "ddpm: … is not a folder, a zip")
    np.savez("other.npz", mu=np.zeros(8), sigma=np.zeros((8, 8)))
    say(train("--data", "other.npz", out="f"), "ddpm: …: it must hold images as")
    np.savez("volumes.npz", images=np.zeros((4, 9, 9, 9)))
    say(train("--data", "volumes.npz", out="f"), "ddpm: …: images must have the shape")
    np.savez("floats.npz", images=np.full((4, 8, 8), 7.5))
    say(train("--data", "floats.npz", out="f"), "ddpm: …: images must be uint8, or numbers in")


def test_a_named_set_that_cannot_be_had(say, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    say(train("--data", "mnist", "--root", str(tmp_path)), "ddpm: … is not whole in")


def test_a_cache_that_cannot_be_written(say, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "file" / "cache"))
    say(train(), "ddpm: decoded images cannot be written to")


def test_no_home(say, monkeypatch):
    for name in ("HOME", "DDPM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # a user that the system does not know
    say(train(), "ddpm: decoded images cannot be written to a cache")


@pytest.mark.skipif(sys.platform != "linux", reason="bounds the address space")
def test_memory_that_runs_out(say):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 100_000_000, before[1]))
    try:
        say("generate --n 9999 --batch 9999 --steps 1 --out a.png", "ddpm: making … of … at a time")
        say(train("--train.batch", "99999"), "ddpm: out of memory")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not Path("a.png").exists()


def test_what_a_system_refuses(say, tmp_path, monkeypatch):
    say(f"generate {'x' * 300}", "ddpm: … cannot be read or written")
    for error, sentence in [
        (PermissionError(13, "Permission denied", "a.png"), "ddpm: … may not be written or read"),
        (UnicodeEncodeError("ascii", "é", 0, 1, "not in range"), "ddpm: a name or a text"),
        (KeyError("uid not found"), "ddpm: an unexpected error"),
    ]:

        def fail(options, error=error):
            raise error

        monkeypatch.setitem(COMMANDS, "replay", (ReplayOptions, fail))
        say("replay batch", sentence)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_an_output_on_a_full_disk(say, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        say("--version", "note: not all that was printed", code=0)


def test_what_the_doctor_would_say(say, tmp_path):
    say(train("--flip"), "note: mirror images can be told", code=0)
    for name, n in (("cats", 60), ("dogs", 3)):
        folder_of(photos(n, seed=n), tmp_path / "uneven" / name)
    say(train("--data", "uneven", out="b"), "note: classes are uneven", code=0)


def test_going_on(say, tmp_path):
    say(train(), code=0)
    say(train(), "ddpm: … is in use")
    say(train("--resume", out="none"), "ddpm: there is no run to resume in")
    say(train("--resume", "--unet.channels", "12"), "ddpm: this run cannot go on with another")
    folder_of(photos(40, channels=1, side=28), tmp_path / "others" / "0")
    say(["train", "--out", "run", "--resume", "--data", "others", "--steps", "4"],
        "ddpm: the images are not those")  # fmt: skip
    state = tmp_path / "run" / "state" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:5000])
    say("train --out run --resume --steps 4", "note: … is not a whole safetensors file", code=0)
    state.unlink()
    say("train --out run --resume --steps 5", "note: … is missing; going on", code=0)
    (tmp_path / "run" / "config.toml").unlink()
    say(["train", "--out", "run", "--resume", "--steps", "6"], "note: … is missing: going on with",
        code=0)  # fmt: skip
    state.parent.rename(tmp_path / "away")
    say("train --out run --resume --steps 7", "ddpm: the run in … cannot go on: … is missing")


def test_a_folder_that_is_not_a_run_as_yet(say, tmp_path):
    (tmp_path / "run" / "state").mkdir(parents=True)
    say(train("--resume"), "note: … has no checkpoint yet", code=0)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "diary.txt").write_text("mine")
    say(train(out="papers"), "ddpm: … is in use: give another --out")


def test_what_goes_away_under_a_run(say, tmp_path):
    def another(net):
        (tmp_path / "run").rename(tmp_path / "gone")
        shutil.copytree(tmp_path / "gone", tmp_path / "run")

    say(train(), code=0)
    with before_step(2, another):
        say("train --out run --resume --steps 5", "ddpm: … was removed or moved while this run")

    def without_states(net):
        for path in (tmp_path / "a" / "state").glob("*.safetensors"):
            path.unlink()

    with before_step(2, without_states):
        say(train("--train.lr", "100", out="a", steps="9"),
            "note: the weights of step … have exploded",
            "ddpm: there is no checkpoint left in")  # fmt: skip


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_run_that_is_stopped_and_one_that_is_joined(say, tmp_path):
    def stop(net):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # which would end the tests
        os.kill(os.getpid(), signal.SIGTERM)

    with before_step(2, stop):
        say(train(steps="9"), "stopping: saving after this step …", code=130)
    with RunDir(tmp_path / "run").locked():
        say("train --out run --resume", "ddpm: another process is training in")


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed")
def test_a_folder_that_goes_away(say, tmp_path):
    words = train("--train.save-minutes", "1e-6", steps="9")
    with before_step(2, lambda net: (tmp_path / "run").rename(tmp_path / "gone")):
        say(words, "ddpm: … or its folder is missing")


@pytest.mark.skipif(
    not (shutil.which("unshare") and shutil.which("mount")), reason="needs a small disk of its own"
)
def test_a_disk_that_is_full(say, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    words = train("--train.save-minutes", "1e-6", steps="9", out=str(disk / "run"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            say(words, "ddpm: the disk is full")
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
        return
    # Without the right to mount here, in a process that sees a disk of its own.
    of_its_own = ["unshare", "-rm", "sh", "-c", f'{" ".join(mount)} && exec "$@"', "sh"]
    command = [*of_its_own, sys.executable, "-m", "ddpm", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("no disk can be mounted here")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told(done.stderr, "ddpm: the disk is full")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such rights")
def test_a_folder_that_may_not_be_written(say, tmp_path):
    (tmp_path / "file").write_text("in the way")
    say(train(out="file/run"), "ddpm: cannot write to")


def test_no_number(say, monkeypatch):
    assert f"After {nonfinite.MAX_NONFINITE_STEPS} of them" in DOC.read_text("utf-8")
    monkeypatch.setattr("ddpm.training.nonfinite.MAX_NONFINITE_STEPS", 5)
    say(train("--train.lr", "1e30", steps="500"), "note: … of … up to", "note: back to step",
        "ddpm: the loss is not a number")  # fmt: skip


def test_a_jump(say):
    """Of the output's bias, which all later losses tell of."""

    def jump(net):
        with torch.no_grad():
            net.conv_out.bias.add_(-2.0)

    with before_step(4, jump):
        say(train(steps="6"), "note: the loss has jumped", code=0)


@pytest.mark.long
def test_a_jump_of_too_high_a_rate(say):
    say(train("--train.lr", "2", "--train.warmup", "60", "--train.log-every", "5", steps="75"),
        "note: the loss has jumped", code=0)  # fmt: skip


@pytest.mark.long
def test_learned_by_heart(say, tmp_path):
    noise = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    folder_of(noise.to(torch.uint8), tmp_path / "noise")
    words = train("--data", "noise", "--unet.patch", "1", "--unet.channels", "32", "--train.lr",
                  "2e-3", "--train.ema", "0.9", "--train.sample-minutes", "0.02", "--train.decay",
                  "0", "--sample.steps", "1", "--seed", "1", steps="300")  # fmt: skip
    say(words, "note: at … the loss on held-out images", code=0)


def test_files_of_weights(say, tmp_path):
    say(train(), code=0)
    say("generate run --out a.png", "note: these weights are of step", code=0)
    say("generate run --out a.png", "ddpm: … is there already")
    say("generate nothing", "ddpm: there is no checkpoint at")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.toml").write_text("steps = 1\n")
    say("generate begun --out b.png", "ddpm: the run in … has written no checkpoint yet")
    model = tmp_path / "run" / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:3000])
    say("generate run --out b.png", "ddpm: … is not a whole safetensors file")
    model.write_bytes(whole[:-9] + bytes([whole[-9] ^ 64]) + whole[-8:])
    say("generate run --out b.png", "ddpm: … is damaged: its contents")
    model.write_bytes(whole)
    with safe_open(model, framework="pt") as file:
        about = file.metadata()
    save_file(load_file(model), model)
    say("generate run --out b.png", "ddpm: … is a safetensors file, but not a checkpoint")
    tensors = {name: tensor * float("nan") for name, tensor in load_file(model).items()}
    header = re.sub(r', "sha256": "\w+"', "", about["ddpm"])
    save_file(tensors, tmp_path / "nan.safetensors", metadata={"ddpm": header})
    say("generate nan.safetensors --out b.png", "ddpm: … holds no weights to use")
    newer = {**about, "ddpm": re.sub(r'"version": \d+', '"version": 99', about["ddpm"])}
    save_file(load_file(model), model, metadata=newer)
    say("generate run --out b.png", "ddpm: … was written by a newer ddpm")


def test_what_a_file_claims(say, tmp_path, monkeypatch):
    say(train(), code=0)
    with safe_open(tmp_path / "run" / "model.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["ddpm"])
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    header["config"]["sample"]["steps"] = header["config"]["diffusion"]["T"] = 2000
    save_file(tensors, tmp_path / "x.safetensors", metadata={"ddpm": json.dumps(header)})
    say("generate x.safetensors --out a.png", "ddpm: this checkpoint asks for … steps")
    say("evaluate x.safetensors --steps 2", "ddpm: this checkpoint names … as what it was")
    monkeypatch.setattr("ddpm.checkpoint.memory.LARGE", 0)
    say("generate x.safetensors --steps 2 --out a.png", "note: making … images", code=0)


def test_settings(say):
    say(train("--minutes", "1"), "ddpm: a run needs one budget")
    say(train("--unet.groups", "7"), "ddpm: the settings do not fit together")
    say("generate mnist --label cat --out a.png", "ddpm: there is no class")
    say("generate mnist --steps 2000 --out a.png", "ddpm: … steps are more than")
    say("generate mnist --device tpu --out a.png", "ddpm: there is no device")


def several(n, *words, **more):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc-per-node={n}", "-m", "--", "ddpm", *words]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, **more)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked from another")
def test_processes_that_cannot_begin(say, tmp_path, monkeypatch):
    done = forked.run(2, main, train("--train.batch", "15"), folder=tmp_path)
    assert done.returncode == 1
    told(done.stderr, "ddpm: a batch of … cannot be shared")
    monkeypatch.setenv("WORLD_SIZE", "2")  # as a launcher says it
    say([w for w in train() if w not in ("--out", "run")],
        "ddpm: several processes need one folder")  # fmt: skip


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_process_that_is_killed(say, tmp_path):
    words = train("--train.save-minutes", "1e-6", steps="1000000")
    process = several(2, *words, cwd=tmp_path)
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    os.kill(children(process.pid)[1], 9)
    text = process.stderr.read()
    assert process.wait(timeout=120) != 0
    told(text, "ddpm: process … of … has lost another")
    state = load_file(tmp_path / "run" / "state" / "state.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())
    reached = len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert reached
    say(f"train --out run --resume --device cpu --steps {reached + 5}", code=0)


@pytest.mark.skipif(sys.platform != "linux", reason="some faults are caused on Linux alone")
def test_every_quoted_message_was_said(request):
    """The last of this file, after all of it has run."""
    here = {item.originalname for item in request.session.items if item.path == request.path}
    whole = {name for name in globals() if name.startswith("test_")} - LONG
    if not whole <= here or len(seen) < 10:
        pytest.skip("only a part of the file runs here")
    # What needs a disk of its own, a long test, a GPU.
    without = ("disk is full", "the loss on held-out images", "free: ask for fewer")
    assert not [quoted for quoted in set(QUOTED) - seen if not any(w in quoted for w in without)]


def test_the_page_quotes():
    assert len(QUOTED) > 35
    assert to_pil(photos(1)[0]).size == (16, 16)
