"""One image file: decoded, whatever its mode, cropped and resized."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..config import DataInfo
from ..utils.errors import UserError, first_line
from .limits import MAX_BYTES, MAX_PIXELS, MAX_SCANS, MIN_SIDE, PIXEL_BUDGET

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".avif",
)  # fmt: skip
ORIENTATION = 0x0112  # the EXIF tag; from 5 on, width and height change places


class ImageHeader(NamedTuple):
    """What a file says of its image: height and width once it is upright, and whether it has
    colour."""

    height: int
    width: int
    colour: bool


@cache
def formats() -> tuple[str, ...]:
    """Return the formats of SUFFIXES that Pillow was built with."""
    known = Image.registered_extensions()
    return tuple(sorted({known[suffix] for suffix in SUFFIXES if suffix in known}))


def open_image(data: bytes) -> Image.Image:
    """Open an image file of one of the formats, without decoding it.

    Other formats are refused, whatever the file is called: for PostScript, Pillow would start a
    program.
    """
    image = Image.open(io.BytesIO(data), formats=formats())
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS:
        raise ValueError(f"more than {MAX_SCANS} passes over one image are too many")
    return image


def check_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height. Raises ValueError for too few or too many pixels."""
    w, h = image.size
    if w * h > MAX_PIXELS:
        raise ValueError(f"{w}x{h} pixels are too many")
    if min(w, h) < MIN_SIDE:
        raise ValueError(f"{w}x{h} pixels are too few")
    return w, h


def read_header(data: bytes) -> ImageHeader:
    """Return size and colour of an image file, without decoding it where the format allows."""
    with open_image(data) as image:
        w, h = check_size(image)
        gray = image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")
    # To find the tag, Pillow decodes a PNG, in which it may follow the pixels.
    with PIXEL_BUDGET.reserve(w * h):
        rotated = open_image(data).getexif().get(ORIENTATION, 1) >= 5
    return ImageHeader(w, h, not gray) if rotated else ImageHeader(h, w, not gray)


def decode(data: bytes) -> Image.Image:
    """Decode an image file to mode "L" or "RGB": upright, and over white where transparent."""
    with open_image(data) as image:
        check_size(image)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.nan_to_num(np.asarray(image, np.float32))
        known = 65535 if image.mode.startswith("I;16") else None
        white = known or (1 if pixels.max() <= 1 else 255 if pixels.max() <= 255 else 65535)
        return Image.fromarray((pixels.clip(0, white) * (255 / white)).round().astype(np.uint8))
    if image.has_transparency_data:
        gray = image.mode in ("1", "L", "LA")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("L" if gray else "RGB")
    return to_mode(image, "L" if image.mode in ("1", "L") else "RGB")


@contextmanager
def decoded(data: bytes) -> Iterator[Image.Image]:
    """Decode an image file as soon as the pixel budget allows; free its pixels at the end."""
    with open_image(data) as file:
        w, h = check_size(file)
    with PIXEL_BUDGET.reserve(w * h):
        yield decode(data)


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert the mode, without the copy that Pillow makes where there is nothing to convert."""
    return image if image.mode == mode else image.convert(mode)


def fit(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Crop to the aspect of `size` (height, width) about the middle, then resize, anti-aliased."""
    return np.asarray(ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS))


def decode_to_fit(data: bytes, mode: str, size: tuple[int, int]) -> np.ndarray:
    """Decode an image file, then crop and resize it: uint8 (H, W) for "L", (H, W, 3) for "RGB"."""
    with decoded(data) as image:
        return fit(to_mode(image, mode), size)


# ---- single images, for editing --------------------------------------------------------------


def read_image(path: Path, info: DataInfo) -> Tensor:
    """Return an image file as the data of a network: uint8 (C, H, W), cropped and resized.

    Raises UserError where the file is missing or is not an image.
    """
    return image_to_tensor(read_file(path), info)


def image_to_tensor(image: Image.Image, info: DataInfo) -> Tensor:
    """Return an image as the data of a network: uint8 (C, H, W), cropped and resized."""
    if info.channels not in (1, 3):
        raise UserError(
            f"an image has 1 channel or 3, and the data of this network {info.channels}"
        )
    image = image.convert("RGB" if info.channels == 3 else "L")
    array = fit(image, (info.height, info.width)).reshape(info.height, info.width, -1)
    return torch.from_numpy(np.moveaxis(array, -1, 0).copy())


def read_mask(path: Path, info: DataInfo) -> Tensor:
    """Return an image file as a mask: bool (H, W), True where it is nearer to white than black."""
    return torch.from_numpy(fit(read_file(path).convert("L"), (info.height, info.width)) > 127)


def read_file(path: Path) -> Image.Image:
    """Decode an image file. Raises UserError where it is missing or is not an image."""
    try:
        return decode(read_bytes(path))
    except FileNotFoundError:
        raise UserError(f"there is no image at {path}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image") from None
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise UserError(f"{path} cannot be read as an image: {first_line(error)}") from None


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file. Raises ValueError for more than MAX_BYTES, or without an end."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file has more than {MAX_BYTES:,} bytes")
    return data
