"""A set of images with labels, and what a source of images must provide."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..config import ClassesFrom, DataInfo
from ..utils.errors import UserError, printable
from .limits import MIN_SIDE
from .values import as_bytes, label_names

MAX_CHANNELS = 4  # by which (N, C, H, W) is told from (N, H, W, C)


@dataclass(frozen=True, eq=False, repr=False)
class ImageDataset:
    """A set of images, usually memory-mapped from the cache.

    images       uint8 (N, C, H, W)
    labels       int64 (N,), indices into `classes`, or their number for an image without a class;
                 or None
    classes      names of the classes; empty without labels
    source       where the images came from, for people
    fingerprint  SHA-256 of shape, classes, pixels and labels
    notes        what a person should know of how the images were read
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    source: str
    fingerprint: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:  # as a checkpoint will have them
        object.__setattr__(self, "classes", tuple(map(printable, self.classes)))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n, c, h, w = self.images.shape
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"ImageDataset({self.source!r}: {n:,} images of {c}x{h}x{w}{classes})"

    @property
    def info(self) -> DataInfo:
        """What a checkpoint records of the data."""
        n, c, h, w = self.images.shape
        return DataInfo(self.source, n, c, h, w, self.classes, self.fingerprint)

    def without_labels(self) -> "ImageDataset":
        return replace(self, labels=None, classes=())

    @classmethod
    def from_array(
        cls,
        images: np.ndarray | Tensor,
        labels: Sequence[int] | np.ndarray | Tensor | None = None,
        classes: Sequence[str] = (),
        source: str = "array",
    ) -> "ImageDataset":
        """Return a data set of the images in an array.

        images   uint8, or numbers as in `values.as_bytes`, of shape (N, H, W), (N, H, W, C) or
                 (N, C, H, W), with C from 1 to 4
        labels   integers (N,) or (N, 1), or one-hot: indices into `classes`; without `classes`, any
                 integers or names, which become the names of the classes
        classes  names of the classes

        Raises UserError for arrays of another type or shape, and for labels that do not fit.
        """
        if isinstance(images, Tensor):
            images = images.detach().cpu()
            images = (images.float() if images.is_floating_point() else images).numpy()
        array = np.asarray(images)
        if not array.size:
            raise UserError(f"there are no images in an array of shape {array.shape}")
        array, notes = as_bytes(array)
        x = channels_first(torch.from_numpy(array)).contiguous()
        y, names = None, tuple(map(str, classes))
        if labels is not None:
            values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
            y, names = index_labels(values, len(x), names)
        elif names:
            raise UserError("classes need labels: give the label of each image")
        return cls(x, y, names, source, fingerprint(x, y, names), tuple(notes))


def channels_first(images: Tensor) -> Tensor:
    """Return images (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W)."""
    shape = tuple(images.shape)
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and shape[1] > MAX_CHANNELS >= shape[3]:
        images = images.movedim(-1, 1)
    n, c, h, w = images.shape if images.ndim == 4 else (0, 0, 0, 0)
    if not n or not 1 <= c <= MAX_CHANNELS or min(h, w) < MIN_SIDE:
        raise UserError(
            f"images must have the shape (N, H, W), (N, H, W, C) or (N, C, H, W), with up to "
            f"{MAX_CHANNELS} channels and {MIN_SIDE} pixels or more a side, not {shape}"
        )
    return images


def index_labels(
    labels: np.ndarray, n: int, classes: tuple[str, ...]
) -> tuple[Tensor, tuple[str, ...]]:
    """Return labels as indices, int64 (n,), and the names of the classes that they index."""
    labels = np.asarray(label_names(labels, n))
    if classes and labels.dtype.kind == "U":
        raise UserError("labels must be indices into `classes`, and these are names")
    if not classes:
        values, labels = np.unique(labels, return_inverse=True)
        classes = tuple(map(str, values))
    if not 0 <= labels.min() <= labels.max() < len(classes):
        raise UserError(
            f"labels must be from 0 to {len(classes) - 1}, as there are {len(classes)} classes; "
            f"they are from {labels.min()} to {labels.max()}"
        )
    return torch.from_numpy(labels.astype(np.int64)), classes


def fingerprint(images: Tensor, labels: Tensor | None, classes: tuple[str, ...]) -> str:
    """Return the SHA-256 of all that is learned from."""
    digest = hashlib.sha256(repr((images.shape, classes)).encode())
    digest.update(images.numpy().data)
    if labels is not None:
        digest.update(labels.numpy().data)
    return digest.hexdigest()


# ---- sources ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """Which images to read, and how; the arguments of `load_images`."""

    source: str
    size: tuple[int, int] | None
    root: Path
    split: str
    keep_size: bool
    channels: int | None = None
    background: str = "white"
    classes_from: ClassesFrom = "auto"


@dataclass(frozen=True)
class Decoded:
    """What describes decoded images; their pixels, uint8 (C, H, W) each, are in a file.

    shape   (N, C, H, W)
    labels  integers (N,), indices into `classes`, their number for no class; or None
    """

    shape: tuple[int, int, int, int]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Images that can be read.

    version  what changes when the images do, such as sizes and times of files: part of the key
             under which decoded images are cached
    decode   write the pixels to a file and return what describes them
    """

    version: list[Any]
    decode: Callable[[BinaryIO], Decoded]
