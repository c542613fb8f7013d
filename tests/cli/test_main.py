"""Whatever goes wrong in a command is one sentence and exit code 1; --debug adds the traceback."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ddpm.cli import main as module
from ddpm.cli.main import main
from ddpm.cli.replay import ReplayOptions
from ddpm.utils.errors import UserError


def raising(error):
    def command(options):
        raise error

    return command


@pytest.fixture
def fails(monkeypatch):
    """A command that fails with an error."""

    def fails(error, *words):
        monkeypatch.setitem(module.COMMANDS, "replay", (ReplayOptions, raising(error)))
        return main(["replay", "batch", *words])

    return fails


ERRORS = [
    (UserError("there is no cat: name another"), "there is no cat: name another"),
    (MemoryError(), "out of memory"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory"), "out of memory"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of memory"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "out of memory"),
    (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), "out of memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
    (OSError(errno.ENOSPC, "No space left", "a.png"), "the disk is full, at a.png"),
    (OSError(errno.EDQUOT, "Disk quota exceeded", b"a.png"), "the disk is full, at a.png"),
    (OSError(errno.EROFS, "Read-only file system", "a"), "a may not be written or read: Read-only"),
    (OSError(errno.EACCES, "Permission denied", "a"), "a may not be written or read: Permission"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 9999), "File name too long"),
    (OSError(errno.ELOOP, "Too many levels", "a"), "a cannot be read or written: Too many levels"),
    (OSError(errno.ENOTDIR, "Not a directory", "a"), "a cannot be read or written: Not a dir"),
    (OSError(errno.EIO, "Input/output error"), "cannot be read or written: Input/output error"),
    (OSError(errno.ESTALE, "Stale file handle", 3), "3 cannot be read or written: Stale"),
    (OSError("in words alone"), "an unexpected error: OSError: in words alone"),
    (UnicodeEncodeError("ascii", "é", 0, 1, "not in range"), "does not fit the encoding"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "does not fit the encoding"),
    (RecursionError("maximum recursion depth exceeded"), "an unexpected error: RecursionError"),
    (
        KeyError("getpwuid(): uid not found: 1234"),
        "unexpected error: KeyError: 'getpwuid(): uid not",
    ),
    (RuntimeError("Could not determine home directory."), "Could not determine home directory"),
    (ImportError("libcudart.so: cannot open"), "an unexpected error: ImportError: libcudart"),
    (AssertionError(), "an unexpected error: AssertionError;"),
    (ValueError("\x1b[2J\n" * 9999), r"an unexpected error: ValueError: \x1b[2J"),
]


@pytest.mark.parametrize(("error", "sentence"), ERRORS, ids=lambda value: repr(value)[:40])
def test_every_error_is_one_sentence(error, sentence, fails, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fails(error) == 1
    out, text = capfd.readouterr()
    assert (out, text.count("\n")) == ("", 1)
    assert text.startswith("ddpm: ")
    assert sentence in text
    assert text.strip().isprintable()
    assert len(text) < 2_000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", range(4))
def test_debug_anywhere_adds_the_traceback(place, monkeypatch, capfd):
    monkeypatch.setitem(module.COMMANDS, "replay", (ReplayOptions, raising(ValueError("why"))))
    words = ["replay", "--device", "cpu"]
    words.insert(place, "--debug")
    assert main([*words, "batch"]) == 1
    text = capfd.readouterr().err
    assert "Traceback" in text
    assert "in command" in text
    assert "ddpm: an unexpected error: ValueError: why;" in text
    assert main(["train", "nonsense", "--debug"]) == 1
    assert "UserError" in capfd.readouterr().err


def test_debug_that_is_a_value_is_left_to_its_option(monkeypatch, capsys, tmp_path):
    words = ["generate", "--label=--debug", "--out", f"{tmp_path}/a.png"]
    assert main(words) == 1
    assert "there is no class --debug" in capsys.readouterr().err.replace("'", "")


def test_ctrl_c_is_130_and_misuse_is_2(fails, capfd):
    assert fails(KeyboardInterrupt()) == 130
    assert capfd.readouterr().err == "\nddpm: stopped\n"
    with pytest.raises(SystemExit) as end:
        main(["--debug", "replay"])
    assert end.value.code == 2


def test_ctrl_c_while_modules_are_read_is_no_traceback():
    code = (
        "import runpy, sys\n"
        "class Stop:\n"
        "    def find_spec(name, *rest):\n"
        "        if name == 'ddpm.cli.main': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop)\n"
        "runpy.run_module('ddpm', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.skipif(sys.platform != "linux", reason="bounds the address space")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(  # test_troubleshooting.py bounds this process so
            "generate --n 3000 --batch 3000 --steps 1 --out a.png",
            "ddpm: making 3,000 images of",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "train first-run --steps 1 --train.batch 4000 --out run",
            "ddpm: out of memory (",
            marks=pytest.mark.long,
        ),
    ],
)
def test_memory_that_runs_out_for_real(tmp_path, words, says):
    code = (
        "import resource, sys, torch; from ddpm.cli.main import main;"
        "from ddpm.generation import generate; from ddpm.training import train;"
        "pages = int(open('/proc/self/statm').read().split()[0]);"
        "limit = pages * resource.getpagesize() + 200_000_000;"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit));"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split(), "--device", "cpu"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith(says), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a.png").exists()


PATHS = {
    "long": "x" * 300,
    "deep": "d/" * 3000,
    "loop": "loop",
    "in a file": "file/x",
    "bytes": "\udcff",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(
    "words",
    [
        "generate {}", "generate --guide {}", "generate --image {}", "replay {}", "doctor {}",
        "evaluate {}", "evaluate --against {}", "evaluate mnist --n 4 --features {}",
        "train --data {}", "train --init {}", "train --resume --out {}", "convert {} a.safetensors",
        "generate --steps 1 --n 1 --out {}/a.png", "evaluate nothing --out {}/a.json", "demo {}",
        "train --data nowhere --out {}/a", "doctor nowhere --sheet {}/a.png",
    ],
)  # fmt: skip
def test_paths_that_a_file_system_refuses(words, path, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    if path == PATHS["bytes"] and "{}/" in words:
        pytest.skip("a name like any other")
    assert main([word.format(path) for word in words.split()]) == 1
    *notes, text = capfd.readouterr().err.splitlines()
    assert text.startswith("ddpm: ")
    assert all(line.startswith("note: ") for line in notes)  # on the images, read before
    assert "unexpected error" not in text


def test_without_a_home_no_folder_named_so_is_made(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", arr_0=np.zeros((40, 8, 8, 3), np.uint8))
    for name in ("HOME", "DDPM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # a user that the system does not know
    assert main(["doctor", "a.npz"]) == 1
    text = capfd.readouterr().err
    assert text.startswith("ddpm: decoded images cannot be written to ")
    assert "there is no home folder" in text
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    monkeypatch.setenv("DDPM_CACHE", "~/cache")
    assert main(["doctor", "a.npz"]) == 1
    assert "there is no home folder" in capfd.readouterr().err
    monkeypatch.delenv("DDPM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "a.npz"))
    assert main(["doctor", "a.npz"]) == 1
    assert "decoded images cannot be written to" in capfd.readouterr().err
