"""Image files in a folder or a zip, decoded with the classes that their folders name."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from ..utils.errors import UserError, counted
from .dataset import Decoded, Request, Source
from .decode import MODES, ImageHeader, cropped_share, decode_to_fit, read_header
from .labels import label_images
from .limits import DEFAULT_SIDE, MAX_CHUNK, MAX_DEFAULT_SIDE, MAX_THREADS
from .listing import CHUNK, ImageFiles, TransientError, holds_files, in_order, list_files, named
from .values import choose_scale, scale_notes

MAX_LOST = 0.4  # of an image when it is cropped; more is told


def open_files(request: Request) -> Source | None:
    """Return the source for the path of a folder or a zip."""
    path = Path(request.source)
    if not holds_files(path):
        return None
    files = list_files(path, request.split, request.classes_from)

    def decode(out: BinaryIO) -> Decoded:
        return decode_files(
            files, request.size, out, request.keep_size, request.channels, request.background
        )

    return Source([files.version], decode)


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
    small or is to be kept. They are written as they are decoded: no more than CHUNK are in memory.
    Transparent ones are laid on the background, unless four `channels` are asked for. Raise
    UserError where none is usable.
    """
    notes, several, ranges = [*files.notes], [], []
    headers: Counter[ImageHeader] = Counter()
    unseen = False  # a header that may be read another time
    read = partial(read_header, background=background)
    with ThreadPoolExecutor(MAX_THREADS) as pool:
        results = in_order(pool, lambda name: files.attempt(read, name), files.names)
        for name, header in zip(files.names, results, strict=True):
            unseen |= isinstance(header, TransientError)
            if isinstance(header, ImageHeader):
                headers[header._replace(numbers=None)] += 1
                several += [name] * header.several
                ranges += [header.numbers] if header.numbers else []
        colour = any(header.colour for header in headers)
        if size is None:
            size = shared_size(headers, keep_size, files.where)
        if size is None:
            size = (DEFAULT_SIDE, DEFAULT_SIDE)
            notes.append(
                f"the images are large or differ in size: cropped and resized to "
                f"{size[0]}x{size[1]} (choose with --size)"
            )
        notes += size_notes(headers, size)
        channels = channels or (3 if colour else 1)
        scale = None
        if ranges:
            scale, usual = choose_scale(ranges)
            notes += scale_notes(scale, usual, ranges, f"pixels of {counted(len(ranges), 'image')}")
            if others := headers.total() - len(ranges):
                notes.append(f"{counted(others, 'other image')} in the scale of the format")
        decode = partial(
            decode_to_fit, mode=MODES[channels], size=size, background=background, scale=scale
        )
        good, bad, incomplete = decode_each(files, decode, size, out, pool)
    if several:
        notes.append(
            f"{counted(len(several), 'file')} of several frames or pages, of which the first is "
            f"learned: {named(several)}"
        )
    if bad:
        notes.append(f"{len(bad)} of {counted(len(files.names), 'image')} skipped: {named(bad)}")
    if not good:
        raise UserError(f"there are no usable images in {files.where}: {notes[-1]}")
    labels, classes, more = label_images(good, files.labels, files.order)
    shape = (len(good), channels, *size)
    return Decoded(shape, labels, classes, (*notes, *more), scale, incomplete or unseen)


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


def size_notes(headers: Counter[ImageHeader], size: tuple[int, int]) -> list[str]:
    """Return notes where images are enlarged to `size` (height, width), or cropped by much."""
    notes, (H, W), n = [], size, max(1, headers.total())
    small = sum(k for found, k in headers.items() if found.height < H or found.width < W)
    if small:
        notes.append(
            f"{small:,} of {counted(n, 'image')} {'is' if small == 1 else 'are'} smaller than "
            f"{W}x{H}, and will be blurred: choose a smaller --size"
        )
    lost = sum(k * cropped_share(h.width / h.height, size) for h, k in headers.items()) / n
    if lost > MAX_LOST:
        notes.append(f"cropping to {W}x{H} loses {lost:.0%} of an image on average")
    return notes


def decode_each(
    files: ImageFiles,
    decode: Callable[[bytes], np.ndarray],
    size: tuple[int, int],
    out: BinaryIO,
    pool: ThreadPoolExecutor,
) -> tuple[list[str], list[str], bool]:
    """Write the pixels of each image; return the names of those written, and of those skipped
    with the reasons, and whether one of these may be read another time."""
    good, bad, incomplete = [], [], False
    step = max(1, min(CHUNK, MAX_CHUNK // (4 * size[0] * size[1])))

    def decode_one(name: str) -> np.ndarray | str:
        return files.attempt(decode, name)

    total = len(files.names)
    with tqdm(desc="decoding", total=total, leave=False, disable=None, unit="img") as progress:
        images = in_order(pool, decode_one, files.names, step)
        for name, image in zip(files.names, images, strict=True):
            progress.update()
            if isinstance(image, str):
                bad.append(f"{name} ({image})")
                incomplete |= isinstance(image, TransientError)
            else:
                out.write(np.moveaxis(image.reshape(*size, -1), -1, 0).tobytes())
                good.append(name)
    return good, bad, incomplete
