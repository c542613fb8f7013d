"""A message that cannot be written ends nothing: the run goes on, or saves, with its own code."""

import errno
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ddpm import load
from ddpm.checkpoint.run_dir import RunDir
from ddpm.cli.main import main
from ddpm.utils.streams import SafeStream, safe, safe_streams
from pictures import folder_of, photos
from runs import metrics

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and terminals of POSIX")
TINY = [
    "--unet.channels", "8", "--unet.mults", "1", "2", "--unet.blocks", "1", "--unet.groups", "4",
    "--unet.patch", "4", "--train.batch", "16", "--train.log-every", "1", "--sample.steps", "2",
    "--device", "cpu", "--held-out", "16", "--steps", "1000000", "--out", "run",
]  # fmt: skip
DDPM = [sys.executable, "-m", "ddpm"]


def a_pipe_that_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def take_terminal():
    """Make stdin the terminal of a session of our own, as a shell does."""
    import fcntl
    import termios

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever these tests were started by
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def started(tmp_path, words, **streams):
    """A run in a process of its own, that trains."""
    process = subprocess.Popen([*words, "train", *TINY], cwd=tmp_path, **streams)
    path, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.returncode
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def assert_saved(tmp_path, process):
    try:
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    logged = metrics(tmp_path / "run")  # nothing but lines of the log is in it
    assert load(tmp_path / "run").step == logged[-1]["step"] > 0
    assert RunDir(tmp_path / "run").lock.read_bytes() == b""


def test_ctrl_c_saves_where_the_reader_of_a_pipe_is_gone(tmp_path):
    with open(a_pipe_that_nobody_reads(), "wb") as pipe:
        process = started(tmp_path, DDPM, stdout=pipe, stderr=pipe)
    process.send_signal(signal.SIGINT)
    assert_saved(tmp_path, process)


@pytest.mark.long
def test_ctrl_c_saves_where_there_is_no_stderr_and_no_stdout(tmp_path):
    process = started(tmp_path, ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *DDPM])
    process.send_signal(signal.SIGINT)
    assert_saved(tmp_path, process)


def test_a_terminal_that_is_closed_saves(tmp_path):
    terminal, end = os.openpty()
    process = started(
        tmp_path, DDPM, stdin=end, stdout=end, stderr=end, preexec_fn=take_terminal
    )  # fmt: skip
    os.close(end)
    os.close(terminal)  # SIGHUP, and from here on every write fails
    assert_saved(tmp_path, process)


def test_a_process_has_its_own_exit_code_after_a_broken_pipe():
    """Python itself would end with 120, as it cannot flush what is left."""
    with open(a_pipe_that_nobody_reads(), "wb") as pipe:
        done = subprocess.run([*DDPM, "--version"], stdout=pipe, stderr=pipe)
        assert done.returncode == 0
        done = subprocess.run([*DDPM, "train", "nothing"], stdout=pipe, stderr=pipe)
        assert done.returncode == 1
        done = subprocess.run([*DDPM, "train", "--nonsense"], stdout=pipe, stderr=pipe)
        assert done.returncode == 2


@pytest.mark.parametrize("name", ["é", "数字", "\udcff"])
@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1:strict"])
def test_names_that_the_encoding_of_a_stream_lacks(name, encoding, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = io.BytesIO()
    codec, _, errors = encoding.partition(":")
    stream = io.TextIOWrapper(written, codec, errors=errors or "strict")
    monkeypatch.setattr(sys, "stdout", stream)
    words = ["generate", "--n", "1", "--steps", "1", "--out", f"{name}.png"]
    assert main(words) == 0
    assert (tmp_path / f"{name}.png").stat().st_size
    assert b"1 image: " in written.getvalue()
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(words) == 1
    assert b"is there already" in written.getvalue()


def test_a_locale_that_has_ascii_alone(tmp_path):
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [*DDPM, "generate", "--n", "1", "--steps", "1", "--out", "é.png"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "é.png").stat().st_size


class Refuses(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.refusal = error

    def write(self, text):
        raise self.refusal

    def flush(self):
        raise self.refusal


REFUSALS = [
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EBADF, "Bad file descriptor"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    ValueError("I/O operation on closed file"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
def test_a_stream_that_refuses_raises_nothing(refusal):
    stream = SafeStream(Refuses(refusal))
    print("text", file=stream, flush=True)
    assert stream.error is refusal
    assert safe(stream) is stream


def test_a_stream_that_is_not_there_takes_what_is_written():
    stream = safe(None)
    print("text", file=stream, flush=True)
    assert stream.error is None
    closed = io.StringIO()
    closed.close()
    assert safe(closed).isatty() is False


def nobody_reads(monkeypatch):
    """Make stdout a pipe that nobody reads, as after `| head -1`; to be called in the test."""
    stream = open(a_pipe_that_nobody_reads(), "w", buffering=1)  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", stream)


def test_a_score_is_saved_though_nobody_reads_it(scripted, tmp_path, monkeypatch):
    nobody_reads(monkeypatch)
    np.savez(tmp_path / "a.npz", arr_0=photos(20).permute(0, 2, 3, 1).numpy())
    score = tmp_path / "a.json"
    words = ["evaluate", f"{tmp_path}/a.npz", "--data", f"{tmp_path}/a.npz"]
    assert main([*words, "--features", scripted, "--out", str(score)]) == 0
    assert score.stat().st_size


def test_commands_do_their_work_though_nobody_reads(known_cost, tmp_path, monkeypatch, capfd):
    nobody_reads(monkeypatch)
    folder_of(photos(20), tmp_path / "images")
    assert main(["doctor", f"{tmp_path}/images", "--sheet", f"{tmp_path}/a.png"]) == 0
    assert (tmp_path / "a.png").stat().st_size
    assert main(["generate", "--n", "1", "--steps", "1", "--out", f"{tmp_path}/b/"]) == 0
    assert main(["convert", "mnist", f"{tmp_path}/c"]) == 0
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full")
def test_what_was_printed_on_a_full_disk_is_said_to_be_lost(monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["--version"]) == 0
    error = capfd.readouterr().err
    assert error == "note: not all that was printed could be written: No space left on device\n"


def test_the_streams_are_as_before_after_a_command(capsys):
    before = sys.stdout, sys.stderr
    with safe_streams():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before
    with pytest.raises(SystemExit):
        main(["--nonsense"])
    assert (sys.stdout, sys.stderr) == before
