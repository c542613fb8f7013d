"""The real images that samples are held against, and the feature network that compares them."""

import hashlib
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ..data.cache import cache_folder
from ..data.dataset import ImageDataset
from ..data.load import load_images
from ..data.sources import HUB_PREFIX, SETS_WITH_TEST
from ..generation.generate import Samples
from ..utils.distributed import ALONE, Processes
from ..utils.errors import UserError
from ..utils.files import atomic_write
from .features import load_feature_extractor
from .metrics import Moments, frechet_distance
from .report import Protocol, Report

PART = 250  # images that pass through a feature network at once
FEATURES_VERSION = 2  # raised when features are computed in another way: what is kept is seen anew
SUBSETS = 100  # of features, whose kernel distances are averaged
MIN_FOR_INCEPTION = 10  # samples: its score is of ten parts


class Reference:
    """A feature network beside the real images that it is to hold samples against.

    source    a named set, a folder, a zip or an npz; `root` has the named ones
    split     of a named set: samples are held against it, the other one makes the floor
    held_out  other real images, for the floor; of a named set its test split
    size      real images are cropped and resized to it; () keeps images of one size as they are
    features  a name or a file, see `load_feature_extractor`; None for what suits the images
    processes that share the work, and a cache; each of them knows all in the end

    Of a named set `training` is the training split and `unseen` the other one, whatever `split` is;
    else they are the real images and those that are held out, None where there are none.
    Raises UserError where the images or the network cannot be had.
    """

    def __init__(
        self,
        source: str | Path = "mnist",
        *,
        root: str | Path = "data",
        split: str = "train",
        held_out: str | Path | None = None,
        size: tuple[int, ...] = (),
        features: str | None = None,
        device: torch.device | str = "cpu",
        processes: Processes = ALONE,
    ):
        self.device, self.processes = torch.device(device), processes
        named, hub = str(source) in SETS_WITH_TEST, str(source).startswith(HUB_PREFIX)

        def read(what: str | Path, split: str) -> ImageDataset:
            return load_images(what, size, root, split)

        # Those of a named set are shuffled; a folder's lie class by class.
        self.shuffled = named if held_out is None else str(held_out) in SETS_WITH_TEST
        self.real = self.training = read(source, split)
        self.held_out: ImageDataset | None = None
        self.unseen: ImageDataset | None
        if held_out is not None:
            self.held_out = read(held_out, "test" if str(held_out) in SETS_WITH_TEST else "train")
        elif named:
            self.held_out = read(source, "test" if split == "train" else "train")
        if (named or hub) and split == "test":
            self.training, self.unseen = read(source, "train"), self.real
        else:
            self.unseen = self.held_out
        if len(self.real) < 4:
            raise UserError(
                f"{source} has only {len(self.real)} images: a distance needs thousands"
            )
        if self.held_out is not None and len(self.held_out) < 2:
            raise UserError(f"{held_out} has only one image: a floor needs two, and thousands")
        if self.held_out is not None and self.held_out.fingerprint == self.real.fingerprint:
            raise UserError(f"{held_out} holds the very images of {source}: none is held out")
        shape = tuple(self.real.images.shape[1:])
        self.extractor = load_feature_extractor(features, shape, self.device)
        self.split = split if named or hub else ""
        self.check(shape, "the reference's")
        if self.held_out is not None:
            self.check(tuple(self.held_out.images.shape[1:]), "the held-out")
        self.spare = self.real if self.held_out is None else self.held_out  # they make the floor
        self.floors: dict[int, tuple[float, int]] = {}

    def protocol(self, n: int, sampling: dict[str, Any]) -> Protocol:
        """What a score of n samples, made in this way, would depend on. Raises UserError where n
        are too few for it."""
        least = MIN_FOR_INCEPTION if self.extractor.name == "inception" else 2
        if n < least:
            raise UserError(f"too few samples, {n}: {self.extractor.name} needs {least} at least")
        held = None if self.held_out is None else title(self.held_out)
        features = f"{self.extractor.name} {self.extractor.hash}"
        return Protocol(n, features, title(self.real, self.split), sampling, held)

    def score(self, samples: Samples, sampling: dict[str, Any]) -> Report:
        """Report images that were made, with the settings they were made by."""
        n = len(samples.images)
        protocol = self.protocol(n, sampling)
        self.check(tuple(samples.images.shape[1:]), "the samples'")
        inception = self.extractor.name == "inception"
        made = self.extract(samples.images, "samples", keep=inception, logits=True)
        d = len(made.moments.sum)
        if n <= d and self.processes.is_main:
            print(
                f"note: {n:,} samples are few for {d:,} features: the distance is mostly the error "
                f"of so small a number, so hold it against the floor alone",
                file=sys.stderr,
            )
        distance = frechet_distance(made.moments.gaussian(), self.stats.moments.gaussian())
        floor, floor_n = self.floor(n)
        asked = self.as_asked(samples, made.logits)
        return Report(distance, floor, floor_n, asked, protocol, **self.more(made))

    def check(self, shape: tuple[int, ...], whose: str) -> None:
        """Raises UserError for images (C, H, W) that the feature network does not take, or of
        another size than the real ones."""
        c, h, w = shape
        wanted = self.extractor.shape
        if wanted and shape != wanted:
            raise UserError(
                f"{self.extractor.name} sees images of {wanted[2]}x{wanted[1]} in {wanted[0]} "
                f"channel{'s' * (wanted[0] > 1)}, and {whose} are {w}x{h} in {c}"
            )
        H, W = self.real.images.shape[2:]
        if (h, w) != (H, W) or c not in (1, 3):
            raise UserError(
                f"{whose} images are {w}x{h} in {c} channels, and the reference's {W}x{H}: "
                f"only images of one size, gray or RGB, can be held against one another"
            )

    def floor(self, n: int) -> tuple[float, int]:
        """The distance of real images, and of how many: n where there are as many to spare."""
        if n not in self.floors:
            part, rest = self.floor_part(n), self.stats.moments
            if self.held_out is None:
                rest = rest - part
            self.floors[n] = frechet_distance(part.gaussian(), rest.gaussian()), part.n
        return self.floors[n]

    def floor_part(self, n: int) -> Moments:
        """Of the real images that make the floor: from the cache, or seen now and kept there."""
        n = self.floor_images(n)
        kept = self.kept(self.spare, n)
        known = read_moments(kept)
        if self.processes.all(known is not None) and known is not None:
            return known
        part = self.extract(self.spare.images[self.places(self.spare, n)], "floor").moments
        if self.processes.is_main:
            write_moments(kept, part)
        return part

    def places(self, images: ImageDataset, n: int) -> Tensor:
        """Of n of these real images, all classes alike: the first, or spread evenly over them."""
        n = min(n, len(images))
        if self.shuffled and images is not self.real:
            return torch.arange(n)
        return torch.arange(n) * len(images) // n

    def as_asked(self, samples: Samples, logits: Tensor | None) -> float | None:
        if samples.labels is None or logits is None:
            return None
        if not set(samples.classes) <= set(self.extractor.classes):
            return None
        asked = torch.tensor([self.extractor.classes.index(name) for name in samples.classes])
        return (logits.argmax(1) == asked[samples.labels]).float().mean().item()

    def more(self, made: "FeatureStats") -> dict[str, Any]:
        """What torch-fidelity computes of Inception's features, with its own settings."""
        if made.features is None:
            return {}
        assert self.stats.features is not None
        from torch_fidelity.metric_isc import isc_features_to_metric
        from torch_fidelity.metric_prc import prc_features_to_metric

        real = self.stats.features
        kid, kid_95 = kernel_distance(made.features, real)
        prc = prc_features_to_metric(
            made.features, real, prc_batch_size=1000, save_cpu_ram=True, verbose=False
        )
        return {
            "kid": kid, "kid_95": kid_95,
            "inception_score": isc_features_to_metric(made.logits)["inception_score_mean"],
            "precision": prc["precision"], "recall": prc["recall"],
        }  # fmt: skip

    def extract(
        self,
        images: Tensor,
        what: str = "images",
        keep: Path | bool = False,
        logits: bool = False,
    ) -> "FeatureStats":
        """Pass uint8 images through the feature network, part by part.

        Features go to the file `keep`, or with True to one without a name, and are mapped into
        memory from there. `logits` are kept where they are asked for.
        """
        moments, logits_of, mapped = Moments(), [], None
        folder = cache_folder()
        bar = tqdm(
            total=len(images),
            desc=what,
            unit="img",
            disable=None if self.processes.is_main else True,
            leave=False,
        )
        try:
            with bar, features_file(keep, folder) if keep else nullcontext() as file:
                for features, *more in self.processes.map_in_order(
                    images.split(PART), self.extract_batch
                ):
                    if not features.isfinite().all():
                        raise UserError(
                            f"{self.extractor.name} saw something that is no number in the {what} "
                            f"{moments.n:,} to {moments.n + len(features) - 1:,}: nothing can be "
                            f"said of their distance"
                        )
                    moments.add(features)
                    if logits:
                        logits_of += more
                    if file:
                        file.write(features.numpy().data)
                    bar.update(len(features))
                if file:
                    file.flush()
                    mapped = map_features(file, len(images))
        except OSError as error:
            raise UserError(
                f"the features of {len(images):,} images could not be kept in {folder} ({error}): "
                f"make room there, or name another folder in DDPM_CACHE"
            ) from None
        return FeatureStats(moments, mapped, torch.cat(logits_of) if logits_of else None)

    def extract_batch(self, images: Tensor) -> tuple[Tensor, ...]:
        features, logits = self.extractor(images.to(self.device))
        return (features,) if logits is None else (features, logits)

    def seconds(self, n: int) -> float:
        """How long it will take to score n images, from a few that are timed."""
        few = self.real.images[:32].to(self.device)
        self.extractor(few)
        start = time.perf_counter()
        features, _ = self.extractor(few)
        each = (time.perf_counter() - start) / len(few)
        floor = self.floor_images(n)
        stats, inception = self.kept(self.real), self.extractor.name == "inception"
        files = [stats, stats.with_suffix(".features")] if inception else [stats]
        known = all(f.exists() for f in files), self.kept(self.spare, floor).exists()
        fresh = n + (not known[0]) * len(self.real) + (not known[1]) * floor
        N, D = len(self.real), features.shape[1]
        neighbours = seconds_of_neighbours(n + N, D) if inception else 0.0
        return each * fresh / self.processes.world_size + neighbours

    def floor_images(self, n: int) -> int:
        return min(n, len(self.real) // 2 if self.held_out is None else len(self.held_out))

    def kept(self, images: ImageDataset, n: int | None = None) -> Path:
        """Where the cache has what these images look like, or the n of them that make a floor."""
        of_what = (
            f"{FEATURES_VERSION} {self.extractor.hash} {images.fingerprint} {self.device.type}"
        )
        if n is not None:
            places = self.places(images, n)
            of_what += f" {n} {'first' if int(places[-1]) == n - 1 else 'spread'}"
        key = hashlib.sha256(of_what.encode()).hexdigest()[:24]
        return cache_folder() / f"{'reference' if n is None else 'floor'}-{key}.safetensors"

    @cached_property
    def stats(self) -> "FeatureStats":
        """What the real images look like: from the cache, or seen now and kept there."""
        kept = self.kept(self.real)
        inception, features = self.extractor.name == "inception", kept.with_suffix(".features")
        moments, mapped = read_moments(kept), None
        if inception:
            with suppress(OSError, ValueError):  # not there, or cut
                mapped = map_features(features, len(self.real))
        known = moments is not None and (mapped is not None or not inception)
        if self.processes.all(known) and moments is not None:
            return FeatureStats(moments, mapped, None)
        if inception and self.processes.is_main:
            with atomic_write(features) as beside:
                stats = self.extract(self.real.images, "real images", beside)
        else:
            stats = self.extract(self.real.images, "real images", inception)
        if self.processes.is_main:
            write_moments(kept, stats.moments)
        return stats


@dataclass(frozen=True, eq=False)
class FeatureStats:
    """What a feature network saw in N images: Σ f and Σ f fᵀ, and, where they were kept, the
    features (N, D) and logits (N, K)."""

    moments: Moments
    features: Tensor | None
    logits: Tensor | None


def title(images: ImageDataset, split: str = "") -> str:
    """Which images these are: source, split and fingerprint."""
    return " ".join(word for word in (images.source, split, images.fingerprint[:16]) if word)


def kernel_distance(made: Tensor, real: Tensor) -> tuple[float, float]:
    """The Kernel Inception Distance of features (N, D) and (M, D), and half the width of its 95 %
    interval.

    The mean over 100 pairs of subsets of m. Drawn from what is there, they vary among themselves by
    σ² (1/m − 1/n) where n samples, drawn anew, would by σ²/n: that is m / (n − m) of it, to which
    comes the error of a mean of 100 [Bińkowski et al. 2018 draw the subsets].
    """
    from torch_fidelity.metric_kid import kid_features_to_metric

    n = min(len(made), len(real))
    size = max(2, min(1000, n // 2))
    kid = kid_features_to_metric(
        made, real, kid_subset_size=size, kid_subsets=SUBSETS, verbose=False
    )
    share = size / (n - size) + 1 / SUBSETS
    spread = kid["kernel_inception_distance_std"] * share**0.5
    return kid["kernel_inception_distance_mean"], 1.96 * spread


def seconds_of_neighbours(n: int, d: int) -> float:
    """Of precision and recall: n² distances in d dimensions, of which 500² are timed."""
    some = torch.rand(500, d)
    start = time.perf_counter()
    torch.cdist(some, some).kthvalue(4)
    return (time.perf_counter() - start) / len(some) ** 2 * n**2


def read_moments(path: Path) -> Moments | None:
    """What `write_moments` kept; None where that is not there, or damaged."""
    try:
        known = load_file(path)
        return Moments(int(known["n"]), known["sum"], known["outer"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def write_moments(path: Path, of: Moments) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as beside:
            save_file({"n": np.array(of.n), "sum": of.sum, "outer": of.outer}, beside)
    except (OSError, SafetensorError) as error:
        print(f"note: {path} could not be written: {error}", file=sys.stderr)


def features_file(keep: Path | bool, folder: Path) -> Any:
    """A new file for features: `keep`, or one without a name."""
    folder.mkdir(parents=True, exist_ok=True)
    return keep.open("w+b") if isinstance(keep, Path) else TemporaryFile(dir=folder)


def map_features(file: Any, n: int) -> Tensor:
    """Float32 features of n images in a file, which stays on disk until they are used."""
    return torch.from_numpy(np.memmap(file, np.float32, "c").reshape(n, -1))
