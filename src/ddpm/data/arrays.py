"""Arrays of images, of any layout and kind of numbers, brought to uint8 a part at a time."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..utils.errors import UserError
from .decode import fit
from .limits import MAX_CHANNELS, MAX_CHUNK, MAX_MEMORY, MIN_SIDE
from .values import Scale, choose_scale, scale_notes, value_range

LAYOUTS = f"(N, H, W), (N, H, W, C) or (N, C, H, W), with up to {MAX_CHANNELS} channels"
RANGES = "0 … 1, -1 … 1, 0 … 255 or 0 … 65535"


class StoredArray(NamedTuple):
    """An array that need not be in memory.

    parts  yields it from the first row on, a few rows at a time
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Callable[[], Iterator[np.ndarray]]

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.shape}"


def rows_at_once(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Return how many rows of an array are read at once."""
    return max(1, MAX_CHUNK // max(1, math.prod(shape[1:]) * dtype.itemsize))


def in_memory(array: np.ndarray) -> StoredArray:
    """Return an array that is in memory."""
    step = rows_at_once(array.shape, array.dtype)

    def parts() -> Iterator[np.ndarray]:
        return (array[i : i + step] for i in range(0, len(array), step))

    return StoredArray(array.shape, array.dtype, parts)


class ArrayImages(NamedTuple):
    """Images of an array.

    shape  (N, C, H, W)
    parts  yields them as uint8 (n, C, H, W)
    scale  of their numbers; None for uint8
    notes  what a person should know of how they were read
    """

    shape: tuple[int, int, int, int]
    parts: Callable[[], Iterator[np.ndarray]]
    scale: Scale | None
    notes: tuple[str, ...]


def array_images(array: StoredArray, size: tuple[int, int] | None = None) -> ArrayImages:
    """Return the images of an array, cropped and resized to `size` (height, width) where it is
    given.

    bool and numbers in RANGES are understood, in one of LAYOUTS. Raise UserError for others.
    """
    (n, c, h, w), axis = find_layout(array)
    row = c * h * w
    if row * (array.dtype.itemsize + 2) > MAX_MEMORY:
        raise UserError(f"images of {h}x{w} are too large: they take {row:,} numbers each")
    scale, notes = array_scale(array)
    if axis == 1:
        notes.insert(0, f"images of shape {array.shape} are read as (N, C, H, W)")
    height, width = size or (h, w)
    if min(height, width) < MIN_SIDE:
        raise UserError(f"images of {width}x{height} are too small: a side has {MIN_SIDE} or more")

    def parts() -> Iterator[np.ndarray]:
        for part in array.parts():
            part = part[:, None] if axis is None else np.moveaxis(part, axis, 1)
            part = scale.to_bytes(part) if scale else part
            yield part if (height, width) == (h, w) else resized(part, (height, width))

    return ArrayImages((n, c, height, width), parts, scale, tuple(notes))


def find_layout(array: StoredArray) -> tuple[tuple[int, int, int, int], int | None]:
    """Return the shape (N, C, H, W) that an array's images will have, and which axis has their
    channels; None: none has.

    Channels are few and sides long, so that none can be taken for the other. Raise UserError for
    other arrays.
    """
    shape = array.shape
    axis = None if len(shape) != 4 else 1 if shape[1] <= MAX_CHANNELS < shape[3] else 3
    if len(shape) in (3, 4) and all(shape):
        c = shape[axis] if axis else 1
        h, w = shape[2:] if axis == 1 else shape[1:3]
        if c <= MAX_CHANNELS and min(h, w) >= MIN_SIDE:
            return (shape[0], c, h, w), axis
    raise UserError(
        f"images must have the shape {LAYOUTS} and {MIN_SIDE} pixels or more a side, and these are "
        f"{array}"
    )


def array_scale(array: StoredArray) -> tuple[Scale | None, list[str]]:
    """Return the scale of an array's numbers, None for uint8, and notes on it. Raise UserError
    where they fit no usual range."""
    if array.dtype == np.uint8:
        return None, []
    if array.dtype.kind not in "biuf":
        raise UserError(f"images must be numbers, and these are {array}")
    ranges = [value_range(image) for part in array.parts() for image in part]
    scale, usual = choose_scale(ranges)
    if not usual:
        low, high = (f(getattr(r, k) for r in ranges) for f, k in ((min, "low"), (max, "high")))
        raise UserError(
            f"images must be uint8, or numbers in {RANGES}, and these are {array}, from {low:g} to "
            f"{high:g}"
        )
    return scale, scale_notes(scale, usual, ranges)


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return uint8 images (N, C, H, W) cropped and resized to `size` (height, width). Of four
    channels the last is how opaque a pixel is, and what cannot be seen bleeds into nothing."""
    if images.shape[1] == 4:
        whole = [
            Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images
        ]
        return np.array([fit(image, size).transpose(2, 0, 1) for image in whole])
    return np.array([[fit(Image.fromarray(plane), size) for plane in image] for image in images])
