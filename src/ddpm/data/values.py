"""What the numbers in images mean: one scale for a whole set, from black to white.

8 bits need none. Numbers of 16 bits in a file have their format's; for all others the ranges of the
images decide together: a scale for each would make some brighter than others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..utils.errors import UserError

WHITES = {1: (0, 1.5), 255: (32, 280), 65535: (8192, 72000)}  # white: where the brightest may lie
CHUNK = 2**22  # numbers that are brought to bytes at once


class Scale(NamedTuple):
    """The numbers that become black, 0, and white, 255."""

    black: float
    white: float

    def to_bytes(self, numbers: np.ndarray) -> np.ndarray:
        """Return uint8; what is beyond black or white is cut, and what is no number black."""
        shares = (np.nan_to_num(numbers.astype(np.float32)) - self.black) / (
            self.white - self.black
        )
        return (shares.clip(0, 1) * 255).round().astype(np.uint8)


def format_scale(image: Image.Image) -> Scale | None:
    """Return the scale that the format of an open image fixes, in whose mode are more than 8 bits;
    None where it fixes none."""
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    return Scale(0, 65535) if deep else None


def is_deep(image: Image.Image) -> bool:
    """Return whether an open image has more than 8 bits a pixel and channel."""
    return image.mode[0] in "IF"


def value_range(numbers: np.ndarray) -> tuple[float, float]:
    """Return the least and the greatest of the finite numbers; (0, 0) where there are none."""
    finite = numbers[np.isfinite(numbers)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def choose_scale(ranges: Sequence[tuple[float, float]]) -> tuple[Scale, bool]:
    """Return the scale of images with these least and greatest numbers, and whether it is a usual
    one: of 0 … 1, −1 … 1, 0 … 255 or 0 … 65535. Any other is from 0, or the least of all below it,
    to the greatest of all.

    The middle image decides: one bright pixel must not darken a set.
    """
    lows, highs = np.array(ranges, np.float64).T
    low, high = np.median(lows), np.median(highs)
    if -1.5 <= low < 0 < high <= 1.5 and (lows < 0).mean() > 0.5:
        return Scale(-1, 1), True
    for white, (least, most) in WHITES.items():
        if least <= high <= most and low >= -0.5 * white:
            return Scale(0, white), True
    black, white = min(0.0, lows.min()), highs.max()
    return Scale(black, white if white > black else black + 1), False


def scale_notes(
    scale: Scale, usual: bool, ranges: Sequence[tuple[float, float]], what: str = "pixels"
) -> list[str]:
    """Return what a person should know of the scale, and of numbers that it cuts."""
    lows, highs = np.array(ranges, np.float64).T
    (black, white), below, above = scale, (lows < scale.black).sum(), (highs > scale.white).sum()
    why = "" if usual else ", stretched so, since these fit no usual range"
    why = ", as they seem to lie in -1 … 1" if black == -1 else why
    lines = [
        f"the {what} are numbers from {lows.min():g} to {highs.max():g}: {black:g} is learned as "
        f"black and {white:g} as white, in all images alike{why}"
    ]
    if below:
        lines.append(f"values below {black:g} were cut in {below:,} images")
    if above:
        lines.append(f"values above {white:g} were cut in {above:,} images")
    return lines


def as_bytes(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the images of an array (N, …) as uint8, and notes on how they were read.

    bool and numbers in 0 … 1, −1 … 1, 0 … 255 and 0 … 65535 are understood. Raises UserError for
    others.
    """
    if array.dtype == np.uint8:
        return array, []
    if array.dtype.kind not in "biuf":
        raise UserError(f"images must be numbers, and these are {array.dtype}")
    ranges = [value_range(image) for image in array]
    scale, usual = choose_scale(ranges)
    if not usual:
        low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
        raise UserError(
            f"images must be uint8, or numbers in 0 … 1, -1 … 1 or 0 … 255, and these are "
            f"{array.dtype} of shape {array.shape}, from {low:g} to {high:g}"
        )
    out = np.empty(array.shape, np.uint8)
    step = max(1, CHUNK // max(1, array[0].size))
    for i in range(0, len(array), step):
        out[i : i + step] = scale.to_bytes(array[i : i + step])
    return out, scale_notes(scale, usual, ranges)


def label_names(labels: np.ndarray, n: int) -> list[str | int]:
    """Return the labels of n images, given as integers or names of shape (n,) or (n, 1), or
    one-hot, (n, classes). Raises UserError for others."""
    found = f"{labels.dtype} of shape {labels.shape}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    one_hot = labels.ndim == 2 and labels.dtype.kind in "biuf" and np.isin(labels, (0, 1)).all()
    if one_hot and (labels.sum(1) == 1).all():
        labels = labels.argmax(1)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == labels.round()).all():
        labels = labels.astype(np.int64)
    if labels.shape != (n,) or labels.dtype.kind not in "biuU":
        raise UserError(
            f"labels must be {n:,} integers or names, one for each image, or one-hot; they are "
            f"{found}"
        )
    return (labels.astype(np.int64) if labels.dtype.kind == "b" else labels).tolist()
