"""Images as data URIs, which hold all of their data: no file is written, and nothing fetched."""

import base64
import io
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from ..utils.errors import UserError
from ..utils.images import grid, save_animation

MAX_COLUMNS = 8
MAX_FILM_PIXELS = 30_000_000  # of all frames, as they are sent
SIDE = 480  # pixels of the longer side of a film that is taken home


def png(images: Tensor) -> str:
    """Return uint8 images (N, C, H, W) as a grid: the data URI of a PNG."""
    return data_uri(png_bytes(images, page_columns(len(images)), gap=1), "image/png")


def png_bytes(images: Tensor, columns: int, gap: int) -> bytes:
    """Return uint8 images (N, C, H, W) as a grid: a PNG file."""
    file = io.BytesIO()
    grid(images, columns, gap).save(file, "png")
    return file.getvalue()


def page_columns(n: int) -> int:
    """Return the columns of a grid of n images that is about square."""
    return min(MAX_COLUMNS, round(n**0.5 + 0.49))


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def film(frames: Sequence[Image.Image], kind: str) -> str:
    """Return an animation, "gif" or "webp", enlarged by whole pixels to about SIDE: a data URI.

    Raise UserError for frames that differ in size or are too many pixels.
    """
    if len({frame.size for frame in frames}) > 1:
        raise UserError("the frames of a film are of one size: make the images once more")
    zoom = max(1, SIDE // max(frames[0].size))
    w, h = (side * zoom for side in frames[0].size)
    if w * h * len(frames) > MAX_FILM_PIXELS:
        raise UserError("this film is too large: ask for fewer images or steps")
    file = io.BytesIO()
    shown = (frame if frame.mode == "RGBA" else frame.convert("RGB") for frame in frames)
    large = [frame.resize((w, h), Image.Resampling.NEAREST) for frame in shown]
    save_animation(large, file, kind)
    return data_uri(file.getvalue(), f"image/{kind}")
