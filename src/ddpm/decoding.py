"""One image file: decoded, whatever its mode, cropped and resized."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .config import DataInfo
from .errors import UserError

SMALLEST_SIDE = 8
MOST_PIXELS = 100_000_000
MOST_BYTES = 500_000_000


def head(data: bytes) -> tuple[int, int, bool]:
    """Height and width as seen, and whether it is in colour, from the file's head alone."""
    with Image.open(io.BytesIO(data)) as image:
        w, h = usable_size(image)
        gray = image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")
        return (w, h, not gray) if image.getexif().get(0x0112, 1) >= 5 else (h, w, not gray)


def usable_size(image: Image.Image) -> tuple[int, int]:
    """Width and height, or ValueError for an image that is too small to learn from or a bomb."""
    w, h = image.size
    if w * h > MOST_PIXELS:
        raise ValueError(f"{w}x{h} pixels are too many")
    if min(w, h) < SMALLEST_SIDE:
        raise ValueError(f"{w}x{h} pixels are too few")
    return w, h


def decode(data: bytes) -> Image.Image:
    """An image file as "L" or "RGB": upright, over white where it is transparent."""
    with Image.open(io.BytesIO(data)) as file:
        usable_size(file)
        file.load()
        image = ImageOps.exif_transpose(file)
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
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def fit(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Crop to the aspect of `size` (height, width) about the middle, then resize, anti-aliased."""
    return np.asarray(ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS))


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
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("the file is too large")
        return decode(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"there is no image at {path}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image") from None
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise UserError(f"{path} cannot be read as an image: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__
