"""Read a visitor's images and masks. The browser sends them as data URIs with its events, so that
nothing is written to disk or served to anyone."""

import base64
import binascii
import time

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch import Tensor

from ..config import DataInfo
from ..data.decode import fit, image_to_tensor, open_image
from ..utils.errors import UserError, printable
from .html import png

MAX_BYTES = 8_000_000
MAX_PIXELS = 40_000_000
MAX_MASK_PIXELS = 1_000_000  # the canvas has a tenth of that


def upload_html(text: str) -> str:
    """Return the choice of a file, which static/upload.js reads."""
    return (
        f'<label class="upload">{text} '
        f'<input type="file" accept="image/*" data-max-bytes="{MAX_BYTES}"></label>'
    )


def canvas_html(image: Tensor, side: int = 336) -> str:
    """Return a uint8 image (C, H, W) as a canvas, which static/paint.js lets a visitor paint on."""
    height = round(side * image.shape[1] / image.shape[2])
    return (
        f'<canvas class="pixels" width="{side}" height="{height}" tabindex="0" '
        'role="application" aria-label="Paint over what is to be made anew; with the keyboard, '
        'arrows move the brush and space paints" '
        f'data-key="{time.time_ns()}" data-src="{png(image[None], 1)}"></canvas>'
        '<label>Brush <input class="brush" type="range" min="4" max="40" value="16"></label> '
        '<button type="button" class="clear">Clear</button>'
    )


def read_upload(
    name: str, data: str, info: DataInfo, background: str = "white"
) -> tuple[Tensor, str]:
    """Return the image in a data URI, cropped and resized to what the network takes, uint8
    (C, H, W), and a note for the visitor. `data` is empty where the file was too large to send.

    Raises UserError, a sentence for the visitor, for a file that is too large or no image.
    """
    name = printable(name)
    if not data:
        raise UserError(f"{name} is larger than {MAX_BYTES // 1_000_000} MB: choose a smaller one")
    raw = decode_data_uri(data, MAX_BYTES)
    try:
        file = open_image(raw, info.shape[1:])
        w, h = file.image.size
        if w * h > MAX_PIXELS:
            raise UserError(f"{name} has {w:,} x {h:,} pixels, which is too many: make it smaller")
        image = image_to_tensor(raw, info, background)
    except UnidentifiedImageError:
        raise UserError(f"{name} is not an image, whatever its name says") from None
    except UserError:
        raise
    except ValueError as error:  # too large, or made to do harm
        raise UserError(f"{name} cannot be used: {error}") from None
    except Exception:  # a damaged file makes decoders raise nearly anything
        raise UserError(f"{name} is damaged: it cannot be read as an image") from None
    notes = [f"{name}: its middle, at {info.width}x{info.height}"]
    if file.frames > 1:
        notes.append("it is animated, and only its first frame is used")
    return image, "; ".join(notes)


def read_mask(data: str, info: DataInfo) -> Tensor:
    """Return what was painted, at the network's size: bool (H, W), True under the brush. Raises
    UserError for what is no mask."""
    try:
        image = open_image(decode_data_uri(data, MAX_BYTES)).image
        if image.size[0] * image.size[1] > MAX_MASK_PIXELS:
            raise UserError("the mask is too large")
        painted = image.convert("RGBA").getchannel("A")
    except UserError:
        raise
    except Exception:
        raise UserError("the mask could not be read: paint it again") from None
    return torch.from_numpy(np.asarray(fit(painted, (info.height, info.width))) > 127)


def decode_data_uri(data: str, max_bytes: int) -> bytes:
    """Return the bytes of a data URI. Raises UserError for more of them, or for another text."""
    head, comma, text = data.partition(",")
    if not comma or not head.startswith("data:") or len(text) > max_bytes * 4 // 3 + 4:
        raise UserError("the file did not arrive whole, or is too large: choose it again")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise UserError("the file did not arrive whole: choose it again") from None
