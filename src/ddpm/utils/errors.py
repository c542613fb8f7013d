"""Errors and texts for the person at the keyboard."""

import difflib
import errno
import os
from collections.abc import Iterable

MAX_CHARACTERS = 1_500
LESS_AT_ONCE = (
    "ask for less at once, in training by a larger --train.accumulate or a smaller --size, else by "
    "a smaller --batch or --n"
)
UTF8 = "set PYTHONUTF8=1, or LC_ALL to a UTF-8 locale, or rename it"
WHERE = "the same command with --debug shows where in the code"
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""Words in the errors of torch where memory was refused."""


class UserError(Exception):
    """What is wrong, where, and what to do, in one sentence. The command prints it and ends.

    The text is one printable line of limited length, whatever names and values it quotes.
    """

    def __init__(self, text: str):
        super().__init__(plain(text))


class UsageError(UserError):
    """What was typed cannot be understood as a command. The program ends with 2."""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return "; did you mean NAME?" for the name that the word is most like, or "" for none."""
    shown = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word[:100].lower(), shown, 1)
    return f"; did you mean {shown[near[0]]}?" if near else ""


def printable(text: str) -> str:
    """Return the text with what cannot be printed, such as control characters, escaped: whatever
    names a file or a class has, they reach messages and pages by this."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """Return the lines of a text, each as `printable` has it."""
    return "\n".join(map(printable, text.split("\n")))


def plain(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return the text as it can be shown on a terminal: characters that cannot be printed are
    escaped, and the middle of a text longer than `limit` is left out."""
    return shorten(printable(shorten(text, limit)), limit)


def shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 image", "2,000 images", "3 classes"."""
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return str(error).split("\n")[0] or type(error).__name__


def explained(error: Exception) -> str:
    """Return what went wrong as one printable sentence, with what to do."""
    if isinstance(error, UserError):
        return str(error)
    if is_out_of_memory(error):
        text = f"out of memory ({shorten(first_line(error), 200)}): {LESS_AT_ONCE}"
    elif isinstance(error, OSError) and error.errno is not None:
        text = refusal(error)
    elif isinstance(error, UnicodeError):
        text = f"a name or a text does not fit the encoding of this system ({error}): {UTF8}"
    else:
        kind = type(error).__name__
        said = shorten(first_line(error), 500)
        text = f"an unexpected error: {said if said == kind else f'{kind}: {said}'}; {WHERE}"
    return plain(text)


def refusal(error: OSError) -> str:
    """Return what the system refused, as a sentence."""
    name = "a file or a connection" if error.filename is None else error.filename
    where = shorten(os.fsdecode(name) if isinstance(name, bytes) else str(name), 300)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full, at {where}: free some space; files saved before are intact"
    if error.errno == errno.ENOENT:
        return f"{where} or its folder is missing: nothing can be read or written there"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where} may not be written or read: {error.strerror}"
    return f"{where} cannot be read or written: {error.strerror or error}"


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory was refused: by Python, by the system, or by torch on any device."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    named = type(error).__name__ == "OutOfMemoryError"  # of torch, which is not imported for this
    said = str(error).lower()
    return named or isinstance(error, RuntimeError) and any(word in said for word in NO_MEMORY)
