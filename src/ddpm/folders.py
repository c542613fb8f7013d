"""Places on disk: found to be free and writable before any work is done."""

import os
from itertools import chain, count
from pathlib import Path

from .errors import UserError


def require_writable(folder: Path) -> None:
    """Make the folder where it is missing, and try it. Raises UserError where that fails."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None


def free_name(path: Path) -> Path:
    """The path, or the first of path-2, path-3 … that nothing has yet."""
    names = (path.with_name(f"{path.stem}-{i}{path.suffix}") for i in count(2))
    return next(p for p in chain([path], names) if not p.exists())
