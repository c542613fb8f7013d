"""The real images that samples are compared with, and their features, which are cached."""

import hashlib
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from ..config import ClassesFrom
from ..data.cache import cache_folder
from ..data.dataset import ImageDataset, fingerprint
from ..data.load import load_images
from ..data.names import HUB_PREFIX
from ..data.sources import has_test
from ..utils.distributed import SINGLE_PROCESS, Processes
from ..utils.errors import UserError, counted
from ..utils.files import atomic_write, make_folder
from ..utils.images import flatten_alpha
from .features import (
    FeatureExtractor,
    FeatureStats,
    Progress,
    extract,
    feature_file,
    load_feature_extractor,
    map_features,
)
from .metrics import Moments, frechet_distance
from .report import Protocol

FEATURES_VERSION = 2  # raised when features are computed in another way, so that caches are renewed
MIN_FOR_INCEPTION = 10  # samples: the Inception score is of ten parts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Reference:
    """Real images, and the feature extractor that compares samples with them.

    images    the real images
    split     "train" or "test", of a set that has splits; else ""
    held_out  other real images, whose distance is the floor; None: part of `images` against the
              rest of them
    training  the training images: of a set that has splits the training split, else `images`
    unseen    images that are not among `training`, or None
    """

    images: ImageDataset
    split: str
    held_out: ImageDataset | None
    training: ImageDataset
    unseen: ImageDataset | None
    extractor: FeatureExtractor

    @property
    def floor_images(self) -> ImageDataset:
        """The images some of which make the floor."""
        return self.images if self.held_out is None else self.held_out


def load_reference(
    source: str | Path | ImageDataset | np.ndarray | Tensor = "mnist",
    *,
    root: str | Path = "data",
    split: str | None = None,
    held_out: str | Path | ImageDataset | np.ndarray | Tensor | None = None,
    size: tuple[int, ...] = (),
    features: str | None = None,
    device: torch.device | str = "cpu",
    channels: int | None = None,
    background: str = "white",
    classes_from: ClassesFrom = "auto",
) -> Reference:
    """Return real images to compare samples with, and the network that compares them.

    source    a named set, a folder, a zip, an npz, or images, such as an array of uint8; `root`
              has the named sets
    split     of a named set: "train", the default, or "test"; the other one makes the floor
    held_out  other real images, for the floor; of a named set its test split
    size      crop and resize real images to it; () keeps images of one size as they are
    features  a name or a file, see `load_feature_extractor`; None: what suits the images
    channels, background, classes_from  as in `load_images`

    Raise UserError where the images or the network are not available or do not fit together.
    """
    if isinstance(source, np.ndarray | Tensor):
        source = ImageDataset.from_array(source)
    if size and isinstance(source, ImageDataset):
        raise UserError("images in memory are compared at their own size: leave out size")
    if isinstance(held_out, np.ndarray | Tensor):
        held_out = ImageDataset.from_array(held_out)
    named, hub = has_test(source), str(source).startswith(HUB_PREFIX)
    if split and not (named or hub):
        raise UserError(f"--split is for named sets, and {source} is not one: leave it out")
    split = split or "train"
    other_split = "test" if split == "train" else "train"

    def read(what: str | Path | ImageDataset, split: str) -> ImageDataset:
        if not isinstance(what, ImageDataset):
            what = load_images(
                what, size, root, split, channels=channels, background=background,
                classes_from=classes_from,
            )  # fmt: skip
        if (images := flatten_alpha(what.images, background)) is not what.images:
            what = replace(what, images=images, fingerprint="")
        return what if what.fingerprint else with_fingerprint(what)  # the key of the cache

    real, others = read(source, split), None
    if held_out is not None:
        others = read(held_out, "test" if has_test(held_out) else "train")
    elif named:
        others = read(source, other_split)
    of_floor = held_out or f"the {other_split} split of {source}"
    training, unseen = real, others
    if (named or hub) and split == "test":
        training, unseen = read(source, "train"), real
    if len(real) < 4:
        raise UserError(
            f"{source} has only {counted(len(real), 'image')}: a distance needs thousands"
        )
    if others is not None and len(others) < 2:
        raise UserError(f"{of_floor} has only one image: a floor needs two, and thousands")
    if others is not None and others.fingerprint == real.fingerprint:
        raise UserError(f"{of_floor} has the same images as {source}, so none is held out")
    for images in (real,) if others is None else (real, others):
        for note in images.notes:
            logger.info("%s: %s", images.source, note)
    shape = tuple(real.images.shape[1:])
    reference = Reference(
        real, split if named or hub else "", others, training, unseen,
        extractor=load_feature_extractor(features, shape, device),
    )  # fmt: skip
    check_shape(reference, shape, "the reference's")
    if others is not None:
        check_shape(reference, tuple(others.images.shape[1:]), "the held-out")
    return reference


