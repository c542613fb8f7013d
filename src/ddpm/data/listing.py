"""Which image files there are in a folder or a zip."""

import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import UnidentifiedImageError

from ..utils.errors import UserError, first_line
from .decode import SUFFIXES, read_bytes
from .limits import MAX_BYTES, check_archive, check_entry

T = TypeVar("T")


@dataclass(frozen=True)
class ImageFiles:
    """Image files: where they are, their names there, and how to read one."""

    where: str
    names: Sequence[str]
    read: Callable[[str], bytes]

    def attempt(self, use: Callable[[bytes], T], name: str) -> T | str:
        """Return use(bytes of the file), or the reason why it failed."""
        try:
            return use(self.read(name))
        except UnidentifiedImageError:
            return "not an image"
        except Exception as error:  # a damaged file makes decoders raise nearly anything
            return first_line(error)


def holds_files(path: Path) -> bool:
    """Return whether this is a folder or a zip; an npz, which is a zip too, does not count."""
    if os.path.isdir(path):
        return True
    if path.suffix.lower() == ".npz" or not os.path.isfile(path):
        return False
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # a damaged one
        return True


def list_files(path: Path) -> ImageFiles:
    """Return the image files of a folder or a zip. Raises UserError where there are none."""
    names, read = list_folder(path) if path.is_dir() else list_zip(path)
    images = sorted(n for n in names if Path(n).suffix.lower() in SUFFIXES and not is_hidden(n))
    if not images:
        what = f"none of its {len(names)} files is an image" if names else "it is empty"
        raise UserError(f"there are no images in {path}: {what} (formats: {' '.join(SUFFIXES)})")
    return ImageFiles(str(path), images, read)


def list_folder(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    return list(stat_files(path)), lambda name: read_bytes(path / name)


def list_zip(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a table of contents can be damaged in any way
        raise UserError(f"{path} cannot be read as a zip: {first_line(error)}") from None
    try:
        check_archive(archive.infolist(), path.stat().st_size)
    except ValueError as error:
        raise UserError(f"{path} is damaged or a zip bomb: {error}") from None

    def read(name: str) -> bytes:
        info = check_entry(archive.getinfo(name))
        if info.file_size > MAX_BYTES:
            raise ValueError(f"unpacks to {info.file_size:,} bytes")
        with archive.open(info) as file:
            return file.read(info.file_size)  # no more, even where the entry has more

    return list(dict.fromkeys(n for n in archive.namelist() if not n.endswith("/"))), read


def is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in Path(name).parts)


def file_versions(path: Path) -> list[Any]:
    """Return name, size and time of a file, or of every file below a folder; [] for neither."""
    if os.path.isfile(path):
        stats = {".": path.stat()}
    else:
        stats = stat_files(path) if os.path.isdir(path) else {}
    return [(name, s.st_size, s.st_mtime_ns) for name, s in stats.items()]


def stat_files(folder: Path) -> dict[str, os.stat_result]:
    """Return the files below a folder, by their names relative to it."""
    try:
        files = [f for f in sorted(folder.rglob("*")) if os.path.isfile(f)]
        return {str(f.relative_to(folder)): f.stat() for f in files}
    except (OSError, RecursionError) as error:
        raise UserError(f"the files in {folder} cannot be listed: {first_line(error)}") from None
