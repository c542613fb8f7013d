"""Sets of images from the Hugging Face hub, by its own library: `--data hf:OWNER/NAME`."""

from collections.abc import Callable
from pathlib import Path

from ..utils.errors import UserError
from .decode import first_line
from .folder import ImageDataset, read_files

PREFIX = "hf:"


def read_hub(
    source: str, size: tuple[int, int] | None, split: str = "train", keep: Path | None = None
) -> ImageDataset:
    """The images of "hf:OWNER/NAME", downloaded to where that library keeps them; the first column
    of class labels, where there is one, gives the classes.

    Raises UserError where the library is missing, or the set, or images in it.
    """
    names, read = list_hub(source.removeprefix(PREFIX), split)
    return read_files(Path(source), names, read, size, keep)


def list_hub(name: str, split: str) -> tuple[list[str], Callable[[str], bytes]]:
    """Names CLASS/NUMBER, or NUMBER, and how to read the file of one."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            "images from the hub need datasets: pip install 'ddpm-from-scratch[hub]'"
        ) from None
    try:
        data = datasets.load_dataset(name, split=split)
    except Exception as error:  # no network, no such set, a set for members only, no such split
        raise UserError(f"{name} could not be had from the hub: {first_line(error)}") from None
    kinds = data.features.items()
    column = next((k for k, kind in kinds if isinstance(kind, datasets.Image)), None)
    label = next((k for k, kind in kinds if isinstance(kind, datasets.ClassLabel)), None)
    if column is None:
        raise UserError(f"{name} has no column of images; it has {', '.join(data.features)}")
    data = data.cast_column(column, datasets.Image(decode=False))
    places = [f"{i:09}" for i in range(len(data))]
    if label is not None:
        classes = [text.replace("/", "-") for text in data.features[label].names]
        places = [f"{classes[y]}/{place}" for y, place in zip(data[label], places, strict=True)]

    def read(place: str) -> bytes:
        file = data[int(Path(place).name)][column]
        return file["bytes"] if file["bytes"] is not None else Path(file["path"]).read_bytes()

    return places, read
