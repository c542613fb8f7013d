"""Generated images, and the forms in which they are shown and written."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..core.sampling import State
from ..utils.errors import UserError
from ..utils.files import atomic_write
from ..utils.images import grid, save_animation, to_pil, to_uint8, zoom_for
from .settings import ANIMATIONS, ENDINGS

SIGNATURE = ("Software", "ddpm")  # in each PNG of a folder
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
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    guide: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n, *shape = self.images.shape
        asked = [] if self.labels is None else sorted(set(self.labels.tolist()))
        labels = f", of {len(asked)} classes" if len(asked) > 1 else ""
        labels = f", of class {self.classes[asked[0]]!r}" if len(asked) == 1 else labels
        guide = f", guided by {self.guide}" if self.guide else ""
        return f"Samples({n:,} images of shape {tuple(shape)}{labels}{guide})"

    def _repr_png_(self) -> bytes:
        shown, file = self.images[:MAX_SHOWN], BytesIO()
        grid(shown, zoom=zoom_for(shown)).save(file, "PNG")
        return file.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the images as `path` asks for: .png is a grid, .npz an array with the labels, and a
        path without an ending, or with / at its end, a folder of single PNGs.

        What `path` names is replaced. Raises UserError for another ending, and for an animation,
        which must be recorded while images are made.
        """
        folder = Path(path)
        if not folder.suffix or str(path).endswith("/"):
            folder.mkdir(parents=True, exist_ok=True)
        write(folder, self)


class AnimationRecorder:
    """Frames of how images come out of noise; pass `take` as `on_state` to `generate`.

    Of so many `steps`, the first state and `most` of the others are kept; the last frame is always
    the images.
    """

    def __init__(self, steps: int, most: int = 50):
        self.kept = spread(steps, most)
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


def spread(steps: int, most: int) -> set[int]:
    """Return step 0 and `most` of the others, evenly up to the last of `steps`; or all of them."""
    kept = min(steps, most)
    return {round(steps * i / kept) for i in range(kept + 1)}


def write(path: Path, samples: Samples, animation: AnimationRecorder | None = None) -> None:
    """Write samples in the form that the path's ending asks for.

    .png is a grid, .gif and .webp are the animation, .npz holds the array and the labels; a folder
    that exists gets single PNGs. Raises UserError for another ending, and for an animation that was
    not recorded.
    """
    ending = path.suffix.lower()
    if path.is_dir():
        return write_folder(path, samples)
    if ending not in ENDINGS:
        raise UserError(f"cannot write {path}: end it in .png, .npz, .gif or .webp, or in /")
    if ending in ANIMATIONS and animation is None:
        raise UserError(f"cannot write {path}: no animation was recorded; end it in .png or .npz")
    zoom = zoom_for(samples.images)
    with atomic_write(path) as beside:
        if ending == ".npz":
            with beside.open("wb") as file:
                np.savez(file, **arrays(samples))  # type: ignore[arg-type]
        elif animation is not None:
            if ending == ".gif" and samples.images.shape[1] == 4:
                logger.info("a GIF holds no half-transparent pixels: laid on white (.webp does)")
            save_animation([grid(frame, zoom=zoom) for frame in animation.frames()], beside)
        else:
            grid(samples.images, zoom=zoom).save(beside)


def write_folder(folder: Path, samples: Samples) -> None:
    """Write 00000.png and so on, and delete those that a longer series of ours has left there."""
    signature = PngInfo()
    signature.add_text(*SIGNATURE)
    for i, image in enumerate(samples.images):
        with atomic_write(folder / f"{i:05}.png") as beside:
            to_pil(image).save(beside, pnginfo=signature)
    for i in count(len(samples.images)):
        if not (left := folder / f"{i:05}.png").is_file():
            break
        if is_signed(left):
            left.unlink()


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
