"""Generated images, and the forms in which they are shown and written."""

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..core.sampling import State
from ..utils.errors import UserError, counted
from ..utils.files import atomic_write, make_folder, read_text
from ..utils.images import columns_for, composite, grid, save_animation, to_pil, to_uint8, zoom_for
from .settings import ANIMATIONS, ENDINGS

SIGNATURE = ("Software", "ddpm")  # in each PNG
MANIFEST, MAX_MANIFEST = "manifest.json", 100_000_000  # bytes
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)  # on Windows
OURS = re.compile(r"(\w[^/\\]*/)?\d{5,}\.png")  # names of images in a folder's manifest
JPEG = {"quality": 95, "subsampling": 0}
LARGEST = {".webp": 16_383, ".gif": 65_535, ".jpg": 65_500, ".jpeg": 65_500}  # pixels a side
MAX_SHOWN = 64  # images of a picture in a notebook

logger = logging.getLogger(__name__)

OnState = Callable[[State], None]
"""Called with every state of every batch, as it is reached."""


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Generated images. A notebook shows the first of them as a picture.

    images   uint8 (N, C, H, W), on the CPU
    labels   int64 (N,), places in `classes`; None where no class was asked for
    classes  names of the classes that the network knows
    guide    hash of the weights of the guiding network, None where there was none
    columns  of a grid of them; None for as many as suit their number and classes
    metadata how they were made, in words and numbers that JSON has: seed, settings, weights …
    background  what is transparent is laid on where a file can hold no transparency
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    guide: str | None = None
    columns: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    background: str = "white"

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n, *shape = self.images.shape
        asked = [] if self.labels is None else sorted(set(self.labels.tolist()))
        labels = f", of {len(asked)} classes" if len(asked) > 1 else ""
        labels = f", of class {self.classes[asked[0]]!r}" if len(asked) == 1 else labels
        guide = f", guided by {self.guide}" if self.guide else ""
        return f"Samples({counted(n, 'image')} of shape {tuple(shape)}{labels}{guide})"

    def _repr_png_(self) -> bytes:
        shown, file = self.images[:MAX_SHOWN], BytesIO()
        grid(shown, self.in_columns(len(shown)), zoom=zoom_for(shown)).save(file, "PNG")
        return file.getvalue()

    def in_columns(self, n: int | None = None) -> int:
        """Return the columns of a grid of the first n of the images, or of all."""
        asked = 1 if self.labels is None else len(self.labels.unique())
        return self.columns or columns_for(n or len(self), asked)

    def name(self, i: int) -> str | None:
        """Return the class that image i was asked of, None where there was none."""
        return None if self.labels is None else self.classes[int(self.labels[i])]

    def save(self, path: str | Path) -> None:
        """Write the images as `path` asks for: .png and .jpg are a grid, .npz an array with the
        labels, and a path without an ending, or with / at its end, a folder of single PNGs, in a
        folder for each class, with a manifest.json of how they were made.

        What `path` names is replaced, but in a folder no image of another program's. Raise
        UserError there, for another ending, and for an animation, which must be recorded while
        images are made.
        """
        folder = Path(path)
        if not folder.suffix or str(path).endswith(("/", os.sep)):
            folder.mkdir(parents=True, exist_ok=True)
        write(folder, self)


class AnimationRecorder:
    """Frames of how images come out of noise; pass `take` as `on_state` to `generate`.

    Of so many `steps`, the first state and `most` of the others are kept; the last frame is always
    the images.
    """

    def __init__(self, steps: int, most: int = 50):
        self.kept = evenly_spaced(steps, most)
        self.batches: list[list[Tensor]] = []
        self.seen = 0

    def take(self, state: State) -> None:
        if state.x0 is None:
            self.batches.append([])
            self.seen = 0
        if self.seen in self.kept or state.t == 0:
            self.batches[-1].append(to_uint8(state.x).cpu())
        self.seen += 1

    def frames(self) -> list[Tensor]:
        """Return the frames, each uint8 (N, C, H, W), over all batches."""
        return [torch.cat(frame) for frame in zip(*self.batches, strict=True)]


def evenly_spaced(steps: int, most: int) -> set[int]:
    """Return step 0 and `most` of the others, evenly up to the last of `steps`; or all of them."""
    kept = min(steps, most)
    return {round(steps * i / kept) for i in range(kept + 1)}


def write(path: Path, samples: Samples, animation: AnimationRecorder | None = None) -> None:
    """Write samples in the form that the path's ending asks for.

    .png and .jpg are a grid, .gif and .webp the animation, .npz holds the array and the labels; a
    folder that exists gets single PNGs. Raise UserError for another ending, and for an animation
    that was not recorded.
    """
    ending = path.suffix.lower()
    if path.is_dir():
        return write_folder(path, samples)
    if ending not in ENDINGS:
        raise UserError(
            f"cannot write {path}: end it in {', '.join(ENDINGS)}, or in / for a folder"
        )
    if ending in ANIMATIONS and animation is None:
        raise UserError(f"cannot write {path}: no animation was recorded; end it in .png or .npz")
    columns, zoom = samples.in_columns(), zoom_for(samples.images)
    transparent = samples.images.shape[1] == 4
    with atomic_write(path) as beside:
        if ending == ".npz":
            with beside.open("wb") as file:
                np.savez(file, **arrays(samples))  # type: ignore[arg-type]
        elif animation is not None:
            if ending == ".gif" and transparent:
                logger.info("a GIF holds no half-transparent pixels: laid on white (.webp does)")
            frames = [grid(frame, columns, zoom=zoom) for frame in animation.frames()]
            save_animation(frames, beside)
        elif ending == ".png":
            grid(samples.images, columns, zoom=zoom).save(beside, pnginfo=png_text(samples))
        else:
            images = (
                composite(samples.images, samples.background) if transparent else samples.images
            )
            sheet, text = grid(images, columns, zoom=zoom), json.dumps(about(samples))
            sheet.save(beside, "JPEG", comment=text, **JPEG)


