"""Sets of images on the Hugging Face hub."""

import os
import re
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from ..utils.errors import UserError, plain
from .cache import cache_folder
from .dataset import Decoded, Request, Source
from .decode import read_bytes
from .folder import decode_files
from .labels import LABEL_COLUMNS, class_name
from .listing import ImageFiles, file_versions
from .names import HUB_PREFIX

SOURCE = re.compile(r"(?P<name>.+?)(:(?P<config>[^:/\\]+))?", re.S)  # OWNER/NAME:CONFIG
NAMES_FILES = ("imagefolder",)  # builders whose paths are of files that they found themselves


def open_hub(request: Request) -> Source | None:
    """Return the source for "hf:OWNER/NAME" or "hf:OWNER/NAME:CONFIG", read by the library
    `datasets`, which downloads it.

    The first column of images is read, and one of labels: the first of class labels, or else one
    of numbers or texts that is called as in LABEL_COLUMNS.
    """
    if not request.source.startswith(HUB_PREFIX):
        return None

    def decode(out: BinaryIO) -> Decoded:
        files = list_hub(request)
        return decode_files(
            files, request.size, out, request.keep_size, request.channels, request.background
        )

    # The hub is not asked for its version: a set that was decoded can be used without a network.
    name, _ = name_of(request)
    local = name and not is_hub(request)
    here = [os.path.abspath(name), file_versions(Path(name))] if local else []
    return Source(["kept until the cache is emptied", *here], decode)


def is_hub(request: Request) -> bool:
    """Return whether the name is one on the hub, and not of a folder that `datasets` reads."""
    name, _ = name_of(request)
    return request.source.startswith(HUB_PREFIX) and not os.path.isdir(name)


def name_of(request: Request) -> tuple[str, str | None]:
    """Return OWNER/NAME, or a folder, and the configuration of it that is asked for."""
    found = SOURCE.fullmatch(request.source.removeprefix(HUB_PREFIX))
    return (os.path.expanduser(found["name"]), found["config"]) if found else ("", None)


def list_hub(request: Request) -> ImageFiles:
    """Return the images of a set on the hub, whose names are the numbers of rows."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            'images from the hub need datasets: pip install "ddpm-from-scratch[hub]"'
        ) from None
    name, config = name_of(request)
    try:
        data = datasets.load_dataset(name, config, split=request.split)
    except Exception as error:  # no network, no such set or split, a set for members only
        reason = " ".join(str(error).split()[:60]) or type(error).__name__
        if "config" in reason.lower():
            reason += f" (choose one by {HUB_PREFIX}{name}:CONFIG)"
        raise UserError(f"{name} cannot be read from the hub: {reason}") from None
    features = data.features.items()
    column = next((k for k, kind in features if isinstance(kind, datasets.Image)), None)
    if column is None:
        raise UserError(f"{name} has no column of images; it has {', '.join(data.features)}")
    rows = data.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    names = [f"{i:09}" for i in range(len(data))]
    label = label_column(data.features)
    unused = [k for k in data.features if k not in (column, label)]
    notes = [f"labels are the column {label}"] if label else []
    notes += [f"columns that are not used: {', '.join(unused)}"] if unused else []
    classes: list[str | None] = [None] * len(data)
    if label:
        known = getattr(data.features[label], "names", None)
        classes = [class_name(value) for value in data[label]]
        if known:
            classes = [None if value is None else known[int(value)] for value in classes]
    if is_hub(request):
        notes.append(
            f"read from the hub on {date.today()}, and kept: to read it anew, empty the cache, "
            f"{cache_folder()}"
        )
    local = data.info.builder_name in NAMES_FILES

    def read(name: str) -> bytes:
        file = rows[int(name)][column] or {}
        if file.get("bytes") is not None:
            return file["bytes"]
        if not file.get("path"):
            raise ValueError("there is no image in this row")
        if not local:  # a set may not have any file of this machine read
            raise ValueError("names a file, which is not read, in place of an image")
        return read_bytes(Path(file["path"]))

    labels = dict(zip(names, classes, strict=True))
    own = tuple(known or ()) if label else ()
    return ImageFiles(request.source, names, read, labels, tuple(map(plain, notes)), order=own)


def label_column(features: Any) -> str | None:
    """Return the first column of class labels, or else of numbers or texts that is called as one
    of labels; None where there is none."""
    for name, kind in features.items():
        if type(kind).__name__ == "ClassLabel":
            return name
    for known in LABEL_COLUMNS:
        for name, kind in features.items():
            plain_type = re.match(r"u?int|string|large_string|bool", getattr(kind, "dtype", ""))
            if name.lower() == known and plain_type:
                return name
    return None
