"""Files and folders: check that they can be written before any work is done, write them whole."""

import errno
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from .errors import UserError


def read_text(path: Path, max_bytes: int) -> str:
    """Return the text of a file. Raise ValueError for more than `max_bytes`, or for other than
    UTF-8, and OSError as `open` does."""
    if path.exists() and not path.is_file():  # a pipe could keep us waiting forever
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return data.decode("utf-8")


def require_writable(folder: Path) -> None:
    """Make the folder if it is missing, and write to it. Raise UserError where that fails."""
    probe = temporary_name(folder / "probe")
    try:
        make_folder(folder)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a path to write to, beside `path`; force the file to disk and rename it to `path` after.

    At any moment `path` is the old file or the new one; after an error it is the old one. The new
    one has the permissions of the old one, or those of any new file.
    """
    beside = temporary_name(path)
    try:
        beside.unlink(missing_ok=True)
        beside.touch()
        mode = (path if path.is_file() else beside).stat().st_mode & 0o777
        yield beside
        sync_file(beside)
        with suppress(OSError):  # a disk without permissions
            beside.chmod(mode)  # a library may have made a private one
        rename(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(beside)):  # the name that a person knows is told
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # what went wrong before is told
            beside.unlink(missing_ok=True)


def rename(path: Path, name: Path) -> None:
    """Give a file another name, in place of what had it. Windows refuses that while a virus scanner
    or a reader has either open, so that it is tried for two seconds."""
    for pause in (*[0.05] * 40, None) if sys.platform == "win32" else (None,):
        try:
            os.replace(path, name)
            return
        except PermissionError:
            if pause is None:
                raise
            time.sleep(pause)


def make_folder(folder: Path) -> None:
    """Make the folder and those above it that are missing, and force their names to disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Force the contents of a file to disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk, where the system can, so that a new one is not lost."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # one that may be written to and not be read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some disks on a network
            raise
    finally:
        os.close(handle)


def link_or_copy(path: Path, name: Path) -> None:
    """Give a file a second name, in place of what had that name; do nothing if there is no file.

    It is a hard link, or a copy on a disk without links. `path` is there at any moment.
    """
    if not path.exists():
        return
    with atomic_write(name) as beside:
        beside.unlink(missing_ok=True)  # of a process that was killed: a link is not written to
        try:
            os.link(path, beside)
        except OSError:  # a disk without links
            shutil.copyfile(path, beside)


def free_name(path: Path) -> Path:
    """Return the path, or the first of path-2, path-3 … that is free; an empty folder is free."""
    names = (path.with_name(f"{path.stem}-{i}{path.suffix}") for i in count(2))
    return next(p for p in chain([path], names) if not is_occupied(p))


def is_occupied(path: Path) -> bool:
    """Return whether there is a file at the path, or a folder that is not empty."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def temporary_name(path: Path) -> Path:
    """Return a new name beside `path` for what is written before it is whole: processes of several
    machines, whose numbers may be the same, can write there."""
    return path.with_name(f".part-{os.getpid()}{secrets.token_hex(3)}-{path.name}")


def is_temporary(path: Path) -> bool:
    """Return whether the path is a `temporary_name`, or one that safetensors writes to, as a
    process that was killed leaves one."""
    return path.name.startswith((".part-", ".tmp"))


# ---- files of JSON lines ---------------------------------------------------------------------


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record to a file of JSON lines."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines, [] where it is missing. Lines that are not whole
    are left out: the last may not be while it is written."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def last_step(path: Path) -> int | None:
    """Return the step of the last record in a file of JSON lines, None where there is none."""
    records = read_lines(path)
    return records[-1].get("step") if records else None
