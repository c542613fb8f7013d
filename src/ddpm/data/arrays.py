"""Arrays of images, as they lie in npz files."""

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ..utils.errors import UserError, first_line
from .dataset import MAX_CHANNELS, Decoded, Request, Source
from .decode import fit
from .labels import class_name, index_classes
from .limits import MIN_SIDE, check_entry
from .listing import file_versions
from .values import as_bytes, label_names

# What arrays are called; {} is train or test. Keras and MedMNIST have the middle ones.
IMAGES = ("images", "arr_0", "x_{}", "{}_images", "x")
LABELS = ("labels", "arr_1", "y_{}", "{}_labels", "y")


def open_npz(request: Request) -> Source | None:
    """Return the source for the path of an npz file."""
    path = Path(request.source)
    if path.suffix.lower() != ".npz" or not os.path.isfile(path):
        return None

    def decode(out: BinaryIO) -> Decoded:
        array, labels, classes, notes = read_npz(path, request.split)
        return write_array(array, labels, classes, request, out, notes)

    return Source(file_versions(path), decode)


def read_npz(
    path: Path, split: str = "train"
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...], list[str]]:
    """Return the images, uint8 (N, H, W) or (N, H, W, C), labels, classes and notes of an npz file.

    images   under one of IMAGES: numbers as in `as_bytes`, (N, H, W), (N, H, W, C) or (N, C, H, W)
    labels   under one of LABELS: integers or names (N,) or (N, 1), or one-hot; -1 for no class
    classes  under `classes`: the name of each label, from 0 on
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
            used = [
                next((k for key in keys if (k := key.format(split)) in names), None)
                for keys in (IMAGES, LABELS, ("classes",))
            ]
            array, labels, known = (read_array(archive, f"{k}.npy") if k else None for k in used)
    except Exception as error:  # not an archive, cut, encrypted, of objects, of absurd shapes
        raise UserError(f"{path} cannot be read as an npz file: {first_line(error)}") from None
    if array is None or array.ndim not in (3, 4) or not array.size:
        found = f"{array.dtype} of {array.shape}" if array is not None else names
        raise UserError(
            f"{path} must hold images as `images` or `arr_0`, uint8 of shape (N, H, W) or "
            f"(N, H, W, C); it holds {found}"
        )
    notes = []
    if array.ndim == 4 and array.shape[1] <= MAX_CHANNELS < array.shape[3]:
        notes.append(f"images of shape {array.shape} are read as (N, C, H, W)")
        array = np.moveaxis(array, 1, -1)
    try:
        array, more = as_bytes(array)
        indices, classes = npz_classes(labels, known, len(array))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if others := sorted(set(names) - set(used)):
        more.append(f"arrays that are not used: {', '.join(others)}")
    return array, indices, classes, [*notes, *more]


def npz_classes(
    labels: np.ndarray | None, known: np.ndarray | None, n: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return labels as indices, and the names of the classes that they index."""
    if labels is None:
        return None, ()
    values = label_names(labels, n)
    if known is None:
        return index_classes([class_name(value) for value in values], by_number=True)
    whole = [value for value in values if isinstance(value, int)]
    named = known.dtype.kind == "U" and known.ndim == 1 and len(whole) == n
    if not named or not -1 <= min(whole) <= max(whole) < len(known):
        raise UserError("`classes` must be the name of each label, from 0 on")
    present = sorted({i for i in whole if i >= 0})
    index = {i: place for place, i in enumerate(present)} | {-1: len(present)}
    return np.array([index[i] for i in whole]), tuple(str(known[i]) for i in present)


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array of an npz. Raises an exception of any kind where it is damaged, before more
    memory is taken than the file has bytes to fill."""
    info, headers = check_entry(archive.getinfo(name)), np.lib.format
    with archive.open(info) as file:
        versions = {(1, 0): headers.read_array_header_1_0, (2, 0): headers.read_array_header_2_0}
        shape, _, dtype = versions[headers.read_magic(file)](file)
    if math.prod(shape) * dtype.itemsize > info.file_size:
        raise ValueError(f"{name} is cut short")
    with archive.open(info) as file:
        return headers.read_array(file, allow_pickle=False)


def write_array(
    array: np.ndarray,
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    request: Request,
    out: BinaryIO,
    notes: Sequence[str] = (),
) -> Decoded:
    """Write the images of an array, uint8 (N, H, W) or (N, H, W, C), resized where asked."""
    if array.ndim == 3:
        array = array[..., None]
    if request.size and request.size != array.shape[1:3]:
        planes = np.moveaxis(array, -1, 0)
        fitted = [[fit(Image.fromarray(image), request.size) for image in p] for p in planes]
        array = np.moveaxis(np.asarray(fitted), 0, -1)
    n, h, w, c = array.shape
    if min(h, w) < MIN_SIDE:
        raise UserError(
            f"{request.source}: images of {h}x{w} are too small; {MIN_SIDE}x{MIN_SIDE} at least"
        )
    out.write(np.ascontiguousarray(np.moveaxis(array, -1, 1)).data)
    return Decoded((n, c, h, w), labels, classes, tuple(notes))
