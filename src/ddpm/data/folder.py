"""Image files in a folder or a zip, decoded with the classes that their folders name."""

import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import UnidentifiedImageError
from tqdm import tqdm

from ..utils.errors import UserError, first_line, plain
from .dataset import Decoded, Request, Source
from .decode import SUFFIXES, ImageHeader, decode_to_fit, read_bytes, read_header
from .limits import DEFAULT_SIDE, MAX_BYTES, MAX_DEFAULT_SIDE, MAX_PIXELS, check_entry

BATCH = 1000  # images decoded at once, fewer where they are large
MAX_NAMED = 5  # skipped files that the note names

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


# ---- listing ---------------------------------------------------------------------------------


def open_files(request: Request) -> Source | None:
    """Return the source for the path of a folder or a zip."""
    path = Path(request.source)
    if not holds_files(path):
        return None
    files = list_files(path)
    version = file_versions(path)
    if path.is_file():
        version = [files.names, *version]
    return Source(version, lambda out: decode_files(files, request.size, out, request.keep_size))


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
    if sum(info.compress_size for info in archive.infolist()) > path.stat().st_size:
        raise UserError(f"{path} is damaged or a zip bomb: its files overlap")

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


# ---- decoding --------------------------------------------------------------------------------


def decode_files(
    files: ImageFiles, size: tuple[int, int] | None, out: BinaryIO, keep_size: bool = False
) -> Decoded:
    """Decode the images that can be decoded; skip, count and name the others in the notes.

    They are brought to `size` (height, width), or without one to the size they share, if it is
    small or is to be kept. They are written as they are decoded: no more than BATCH are in memory.
    Raises UserError where none is usable.
    """
    notes = []
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda name: files.attempt(read_header, name), files.names)
        headers = {header for header in results if isinstance(header, ImageHeader)}
        colour = any(header.colour for header in headers)
        if size is None:
            size = shared_size(headers, keep_size, files.where)
        if size is None:
            size = (DEFAULT_SIDE, DEFAULT_SIDE)
            notes.append(
                f"the images are large or differ in size: cropped and resized to "
                f"{size[0]}x{size[1]} (choose with --size)"
            )
        good, bad = decode_each(files, "RGB" if colour else "L", size, out, pool)
    if bad:
        more = f" and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
        skipped = "; ".join(bad[:MAX_NAMED]) + more
        notes.append(f"{len(bad)} of {len(files.names)} images skipped: {skipped}")
    if not good:
        raise UserError(f"there are no usable images in {files.where}: {notes[-1]}")
    labels, classes = labels_from_folders(good)
    outside = sum(len(Path(name).parts) == 1 for name in good)
    if labels is None and 0 < outside < len(good):
        notes.append(f"{outside} images lie outside the sub-folders: classes are not learned")
    return Decoded((len(good), 3 if colour else 1, *size), labels, classes, tuple(notes))


def shared_size(
    headers: Iterable[ImageHeader], keep_size: bool, where: str
) -> tuple[int, int] | None:
    """Return the height and width that all images have; None where they differ or are large.

    With `keep_size`, large images will do, and raises UserError where they differ.
    """
    sizes = {(header.height, header.width) for header in headers}
    if keep_size and len(sizes) > 1:
        raise UserError(f"the images in {where} differ in size, and must all have the same")
    if len(sizes) != 1:
        return None
    (size,) = sizes
    return size if keep_size or max(size) <= MAX_DEFAULT_SIDE else None


def decode_each(
    files: ImageFiles, mode: str, size: tuple[int, int], out: BinaryIO, pool: ThreadPoolExecutor
) -> tuple[list[str], list[str]]:
    """Write the pixels of each image; return the names of those written, and of those skipped
    with the reasons."""
    good, bad = [], []
    step = max(1, min(BATCH, MAX_PIXELS // (size[0] * size[1])))

    def decode_one(name: str) -> np.ndarray | str:
        return files.attempt(lambda data: decode_to_fit(data, mode, size), name)

    total = len(files.names)
    with tqdm(desc="decoding", total=total, leave=False, disable=None, unit="img") as progress:
        for first in range(0, total, step):
            names = files.names[first : first + step]
            for name, image in zip(names, pool.map(decode_one, names), strict=True):
                progress.update()
                if isinstance(image, str):
                    bad.append(plain(f"{name} ({image})", 200))
                else:
                    out.write(np.moveaxis(image.reshape(*size, -1), -1, 0).tobytes())
                    good.append(name)
    return good, bad


def labels_from_folders(names: Iterable[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return labels and classes: the folders right below the deepest one that holds all images.

    Without two such folders, or with images outside them, there are no classes.
    """
    folders = [Path(name).parts[:-1] for name in names]
    first, last = min(folders), max(folders)
    shared = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    tops = [plain(f[shared]) if len(f) > shared else None for f in folders]
    classes = sorted({top for top in tops if top is not None})
    if None in tops or len(classes) < 2:
        return None, ()
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[top] for top in tops if top is not None]), tuple(classes)
