"""The cache of decoded images: each set is decoded once, and then memory-mapped from there.

A set is two files: NAME.images, the pixels, and NAME.safetensors, the labels and a description with
a checksum. Whatever is missing, damaged or out of date is decoded again.
"""

import hashlib
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..utils.errors import UserError
from ..utils.files import atomic_write
from .channels import fit_channels
from .dataset import ImageDataset, Source, fingerprint
from .values import Scale


def cache_folder() -> Path:
    """Return the folder for all that is cached: DDPM_CACHE, or the user's own for caches. Raise
    UserError for a user without a home folder."""
    try:
        folder = os.environ.get("DDPM_CACHE") or platformdirs.user_cache_dir("ddpm", False)
        return Path(folder).expanduser()
    except RuntimeError:
        raise UserError(
            "decoded images cannot be written to a cache (there is no home folder): set DDPM_CACHE "
            "to a folder that can be written"
        ) from None


def cache_path(source: str, *key: object) -> Path:
    """Return where the images of a source are cached, for one key of all that decides them."""
    digest = hashlib.sha256(repr(key).encode()).hexdigest()
    name = re.sub(r'[<>:"|?*\\\x00-\x1f]', "_", Path(source).stem[:40])  # which Windows forbids
    return cache_folder() / f"{name}-{digest[:24]}.safetensors"


def write_cache(
    path: Path, source: Source, name: str, channels: int | None = None, background: str = "white"
) -> ImageDataset:
    """Decode a source into the cache, bring the images to so many channels, and return them as they
    lie there.

    Raise UserError where the cache cannot be written.
    """
    pixels = path.with_suffix(".images")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(pixels) as partial:
            with partial.open("wb") as out:
                decoded = source.decode(out)
            decoded = fit_channels(partial, decoded, channels, background)
        images = map_images(pixels, decoded.shape)
        labels = None
        if decoded.labels is not None:
            labels = torch.from_numpy(decoded.labels.astype(np.int64))
        digest = fingerprint(images, labels, decoded.classes)
        dataset = ImageDataset(
            images, labels, decoded.classes, name, digest, decoded.notes, decoded.scale
        )
        if decoded.incomplete and os.environ.get("WORLD_SIZE", "1") == "1":  # others read it here
            path.unlink(missing_ok=True)
            return dataset
        with atomic_write(path) as partial:
            save_file(
                {} if labels is None else {"labels": labels}, partial,
                metadata={"about": describe(dataset)},
            )  # fmt: skip
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"decoded images cannot be written to {path.parent} ({reason}): free some space "
            f"there, or set DDPM_CACHE to a folder that can be written"
        ) from None
    return dataset


def read_cache(path: Path) -> ImageDataset | None:
    """Return the images that are cached there; None where they are missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            known, about = file.metadata()["about"].split(" ", 1)
            labels = file.get_tensor("labels") if "labels" in file.keys() else None  # noqa: SIM118
        if known != checksum(about, labels):
            return None
        classes, source, digest, notes, scale, shape = json.loads(about)
        pixels = path.with_suffix(".images")
        if pixels.stat().st_size != math.prod(shape):
            return None
        images = map_images(pixels, tuple(shape))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    known_scale = Scale(*scale) if scale else None
    return ImageDataset(images, labels, tuple(classes), source, digest, tuple(notes), known_scale)


def map_images(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Return the images in a file, uint8 of that shape, read from disk as they are used; writing
    to them changes a copy. Raise ValueError where the file is too short."""
    return torch.from_numpy(np.memmap(path, np.uint8, "c", shape=shape))


def describe(data: ImageDataset) -> str:
    """Return all but the pixels and labels as JSON, after a checksum of it and the labels."""
    table = [
        data.classes, data.source, data.fingerprint, data.notes, data.scale, data.images.shape
    ]  # fmt: skip
    about = json.dumps(table)
    return f"{checksum(about, data.labels)} {about}"


def checksum(about: str, labels: Tensor | None) -> str:
    sha = hashlib.sha256(about.encode())
    if labels is not None:
        sha.update(repr((labels.dtype, tuple(labels.shape))).encode())
        sha.update(labels.numpy().tobytes())
    return sha.hexdigest()
