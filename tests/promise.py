"""What is promised of every file, whatever is in it: it is used, or refused in a sentence."""

import re
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from ddpm import UserError

SECONDS = 20  # for a case, on a busy machine
BYTES = 500_000_000  # by which a case may raise the peak of the memory in use


@contextmanager
def promised(refusal=None):
    """What is inside ends well or with a UserError, one line that can be printed, within SECONDS
    and BYTES. With a `refusal` it must be that one."""
    before = peak_memory(reset=True)
    try:
        with ended_within(SECONDS):
            yield
        assert refusal is None, "this was not refused"
    except UserError as error:
        text = str(error)
        assert re.search(refusal or "", text), text
        assert text.isprintable()
        assert 10 < len(text) < 2_000
        assert "emory" not in text
        assert "allocate" not in text
    grown = peak_memory() - before
    assert grown < BYTES


@contextmanager
def ended_within(seconds):
    """Fails what hangs, where the system has alarms."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"no end after {seconds} s"))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak_memory(reset=False):
    """The most memory that was in use since the last reset, in bytes; 0 where that is not told."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        return 0


def refused(words, read, *args):
    """The call is refused in a sentence that has these words, a regular expression, in it."""
    with promised(words):
        read(*args)
