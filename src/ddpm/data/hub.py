"""Sets of images on the Hugging Face hub."""

from pathlib import Path
from typing import BinaryIO

from ..utils.errors import UserError, first_line
from .dataset import Decoded, Request, Source
from .decode import read_bytes
from .folder import decode_files
from .listing import ImageFiles

HUB_PREFIX = "hf:"


def open_hub(request: Request) -> Source | None:
    """Return the source for "hf:OWNER/NAME", read by the library `datasets`, which downloads it.

    The first column of images is read, and the first of class labels, if there is one.
    """
    if not request.source.startswith(HUB_PREFIX):
        return None

    def decode(out: BinaryIO) -> Decoded:
        files = list_hub(request)
        return decode_files(
            files, request.size, out, request.keep_size, request.channels, request.background
        )

    # The hub is not asked for its version: a set that was decoded can be used without a network.
    return Source(["kept until the cache is emptied"], decode)


def list_hub(request: Request) -> ImageFiles:
    """Return the images of a set on the hub as files CLASS/NUMBER, or NUMBER without classes."""
    name = request.source.removeprefix(HUB_PREFIX)
    try:
        import datasets
    except ImportError:
        raise UserError(
            "images from the hub need datasets: pip install 'ddpm-from-scratch[hub]'"
        ) from None
    try:
        data = datasets.load_dataset(name, split=request.split)
    except Exception as error:  # no network, no such set or split, a set for members only
        raise UserError(f"{name} cannot be read from the hub: {first_line(error)}") from None
    features = data.features.items()
    column = next((k for k, kind in features if isinstance(kind, datasets.Image)), None)
    label = next((k for k, kind in features if isinstance(kind, datasets.ClassLabel)), None)
    if column is None:
        raise UserError(f"{name} has no column of images; it has {', '.join(data.features)}")
    data = data.cast_column(column, datasets.Image(decode=False))
    names = [f"{i:09}" for i in range(len(data))]
    if label is not None:
        classes = [text.replace("/", "-") for text in data.features[label].names]
        names = [f"{classes[y]}/{number}" for y, number in zip(data[label], names, strict=True)]

    def read(name: str) -> bytes:
        file = data[int(Path(name).name)][column]
        return file["bytes"] if file["bytes"] is not None else read_bytes(Path(file["path"]))

    return ImageFiles(request.source, names, read)