def note_other_classes(reference: Reference) -> None:
    """Log a note where the features that were chosen for images were learned of other classes."""
    images, extractor = reference.images, reference.extractor
    known = extractor.classes
    if known and images.classes and not set(images.classes) <= set(known):
        logger.info(
            f"these images are compared in the features of {extractor.name}, which learned "
            f"{', '.join(known)}: name others by --features"
        )


def with_fingerprint(images: ImageDataset) -> ImageDataset:
    return replace(images, fingerprint=fingerprint(images.images, images.labels, images.classes))


def check_shape(reference: Reference, shape: tuple[int, ...], whose: str) -> None:
    """Raise UserError for images (C, H, W) that the feature network does not take, or of another
    size than the real ones."""
    c, h, w = shape
    extractor = reference.extractor
    wanted = extractor.shape
    if wanted and shape != wanted:
        raise UserError(
            f"{extractor.name} takes images of {wanted[2]}x{wanted[1]} in "
            f"{counted(wanted[0], 'channel')}, and {whose} are {w}x{h} in {c}"
        )
    H, W = reference.images.images.shape[2:]
    if (h, w) != (H, W) or c not in (1, 3):
        side = f"{h}" if h == w else f"{h} {w}"
        remedy = f" (--size {side} brings the real ones to theirs)" * ((h, w) != (H, W))
        raise UserError(
            f"{whose} images are {w}x{h} in {counted(c, 'channel')}, and the reference's {W}x{H}: "
            f"only images of one size, gray or RGB, can be compared{remedy}"
        )


def make_protocol(reference: Reference, n: int, sampling: dict[str, Any]) -> Protocol:
    """Return what a score of n samples made in this way depends on. Raise UserError where n are too
    few."""
    extractor, held_out = reference.extractor, reference.held_out
    least = MIN_FOR_INCEPTION if extractor.is_inception else 2
    if n < least:
        raise UserError(f"too few samples, {n}: {extractor.name} needs {least} at least")
    return Protocol(
        n, f"{extractor.name} {extractor.hash}", title(reference.images, reference.split),
        sampling, None if held_out is None else title(held_out),
    )  # fmt: skip


def title(images: ImageDataset, split: str = "") -> str:
    """Return which images these are: source, split and fingerprint."""
    return " ".join(word for word in (images.source, split, images.fingerprint[:16]) if word)


# ---- features of real images -----------------------------------------------------------------


def reference_stats(
    reference: Reference, processes: Processes = SINGLE_PROCESS, progress: Progress | None = None
) -> FeatureStats:
    """Return the features of the real images, from the cache or computed and cached; those of
    Inception one by one too."""
    images, each = reference.images, reference.extractor.is_inception
    path = cache_file(reference, images)
    moments, mapped = read_moments(path), None
    if each:
        with suppress(OSError, ValueError):  # missing or truncated
            mapped = map_features(features_of(path), len(images))
    found = moments is not None and (mapped is not None or not each)
    if processes.all(found) and moments is not None:
        return FeatureStats(moments, mapped)
    mapped = None  # Windows replaces no mapped file

    def compute(file: Any = None) -> FeatureStats:
        return extract(
            reference.extractor, images.images, "real images", file=file, processes=processes,
            progress=progress,
        )  # fmt: skip

    if each and processes.is_main:
        make_folder(path.parent)
        with atomic_write(features_of(path)) as beside, feature_file(beside) as file:
            moments = compute(file).moments  # and not the map: Windows renames no mapped file
        stats = FeatureStats(moments, map_features(features_of(path), len(images)))
    elif each:
        with feature_file() as file:
            stats = compute(file)
    else:
        stats = compute()
    if processes.is_main:
        write_moments(path, stats.moments)
    return stats


