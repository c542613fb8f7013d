"""One image file: decoded, whatever its mode, cropped and resized."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Condition

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..config import DataInfo
from ..utils.errors import UserError

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".avif",
)  # fmt: skip
SMALLEST_SIDE = 8
MAX_PIXELS = 100_000_000
MAX_BYTES = 500_000_000
MAX_SCANS = 100  # of a progressive JPEG, each of which passes over the whole image; ten are usual


class PixelBudget:
    """Room for so many pixels at once: who needs more than is left waits for others to end."""

    def __init__(self, most: int):
        self.left, self.change = most, Condition()

    @contextmanager
    def reserve(self, n: int) -> Iterator[None]:
        with self.change:
            self.change.wait_for(lambda: n <= self.left)
            self.left -= n
        try:
            yield
        finally:
            with self.change:
                self.left += n
                self.change.notify_all()


PIXEL_BUDGET = PixelBudget(2 * MAX_PIXELS)


@cache
def formats() -> tuple[str, ...]:
    """What is read: the formats that SUFFIXES stand for, of those that Pillow was built with."""
    known = Image.registered_extensions()
    return tuple(sorted({known[suffix] for suffix in SUFFIXES if suffix in known}))


def open_image(data: bytes) -> Image.Image:
    """An image file of one of the formats, not decoded yet. No other is opened, whatever the file
    is called: Pillow knows many, and one of them is a program that another program runs."""
    image = Image.open(io.BytesIO(data), formats=formats())
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS:
        raise ValueError(f"more than {MAX_SCANS} passes over one image are too many")
    return image


def head(data: bytes) -> tuple[int, int, bool]:
    """Height and width as seen, and whether it is in colour, from the file's head alone."""
    with open_image(data) as image:
        w, h = usable_size(image)
        gray = image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")
    # A PNG is decoded for it, as it may be told behind the pixels.
    with PIXEL_BUDGET.reserve(w * h):
        turned = open_image(data).getexif().get(0x0112, 1) >= 5
    return (w, h, not gray) if turned else (h, w, not gray)


def usable_size(image: Image.Image) -> tuple[int, int]:
    """Width and height, or ValueError for an image that is too small to learn from or a bomb."""
    w, h = image.size
    if w * h > MAX_PIXELS:
        raise ValueError(f"{w}x{h} pixels are too many")
    if min(w, h) < SMALLEST_SIDE:
        raise ValueError(f"{w}x{h} pixels are too few")
    return w, h


def decode(data: bytes) -> Image.Image:
    """An image file as "L" or "RGB": upright, over white where it is transparent."""
    with open_image(data) as image:
        usable_size(image)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.nan_to_num(np.asarray(image, np.float32))
        known = 65535 if image.mode.startswith("I;16") else None
        top = known or (1 if pixels.max() <= 1 else 255 if pixels.max() <= 255 else 65535)
        return Image.fromarray((pixels.clip(0, top) * (255 / top)).round().astype(np.uint8))
    if image.has_transparency_data:
        gray = image.mode in ("1", "L", "LA")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("L" if gray else "RGB")
    return converted(image, "L" if image.mode in ("1", "L") else "RGB")


def converted(image: Image.Image, mode: str) -> Image.Image:
    """Without the copy that Pillow makes of what is in that mode already: images may be large."""
    return image if image.mode == mode else image.convert(mode)


def fit(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Crop to the aspect of `size` (height, width) about the middle, then resize, anti-aliased."""
    return np.asarray(ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS))


def decode_to_fit(data: bytes, mode: str, size: tuple[int, int]) -> np.ndarray:
    """An image file, decoded and fitted once there is room for it."""
    with open_image(data) as file:
        w, h = usable_size(file)
    with PIXEL_BUDGET.reserve(w * h):
        return fit(converted(decode(data), mode), size)


def read_picture(path: Path, info: DataInfo) -> Tensor:
    """One image file as a network's data are: uint8 (C, H, W), cropped and resized."""
    return as_picture(opened(path), info)


def as_picture(image: Image.Image, info: DataInfo) -> Tensor:
    if info.channels not in (1, 3):
        raise UserError(f"a picture has 1 channel or 3, and this network's {info.channels}")
    image = image.convert("RGB" if info.channels == 3 else "L")
    array = fit(image, (info.height, info.width)).reshape(info.height, info.width, -1)
    return torch.from_numpy(np.moveaxis(array, -1, 0).copy())


def read_mask(path: Path, info: DataInfo) -> Tensor:
    """A picture as a mask: bool (H, W), True where it is nearer to white than to black."""
    return torch.from_numpy(fit(opened(path).convert("L"), (info.height, info.width)) > 127)


def opened(path: Path) -> Image.Image:
    """An image file, decoded. Raises UserError where it cannot be."""
    try:
        return decode(read_bytes(path))
    except FileNotFoundError:
        raise UserError(f"there is no image at {path}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image") from None
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise UserError(f"{path} cannot be read as an image: {first_line(error)}") from None


def read_bytes(path: Path) -> bytes:
    """A file's, or ValueError where there are too many; also of a file without an end."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file has more than {MAX_BYTES:,} bytes")
    return data


def first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__