def about(samples: Samples) -> dict[str, Any]:
    """Return how the samples were made and laid out, as the files say it of themselves."""
    columns = samples.in_columns()
    return {**samples.metadata, "images": len(samples), "columns": columns}


def png_text(samples: Samples, i: int | None = None) -> PngInfo:
    """Return the texts of a PNG: whose it is, and how it was made, as JSON under "ddpm": all images
    as a grid, or image i alone."""
    text = PngInfo()
    text.add_text(*SIGNATURE)
    alone = {} if i is None else {**samples.metadata, "number": i, "label": samples.name(i)}
    text.add_text("ddpm", json.dumps(alone or about(samples)))
    return text


def write_folder(folder: Path, samples: Samples) -> None:
    """Write 00000.png and so on, in a folder for each class, and a manifest; delete those that the
    manifest of an earlier series names."""
    check_folder(folder, len(samples), samples.classes)
    before, names, files, new = manifest_files(folder), folder_names(samples.classes), [], set()
    for i, image in enumerate(samples.images):
        of_class = "" if samples.labels is None else names[int(samples.labels[i])]
        file = folder / of_class / f"{i:05}.png"
        make_folder(file.parent)
        with atomic_write(file) as beside:
            to_pil(image).save(beside, pnginfo=png_text(samples, i))
        files.append({"file": file.relative_to(folder).as_posix(), "label": samples.name(i)})
        # Where Cat/ and cat/ are one folder, a new file has an old name too.
        new |= {file.stat().st_ino} - {0}
    for left in {folder / name for name in before} - {folder / str(f["file"]) for f in files}:
        if left.is_file() and left.stat().st_ino not in new and is_signed(left):
            left.unlink()
            with suppress(OSError):  # of others' files
                left.parent.rmdir()
    with atomic_write(folder / MANIFEST) as beside:
        beside.write_text(json.dumps({**samples.metadata, "images": files}, indent=1) + "\n")


def check_grid(path: Path, n: int, shape: tuple[int, ...], columns: int | None = None) -> None:
    """Raise UserError where a grid of n images (C, H, W) is larger than the format can be."""
    if (most := LARGEST.get(path.suffix.lower())) is None:
        return
    zoom, columns = zoom_for(torch.empty(shape)), columns or columns_for(n)
    side = max(columns * (zoom * shape[2] + 2), -(-n // columns) * (zoom * shape[1] + 2))
    if side > most:
        raise UserError(
            f"{path} would be {side:,} pixels wide or high, and {path.suffix[1:]} has {most:,} at "
            f"most: ask for fewer images, or for a folder"
        )


def check_folder(folder: Path, n: int, classes: tuple[str, ...]) -> None:
    """Raise UserError where n images, of any of the classes or of none, would replace a file of
    another program's in a folder."""
    for of_class in ("", *folder_names(classes)):
        for path in (folder / of_class).glob("[0-9]*.png"):
            ours = OURS.fullmatch(path.name) and int(path.stem) < n
            if ours and path.is_file() and not is_signed(path):
                raise UserError(f"{path} is not one of ours: give another --out")


def folder_names(classes: tuple[str, ...]) -> list[str]:
    """Return a folder's name for each class, by which training knows it again; with its number,
    where two would have the same, or Windows reserves one for a device."""
    names = [re.sub(r"[^\w .+-]|^[ .+-]|[ .]$", "_", name[:100]) or "_" for name in classes]
    alike = len({name.casefold() for name in names}) < len(names)
    if alike or any(RESERVED.fullmatch(name) for name in names):
        names = [f"{i}-{name}" for i, name in enumerate(names)]
    return names


def manifest_files(folder: Path) -> list[str]:
    """Return the images that a folder's manifest names, of those that it can name."""
    try:
        images = json.loads(read_text(folder / MANIFEST, MAX_MANIFEST))["images"]
        return [image["file"] for image in images if OURS.fullmatch(image["file"])]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def is_signed(path: Path) -> bool:
    """Return whether a PNG begins as those that `write_folder` writes."""
    with path.open("rb") as file:
        return "\0".join(SIGNATURE).encode() in file.read(100)


def arrays(samples: Samples) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz: `arr_0`, images (N, H, W, C), and labels in `arr_1`: the
    classes' names where these are numbers, else their places in `classes`, which is added."""
    found = {"arr_0": samples.images.permute(0, 2, 3, 1).contiguous().numpy()}
    if samples.labels is not None:
        numbers = all(name.isdecimal() for name in samples.classes)
        values = [int(name) if numbers else i for i, name in enumerate(samples.classes)]
        found["arr_1"] = np.array(values)[samples.labels.numpy()]
        if not numbers:
            found["classes"] = np.array(samples.classes)
    return found
