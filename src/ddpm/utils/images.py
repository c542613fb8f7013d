"""Images as tensors, and tensors as pictures and animations."""

from collections.abc import Sequence
from math import ceil, log, sqrt
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from .errors import UserError


def to_uint8(x: Tensor) -> Tensor:
    """Map [−1, 1] to {0 … 255}, rounded to the nearest; values outside are clipped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    """Map {0 … 255} to [−1, 1]: u / 127.5 − 1, in float32."""
    return images.float() / 127.5 - 1


def background_colour(name: str) -> tuple[int, int, int]:
    """Return red, green and blue of a colour, a name or #rrggbb. Raise UserError for others."""
    try:
        r, g, b, *_ = ImageColor.getrgb(name)
    except ValueError:
        raise UserError(
            f"{name!r} is not a colour: give a name, such as white, or #rrggbb"
        ) from None
    return r, g, b


def composite(images: Tensor, background: str = "white") -> Tensor:
    """Return uint8 images (..., 4, H, W), whose fourth channel says how opaque they are, over a
    background: (..., 3, H, W)."""
    colour, opaque = images.float().split([3, 1], dim=-3)
    below = torch.tensor(background_colour(background), device=images.device).view(3, 1, 1)
    return (below + (colour - below) * (opaque / 255)).round().to(torch.uint8)


def flatten_alpha(images: Tensor, background: str = "white") -> Tensor:
    """Return uint8 images (N, C, H, W) as they are seen: over a background if transparent."""
    return composite(images, background) if images.shape[1] == 4 else images


def to_pil(image: Tensor) -> Image.Image:
    """Return a uint8 image (C, H, W) as a picture: gray, colour, colour with transparency, or for
    another number of channels than 1, 3 and 4 each channel in gray, side by side."""
    array = image.cpu().numpy()
    if array.shape[0] in (3, 4):
        return Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)))
    return Image.fromarray(np.concatenate(list(array), axis=1))


def grid(images: Tensor, columns: int | None = None, gap: int = 2, zoom: int = 1) -> Image.Image:
    """Return uint8 images (N, C, H, W) as one picture, row by row.

    columns  in each row; None for a picture that is about square
    gap      pixels between images
    zoom     how many times to enlarge them
    """
    tiles = [to_pil(image) for image in images]
    columns = min(columns or ceil(sqrt(len(tiles))), len(tiles))
    rows = ceil(len(tiles) / columns)
    w, h = tiles[0].width * zoom, tiles[0].height * zoom
    size = (columns * (w + gap) - gap, rows * (h + gap) - gap)
    between = "#00000000" if tiles[0].mode == "RGBA" else "#282828"
    sheet = Image.new(tiles[0].mode, size, between)
    for i, tile in enumerate(tiles):
        place = (i % columns * (w + gap), i // columns * (h + gap))
        sheet.paste(tile.resize((w, h), Image.Resampling.NEAREST), place)
    return sheet


def columns_for(n: int, classes: int = 1) -> int:
    """Return the columns of a grid of n images whose classes take turns: full rows if they can be,
    in which each column is of one class, and else about a square."""
    square = ceil(sqrt(n))
    for each in dict.fromkeys((classes, 1)):
        widths = [c for c in range(each, n + 1, each) if n % c == 0]
        widths = [c for c in widths if n / 8 <= c * c and c <= max(2 * square, each * (each <= 20))]
        if widths:
            return min(widths, key=lambda c: (round(abs(log(c * c / n)), 6), -c))
    return square


def zoom_for(images: Tensor, side: int = 56) -> int:
    """Return how many times to enlarge images (..., H, W) to about `side` pixels; 1 at least."""
    return max(1, round(side / max(images.shape[-2:])))


def save_animation(
    frames: Sequence[Image.Image],
    file: Path | BinaryIO,
    kind: str | None = None,
    seconds: float = 4.0,
) -> None:
    """Write an animation that plays the frames in `seconds` and rests on the last for 1.5 more.

    The name of the file ends in .gif or .webp; without a name, `kind` is "gif" or "webp". A GIF
    has no half-transparent pixels: what is transparent is laid on white.
    """
    if frames[0].mode == "RGBA" and (kind or Path(str(file)).suffix[1:]).lower() == "gif":
        white = Image.new("RGBA", frames[0].size, "white")
        frames = [Image.alpha_composite(white, frame).convert("RGB") for frame in frames]
    durations = [max(20, round(1000 * seconds / len(frames)))] * len(frames)
    durations[-1] = 1500
    frames[0].save(
        file, kind, save_all=True, append_images=frames[1:], duration=durations, loop=0,
        lossless=True,
    )  # fmt: skip
