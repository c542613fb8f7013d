"""A demo in a process of its own, for tests."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(folder, *options, **environment):
    """`ddpm demo` with these options and variables, in the folder: its address, its process and its
    log."""
    port, log = free_port(), folder / "log"
    words = ["demo", *options, "--port", str(port), "--device", "cpu"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "ddpm", *words], cwd=folder, stdout=file, stderr=file,
            env={**os.environ, **environment},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while "the demo is at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the demo did not start"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", process, log
    finally:
        process.terminate()
        process.wait(20)
