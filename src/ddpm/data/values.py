"""What the numbers in images mean: one scale for a whole set, from black to white.

8 bits need none. Numbers of 16 bits in a file have their format's; for all others the ranges of the
images decide together: a scale for each would make some brighter than others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..utils.errors import counted

WHITES = {1: (0, 1.5), 255: (32, 280), 65535: (8192, 72000)}  # white: where the brightest may lie
PHOTOMETRIC = 262  # the tag of a TIFF that says whether its least number is white
CHUNK = 2**22  # numbers that are brought to bytes at once


class Scale(NamedTuple):
    """The numbers that become black, 0, and white, 255."""

    black: float
    white: float

    def to_bytes(self, numbers: np.ndarray) -> np.ndarray:
        """Return uint8; what is beyond black or white is cut, and what is no number black."""
        out = np.empty(numbers.shape, np.uint8)
        flat, filled = numbers.reshape(-1), out.reshape(-1)
        for i in range(0, flat.size, CHUNK):
            with np.errstate(over="ignore", invalid="ignore"):
                shares = (flat[i : i + CHUNK] - np.float64(self.black)) / (self.white - self.black)
            filled[i : i + CHUNK] = (np.nan_to_num(shares).clip(0, 1) * 255).round()
        return out


class NumberRange(NamedTuple):
    """The least and the greatest of an image's finite numbers, (NaN, NaN) where there are none, and
    whether all of its numbers are finite."""

    low: float
    high: float
    finite: bool = True


def value_range(numbers: np.ndarray) -> NumberRange:
    """Return the range of an image's numbers."""
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return NumberRange(np.nan, np.nan, False)
    return NumberRange(float(finite.min()), float(finite.max()), finite.size == numbers.size)


def extremes(ranges: Sequence[NumberRange]) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest number of each image that has one; of one black image where
    none has."""
    known = [(r.low, r.high) for r in ranges if r.low == r.low] or [(0.0, 0.0)]
    lows, highs = np.array(known, np.float64).T
    return lows, highs


def format_scale(image: Image.Image) -> Scale | None:
    """Return the scale that the format of an open image fixes, in whose mode are more than 8 bits;
    None where it fixes none. Raise ValueError for floats of which the least is white."""
    white_is_zero = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0
    if white_is_zero and image.mode == "F":
        raise ValueError("its numbers say how dark a pixel is, in no known scale")
    if white_is_zero and is_deep(image):  # Pillow turns those of 8 bits alone
        return Scale(65535, 0)
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    return Scale(0, 65535) if deep else None


def is_deep(image: Image.Image) -> bool:
    """Return whether an open image has more than 8 bits a pixel and channel."""
    return image.mode[0] in "IF"


def choose_scale(ranges: Sequence[NumberRange]) -> tuple[Scale, bool]:
    """Return the scale of images with these ranges, and whether it is a usual one: of 0 … 1,
    −1 … 1, 0 … 255 or 0 … 65535. Any other is from 0, or the least of all below it, to the greatest
    of all.

    The middle image decides, of those that are not empty: one bright pixel must not darken a set.
    """
    lows, highs = extremes(ranges)
    drawn = (lows != 0) | (highs != 0)
    low, high = (np.median(x[drawn] if drawn.any() else x) for x in (lows, highs))
    whole = lows.min() <= -0.9 and highs.max() <= 1.5  # as of images with little contrast
    if -1.5 <= low < 0 and high <= 1.5 and (low <= -0.6 or whole and (lows < 0).mean() > 0.5):
        return Scale(-1, 1), True
    for white, (least, most) in WHITES.items():
        if least <= high <= most and low >= -0.25 * white:
            return Scale(0, white), True
    black, white = min(0.0, lows.min()), highs.max()
    return Scale(float(black), float(white if white > black else black + 1)), False


def scale_notes(
    scale: Scale, usual: bool, ranges: Sequence[NumberRange], what: str = "pixels"
) -> list[str]:
    """Return what a person should know of the scale, and of numbers that it cuts."""
    lows, highs = extremes(ranges)
    black, white = scale
    why = "" if usual else ", stretched so, since these fit no usual range"
    why = ", as they seem to lie in -1 … 1" if black == -1 and usual else why
    lines = [
        f"the {what} are numbers from {lows.min():g} to {highs.max():g}: {black:g} is learned as "
        f"black and {white:g} as white, in all images alike{why}"
    ]
    counts = {
        f"values below {black:g} were cut": int((lows < black).sum()),
        f"values above {white:g} were cut": int((highs > white).sum()),
        "infinite values were cut, or values that are not numbers became black,": sum(
            not r.finite for r in ranges
        ),
    }
    return lines + [f"{text} in {counted(n, 'image')}" for text, n in counts.items() if n]
