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
from ..utils.errors import UserError, counted, printable
from .arrays import array_images, in_memory
from .labels import index_labels
from .values import Scale


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
    scale        the numbers that are black and white, where they had more than 8 bits and no
                 format that says so; else None
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    source: str
    fingerprint: str = ""
    notes: tuple[str, ...] = ()
    scale: Scale | None = None

    def __post_init__(self) -> None:  # as a checkpoint will have them
        object.__setattr__(self, "classes", tuple(map(printable, self.classes)))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n, c, h, w = self.images.shape
        classes = f", {counted(len(self.classes), 'class', 'classes')}" if self.classes else ""
        return f"ImageDataset({self.source!r}: {counted(n, 'image')} of {c}x{h}x{w}{classes})"

    @property
    def info(self) -> DataInfo:
        """What a checkpoint records of the data."""
        n, c, h, w = self.images.shape
        return DataInfo(self.source, n, c, h, w, self.classes, self.fingerprint, self.scale)

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

        images   uint8, or numbers in `arrays.RANGES`, of shape (N, H, W), (N, H, W, C) or
                 (N, C, H, W), with C from 1 to 4
        labels   integers or names (N,) or (N, 1), or one-hot: indices into `classes`, or without
                 `classes` their own names; −1 is no class
        classes  names of the classes

        Raise UserError for arrays of another type or shape, and for labels that do not fit.
        """
        found = array_images(in_memory(as_numpy(images)))
        x = torch.empty(found.shape, dtype=torch.uint8)
        start = 0
        for part in found.parts():
            x[start : (start := start + len(part))] = torch.from_numpy(part)
        if classes and labels is None:
            raise UserError("classes need labels: give the label of each image")
        values = None if labels is None else as_numpy(labels)
        indices, names, notes = index_labels(values, len(x), tuple(map(str, classes)))
        y = None if indices is None else torch.from_numpy(indices.astype(np.int64))
        notes = [*found.notes, *notes]
        return cls(x, y, names, source, fingerprint(x, y, names), tuple(notes), found.scale)


def as_numpy(array: Any) -> np.ndarray:
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        return (array.float() if array.is_floating_point() else array).numpy()
    return np.asarray(array)


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
    scale   as in ImageDataset
    incomplete  whether what is missing may be there the next time: it is not cached as it is
    """

    shape: tuple[int, int, int, int]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scale: Scale | None = None
    incomplete: bool = False


@dataclass(frozen=True)
class Source:
    """Images that can be read.

    version  what changes when the images do, such as sizes and times of files: part of the key
             under which decoded images are cached
    decode   write the pixels to a file and return what describes them
    """

    version: list[Any]
    decode: Callable[[BinaryIO], Decoded]
