"""Arrays of images in .npz and .npy files, of which a part is in memory at a time."""

import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from ..utils.errors import UserError, first_line
from .arrays import LAYOUTS, StoredArray, array_images, in_memory, rows_at_once
from .dataset import Decoded, Request, Source
from .labels import index_labels
from .limits import MAX_MEMORY, MAX_TABLE_BYTES, check_archive, check_entry
from .listing import file_versions

# What arrays are called; {} is train or test. Keras and MedMNIST have the middle ones.
IMAGES = ("images", "arr_0", "x_{}", "{}_images", "x")
LABELS = ("labels", "arr_1", "y_{}", "{}_labels", "y")


def open_arrays(request: Request) -> Source | None:
    """Return the source for the path of an .npz or .npy file."""
    path = Path(request.source)
    if path.suffix.lower() not in (".npz", ".npy") or not os.path.isfile(path):
        return None

    def decode(out: BinaryIO) -> Decoded:
        with readable(path):
            if path.suffix.lower() == ".npy":
                return write_array(stored_array(path), None, (), request, out)
            return decode_npz(path, request, out)

    return Source(file_versions(path), decode)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong into a UserError that names the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except MemoryError:
        raise UserError(f"{path} takes more memory than there is") from None
    except Exception as error:  # not an archive, cut, encrypted, of objects, of absurd shapes
        if isinstance(error, OSError) and error.errno and error.filename is None:
            raise  # what is decoded cannot be written
        kind = path.suffix[1:].lower()
        raise UserError(f"{path} cannot be read as an {kind} file: {first_line(error)}") from None


def decode_npz(path: Path, request: Request, out: BinaryIO) -> Decoded:
    """Write the images of an npz file; return them with labels and classes.

    images   under one of IMAGES, or else the only array that has their shape
    labels   under one of LABELS: as in `index_labels`
    classes  under `classes`: the name of each label, from 0 on
    """
    with zipfile.ZipFile(path) as archive:
        check_archive(archive.infolist(), path.stat().st_size)
        names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
    lower = {name.lower(): name for name in names}
    learned = request.split == "train"  # arrays whose names tell no split are to be learned
    image, label = (
        next((lower[k] for key in keys if (k := key.format(request.split)) in lower), None)
        for keys in ([key for key in keys if learned or "{}" in key] for keys in (IMAGES, LABELS))
    )
    known = lower.get("classes")
    notes = []
    if image is None and not learned:
        raise UserError(f"it has no array called x_{request.split} or {request.split}_images")
    if image is None:
        objects = set(filter(lambda name: holds_objects(path, name), names))
        names = [n for n in names if n not in objects]
        notes += [f"arrays of objects, which are not read: {', '.join(sorted(objects))}"] * bool(
            objects
        )
        like = [n for n in names if len(stored_array(path, n).shape) in (3, 4)]
        if len(like) != 1:
            raise UserError(
                f"it must hold images as `images` or `arr_0`, of shape {LAYOUTS}; it holds "
                f"{', '.join(f'{n}, {stored_array(path, n)}' for n in names[:9]) or 'no arrays'}"
                f"{''.join(f'; {note}' for note in notes)}"
            )
        image = like[0]
        notes.append(f"images are the array {image}")
    array = stored_array(path, image)
    labels = None if label is None else whole(stored_array(path, label))
    classes = () if known is None else class_names(whole(stored_array(path, known)))
    if others := sorted(set(names) - {image, label, known}):
        notes.append(f"arrays that are not used: {', '.join(others)}")
    return write_array(array, labels, classes, request, out, notes)


def class_names(array: np.ndarray) -> tuple[str, ...]:
    if array.dtype.kind not in "US" or array.ndim != 1:
        raise UserError("`classes` must be the name of each label, from 0 on")
    return tuple(map(str, np.char.decode(array) if array.dtype.kind == "S" else array))


def write_array(
    array: StoredArray | np.ndarray,
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    request: Request,
    out: BinaryIO,
    notes: Sequence[str] = (),
) -> Decoded:
    """Write the images of an array, resized where asked. Raise UserError where images or labels
    cannot be understood."""
    images = array_images(
        in_memory(array) if isinstance(array, np.ndarray) else array, request.size
    )
    indices, classes, more = index_labels(labels, images.shape[0], classes)
    for part in images.parts():
        out.write(np.ascontiguousarray(part).data)
    return Decoded(
        images.shape, indices, classes, (*images.notes, *notes, *more), images.scale
    )  # fmt: skip


# ---- files -----------------------------------------------------------------------------------


def stored_array(path: Path, name: str = "") -> StoredArray:
    """Return an array of an npz file, or the one in a .npy file. Raise an exception of any kind
    where it is damaged, before more memory is taken than the file has bytes to fill."""
    with opened(path, name) as (file, size):
        shape, fortran, dtype = read_array_header(file)
    total = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(
            f"{name or 'it'} holds objects of Python, which are not read: save numbers or texts, "
            f"such as by .astype(str)"
        )
    if total > size:
        raise ValueError(f"{name or 'it'} is cut short")
    if fortran and total > MAX_MEMORY:
        raise ValueError("it is in Fortran order: save it with numpy.ascontiguousarray")
    step = len_of(shape) if fortran else rows_at_once(shape, dtype)

    def parts() -> Iterator[np.ndarray]:
        with opened(path, name) as (file, _):
            read_array_header(file)
            for i in range(0, len_of(shape), step):
                part = (min(step, len_of(shape) - i), *shape[1:]) if shape else ()
                data = file.read(math.prod(part) * dtype.itemsize)
                yield np.frombuffer(data, dtype).reshape(part, order="F" if fortran else "C")

    return StoredArray(shape, dtype, parts)


def holds_objects(path: Path, name: str) -> bool:
    """Return whether an array of an npz file is one of Python's objects."""
    with opened(path, name) as (file, _):
        return bool(read_array_header(file)[2].hasobject)


def len_of(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


@contextmanager
def opened(path: Path, name: str) -> Iterator[tuple[IO[bytes], int]]:
    """Open an array of an npz file, or a .npy file; yield it with its number of bytes."""
    if not name:
        with path.open("rb") as plain_file:
            yield plain_file, path.stat().st_size
        return
    with zipfile.ZipFile(path) as archive:
        info = check_entry(archive.getinfo(f"{name}.npy"))
        with archive.open(info) as packed:
            yield packed, info.file_size


def read_array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether it is in Fortran order, and type of the array that begins here."""
    headers = np.lib.format
    readers = {(1, 0): headers.read_array_header_1_0, (2, 0): headers.read_array_header_2_0}
    return readers[headers.read_magic(file)](file)


def whole(array: StoredArray) -> np.ndarray:
    """Return an array of labels or names. Raise UserError where it is too large for these."""
    if math.prod(array.shape) * array.dtype.itemsize > MAX_TABLE_BYTES:
        raise UserError(f"labels take {MAX_TABLE_BYTES:,} bytes at most, and these are {array}")
    return np.concatenate(list(array.parts())) if array.shape else next(array.parts())
