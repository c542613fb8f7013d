"""What is meant for the person at the keyboard."""

import errno

MAX_CHARACTERS = 1_500


class UserError(Exception):
    """What is wrong, where, and what to do, in a sentence. The command line prints it and ends.

    One line, not too long, whatever the names and values in it that came from a file.
    """

    def __init__(self, text: str):
        super().__init__(plain(text))


def plain(text: str, most: int = MAX_CHARACTERS) -> str:
    """The text as a terminal can show it without being told to do anything: what cannot be printed
    is spelled out, and the middle of a long text is left out."""
    spelled = (c if c.isprintable() else ascii(c)[1:-1] for c in shortened(text, most))
    return shortened("".join(spelled), most)


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


def explained(error: OSError) -> str:
    """What the system refused, as a sentence."""
    where = error.filename or "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full, at {where}: make room; what was whole before still is"
    if error.errno == errno.ENOENT:
        return f"{where} is gone, or its folder is: nothing more can be written there"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where} may not be written or read: {error.strerror}"
    return str(error)