def floor(
    reference: Reference,
    n: int,
    stats: FeatureStats,
    processes: Processes = SINGLE_PROCESS,
    progress: Progress | None = None,
) -> tuple[float, int]:
    """Return the distance of other real images from the reference, whose `stats` these are, and
    their number: n where there are as many."""
    part, rest = floor_moments(reference, n, processes, progress), stats.moments
    if reference.held_out is None:
        rest = rest - part
    return frechet_distance(part.gaussian(), rest.gaussian()), part.n


def floor_moments(
    reference: Reference,
    n: int,
    processes: Processes = SINGLE_PROCESS,
    progress: Progress | None = None,
) -> Moments:
    """Return the moments of the images that make the floor, from the cache or computed and
    cached."""
    images, n = reference.floor_images, floor_size(reference, n)
    path = cache_file(reference, images, n)
    known = read_moments(path)
    if processes.all(known is not None) and known is not None:
        return known
    part = extract(
        reference.extractor, images.images[subset(images, n)], "images for the floor",
        processes=processes, progress=progress,
    ).moments  # fmt: skip
    if processes.is_main:
        write_moments(path, part)
    return part


def floor_size(reference: Reference, n: int) -> int:
    """Return how many images make the floor of n samples."""
    if reference.held_out is None:
        return min(n, len(reference.images) // 2)
    return min(n, len(reference.held_out))


def subset(images: ImageDataset, n: int) -> Tensor:
    """Return the indices of n of these real images, each class as frequent as in all; drawn at
    random, and always the same: the order of a set tells of its making, as the first half of
    MNIST's test digits is of other writers."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    n = min(n, len(images))
    if images.labels is not None:
        order = order[images.labels[order].argsort(stable=True)]
    return order[torch.arange(n) * len(images) // n]


def missing_features(reference: Reference, n: int) -> int:
    """Return how many real images a score of n samples needs whose features are not cached."""
    path, size = cache_file(reference, reference.images), floor_size(reference, n)
    files = [path, features_of(path)] if reference.extractor.is_inception else [path]
    missing = 0 if all(file.exists() for file in files) else len(reference.images)
    if not cache_file(reference, reference.floor_images, size).exists():
        missing += size
    return missing


def extraction_seconds(reference: Reference, n: int) -> float:
    """Estimate the time to extract all features for a score of n samples, by timing a few."""
    few, extractor = reference.images.images[:32], reference.extractor
    extractor(few)
    start = time.perf_counter()
    extractor(few)
    each = (time.perf_counter() - start) / len(few)
    return each * (n + missing_features(reference, n))


# ---- the cache -------------------------------------------------------------------------------


def cache_file(reference: Reference, images: ImageDataset, n: int | None = None) -> Path:
    """Return the cache's file for the moments of these images, or of n of them for a floor."""
    extractor = reference.extractor
    of_what = f"{FEATURES_VERSION} {extractor.hash} {images.fingerprint} {extractor.device.type}"
    if n is not None:
        of_what += f" {n} drawn"
    key = hashlib.sha256(of_what.encode()).hexdigest()[:24]
    return cache_folder() / f"{'reference' if n is None else 'floor'}-{key}.safetensors"


def features_of(path: Path) -> Path:
    """Return the file for single features, beside that of their moments."""
    return path.with_suffix(".features")


def read_moments(path: Path) -> Moments | None:
    """Return what `write_moments` wrote; None where it is missing or damaged."""
    try:
        known = load_file(path)
        return Moments(int(known["n"]), known["sum"], known["outer"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def write_moments(path: Path, moments: Moments) -> None:
    """Write the moments to the cache; without room there, they are computed again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as beside:
            save_file(
                {"n": np.array(moments.n), "sum": moments.sum, "outer": moments.outer}, beside
            )
    except (OSError, SafetensorError) as error:
        logger.warning("%s could not be written: %s", path, error)
