"""Errors and texts for the person at the keyboard."""

import errno

MAX_CHARACTERS = 1_500


class UserError(Exception):
    """What is wrong, where, and what to do, in one sentence. The command prints it and ends.

    The text is one printable line of limited length, whatever names and values it quotes.
    """

    def __init__(self, text: str):
        super().__init__(plain(text))


def plain(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return the text as it can be shown on a terminal: characters that cannot be printed are
    escaped, and the middle of a text longer than `limit` is left out."""
    escaped = (c if c.isprintable() else ascii(c)[1:-1] for c in shorten(text, limit))
    return shorten("".join(escaped), limit)


def shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return str(error).split("\n")[0] or type(error).__name__


def explained(error: OSError) -> str:
    """Return what the system refused, as a sentence."""
    where = error.filename or "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full, at {where}: free some space; files saved before are intact"
    if error.errno == errno.ENOENT:
        return f"{where} or its folder is missing: nothing can be read or written there"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where} may not be written or read: {error.strerror}"
    return str(error)
