"""Standard output and error that nobody may be reading: what cannot be said ends nothing."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class SafeStream:
    """A text stream whose writes raise nothing: not where a pipe is closed, a terminal gone or a
    disk full; characters that its encoding lacks are escaped. `error` is the last that was met.

    `stream` is None where a program was started without it.
    """

    def __init__(self, stream: TextIO | None):
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115  (as long as the stream)
        self.error: Exception | None = None
        if hasattr(self.stream, "reconfigure"):
            self.call("reconfigure", errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self.call("write", text)
        return len(text)

    def flush(self) -> None:
        self.call("flush")

    def isatty(self) -> bool:
        return bool(self.call("isatty"))

    def call(self, method: str, *args: Any, **more: Any) -> Any:
        try:
            return getattr(self.stream, method)(*args, **more)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self.error = error
            return None

    def finish(self) -> None:
        """Flush; where that fails, lead the rest to nowhere, so that Python's own flush at the end
        of the program does not fail too and change the exit code."""
        self.error = None
        self.flush()
        if self.error:
            with suppress(OSError, ValueError, AttributeError):
                to_nowhere(self.stream.fileno())


def safe(stream: TextIO | None) -> Any:
    """Return the stream as one whose writes raise nothing."""
    return stream if isinstance(stream, SafeStream) else SafeStream(stream)


def to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextmanager
def safe_streams() -> Iterator[None]:
    """Make sys.stdout and sys.stderr safe to write to in a block.

    Descriptors 0 to 2 that are closed are opened on nothing for good: the next file would get their
    number, and what is meant for the terminal would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            to_nowhere(descriptor)
    before = sys.stdout, sys.stderr
    out, err = sys.stdout, sys.stderr = safe(sys.stdout), safe(sys.stderr)
    try:
        yield
    finally:
        failed = out.error
        out.finish()
        failed = failed or out.error
        if failed and getattr(failed, "errno", None) != errno.EPIPE:  # else nobody wants more
            reason = getattr(failed, "strerror", None) or failed
            err.write(f"note: not all that was printed could be written: {reason}\n")
        err.finish()
        sys.stdout, sys.stderr = before
