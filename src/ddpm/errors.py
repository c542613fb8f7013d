"""What is meant for the person at the keyboard."""

import errno


class UserError(Exception):
    """What is wrong, where, and what to do, in a sentence. The command line prints it and ends."""


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
