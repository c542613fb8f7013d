"""How many channels the images of a set have: those that are asked for, or that they need."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import torch

from ..utils.errors import UserError
from ..utils.files import atomic_write
from ..utils.images import composite
from .dataset import Decoded
from .limits import MAX_CHUNK

GRAY_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R 601)


def fit_channels(path: Path, decoded: Decoded, channels: int | None, background: str) -> Decoded:
    """Bring the decoded images in a file to so many channels, and return what describes them.

    channels    1 gray, 3 colour, 4 colour and how opaque; None: as they are, but one where all of
                them are gray
    background  what transparent images are laid on where their fourth channel is not kept
    """
    n, c, h, w = decoded.shape
    notes, wanted = decoded.notes, channels or c
    if channels is None and c == 3 and all(is_gray(part) for part in parts(path, decoded.shape)):
        wanted = 1
        notes = (*notes, "all images are gray, though stored in colour: learned in one channel")
    if wanted == c:
        return decoded
    if c not in (1, 3, 4):
        raise UserError(f"images of {c} channels cannot be brought to {wanted}")
    with atomic_write(path) as beside, beside.open("wb") as out:
        for part in parts(path, decoded.shape):
            out.write(convert(part, wanted, background).tobytes())
    return replace(decoded, shape=(n, wanted, h, w), notes=notes)


def parts(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield the images in a file, uint8 (n, C, H, W), a few at a time."""
    each = prod(shape[1:])
    step = max(1, MAX_CHUNK // (4 * each))
    with path.open("rb") as file:
        while data := file.read(step * each):
            yield np.frombuffer(data, np.uint8).reshape(-1, *shape[1:])


def is_gray(images: np.ndarray) -> bool:
    return bool((images[:, :1] == images[:, 1:]).all())


def convert(images: np.ndarray, channels: int, background: str) -> np.ndarray:
    """Return images (N, C, H, W) of 1, 3 or 4 channels with another number of them."""
    if images.shape[1] == 4:
        images = composite(torch.from_numpy(images.copy()), background).numpy()
    if channels == 1 and images.shape[1] == 3 and not is_gray(images):
        gray = np.tensordot(images, np.array(GRAY_WEIGHTS, np.float32), axes=(1, 0))
        return gray.round().astype(np.uint8)[:, None]
    if channels == 1:
        return images[:, :1]
    if images.shape[1] == 1:
        images = images.repeat(3, 1)
    if channels == 3:
        return images
    return np.concatenate([images, np.full_like(images[:, :1], 255)], 1)
