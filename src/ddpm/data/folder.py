"""Image files in a folder or a zip, decoded with the classes that their folders name."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from ..utils.errors import UserError, plain
from .dataset import Decoded, Request, Source
from .decode import MODES, ImageHeader, decode_to_fit, read_header
from .limits import DEFAULT_SIDE, MAX_CHUNK, MAX_DEFAULT_SIDE
from .listing import ImageFiles, file_versions, holds_files, list_files

BATCH = 1000  # images decoded at once, fewer where they are large
MAX_NAMED = 5  # skipped files that the note names


def open_files(request: Request) -> Source | None:
    """Return the source for the path of a folder or a zip."""
    path = Path(request.source)
    if not holds_files(path):
        return None
    files = list_files(path)
    version = file_versions(path)
    if path.is_file():
        version = [files.names, *version]
    return Source(
        version,
        lambda out: decode_files(
            files, request.size, out, request.keep_size, request.channels, request.background
        ),
    )


def decode_files(
    files: ImageFiles,
    size: tuple[int, int] | None,
    out: BinaryIO,
    keep_size: bool = False,
    channels: int | None = None,
    background: str = "white",
) -> Decoded:
    """Decode the images that can be decoded; skip, count and name the others in the notes.

    They are brought to `size` (height, width), or without one to the size they share, if it is
    small or is to be kept. They are written as they are decoded: no more than BATCH are in memory.
    Transparent ones are laid on the background, unless four `channels` are asked for. Raises
    UserError where none is usable.
    """
    notes = []
    header = partial(read_header, background=background)
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda name: files.attempt(header, name), files.names)
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
        channels = channels or (3 if colour else 1)
        decode = partial(decode_to_fit, mode=MODES[channels], size=size, background=background)
        good, bad = decode_each(files, decode, size, out, pool)
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
    return Decoded((len(good), channels, *size), labels, classes, tuple(notes))


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
    files: ImageFiles,
    decode: Callable[[bytes], np.ndarray],
    size: tuple[int, int],
    out: BinaryIO,
    pool: ThreadPoolExecutor,
) -> tuple[list[str], list[str]]:
    """Write the pixels of each image; return the names of those written, and of those skipped
    with the reasons."""
    good, bad = [], []
    step = max(1, min(BATCH, MAX_CHUNK // (4 * size[0] * size[1])))

    def decode_one(name: str) -> np.ndarray | str:
        return files.attempt(decode, name)

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
