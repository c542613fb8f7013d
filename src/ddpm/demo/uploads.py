"""Read a visitor's images, masks and films. The browser sends them as data URIs, so that nothing is
written to disk or served to anyone."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..config import DataInfo
from ..data.decode import fit, image_to_tensor, open_image
from ..data.formats import advice
from ..utils.errors import UserError, printable

MAX_BYTES = 8_000_000
MAX_PIXELS = 40_000_000
MAX_MASK_PIXELS = 1_000_000  # the canvas has a tenth of that


def read_upload(
    name: str, data: str, info: DataInfo, background: str = "white"
) -> tuple[Tensor, str]:
    """Return the image in a data URI, cropped and resized to what the network takes, uint8
    (C, H, W), and a note for the visitor. `data` is empty where the file was too large to send.

    Raise UserError, a sentence for the visitor, for a file that is too large or no image.
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
        why = advice(name) or ", whatever its name says"
        raise UserError(f"{name} is not an image{why}") from None
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


def border(image: Tensor) -> float:
    """Return the mean of the pixels at the border of an image (C, H, W)."""
    x = image.float()
    return torch.cat([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], dim=1).mean().item()


def read_mask(data: str, info: DataInfo) -> Tensor:
    """Return what was painted, at the network's size: bool (H, W), True under the brush. Raise
    UserError for what is no mask."""
    with decoding("the mask could not be read: paint it again"):
        image = open_image(decode_data_uri(data, MAX_BYTES)).image
        if image.size[0] * image.size[1] > MAX_MASK_PIXELS:
            raise UserError("the mask is too large")
        painted = image.convert("RGBA").getchannel("A")
    return torch.from_numpy(np.asarray(fit(painted, (info.height, info.width))) > 127)


def decode_data_uri(data: str, max_bytes: int) -> bytes:
    """Return the bytes of a data URI. Raise UserError for more of them, or for another text."""
    head, comma, text = data.partition(",")
    if not comma or not head.startswith("data:") or len(text) > max_bytes * 4 // 3 + 4:
        raise UserError("the file did not arrive whole, or is too large: choose it again")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise UserError("the file did not arrive whole: choose it again") from None


def read_frames(frames: Sequence[str]) -> list[Image.Image]:
    """Return the frames of a film. Raise UserError for what are no images, or too large."""
    if sum(map(len, frames)) > MAX_BYTES:
        raise UserError("this film is too large: ask for fewer images or steps")
    with decoding("the film could not be read: make the images once more"):
        opened = [open_image(decode_data_uri(frame, MAX_BYTES)).image for frame in frames]
        if sum(frame.size[0] * frame.size[1] for frame in opened) > MAX_PIXELS:
            raise UserError("this film is too large: ask for fewer images or steps")
        for frame in opened:
            frame.load()
    return opened


@contextmanager
def decoding(sentence: str) -> Iterator[None]:
    """Turn whatever a decoder raises, of a damaged file nearly anything, into that sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception:
        raise UserError(sentence) from None
