"""Judging images: a feature network, and the real images to hold them against."""

import hashlib
import sys
import time
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

from .data import SPLIT, cache_folder, load_images
from .errors import UserError
from .features import eyes_for
from .folders import replacing
from .generate import Samples
from .metrics import Moments, frechet_distance
from .score import Protocol, Score
from .team import ALONE, Team

PART = 250  # images that pass through a feature network at once


class Judge:
    """A feature network beside the real images that it is to hold samples against.

    source    a named set, a folder, a zip or an npz; `root` has the named ones
    split     of a named set: the samples are held against it, the other one is held out
    held_out  other real images, which make the floor; by default the named set's other split
    features  a name or a file, see `eyes_for`; None for what suits the images
    team      the processes that share the looking, and a cache; each of them knows all in the end

    Raises UserError where the images or the network cannot be had.
    """

    def __init__(
        self,
        source: str | Path = "mnist",
        *,
        root: str | Path = "data",
        split: str = "train",
        held_out: str | Path | None = None,
        features: str | None = None,
        device: torch.device | str = "cpu",
        team: Team = ALONE,
    ):
        self.device, self.team = torch.device(device), team
        self.real = load_images(source, root=root, split=split)
        named = str(source) in SPLIT
        self.held_out = None
        if held_out is not None:
            self.held_out = load_images(held_out, root=root)
        elif named:
            other = "test" if split == "train" else "train"
            self.held_out = load_images(source, root=root, split=other)
        if len(self.real) < 4:
            raise UserError(
                f"{source} has only {len(self.real)} images: a distance needs thousands"
            )
        shape = tuple(self.real.images.shape[1:])
        self.eyes = eyes_for(features, shape, self.device)
        which = f" {split}" if named else ""
        self.name = f"{self.real.source}{which} {self.real.fingerprint[:16]}"
        self.check(shape, "the reference's")
        if self.held_out is not None:
            self.check(tuple(self.held_out.images.shape[1:]), "the held-out")

    def score(self, samples: Samples, sampling: dict[str, Any]) -> Score:
        """Score images that were made, with the settings they were made by."""
        n = len(samples.images)
        if n < 2:
            raise UserError("a distance needs two samples at least")
        self.check(tuple(samples.images.shape[1:]), "the samples'")
        made = self.see(samples.images, "samples")
        d = len(made.moments.sum)
        if n <= d and self.team.main:
            print(
                f"note: {n:,} samples are few for {d:,} features: the distance is mostly the error "
                f"of so small a number, so hold it against the floor alone",
                file=sys.stderr,
            )
        distance = frechet_distance(made.moments.gaussian(), self.reference.moments.gaussian())
        floor, floor_n = self.floor(n)
        protocol = Protocol(n, f"{self.eyes.name} {self.eyes.hash}", self.name, sampling)
        asked = self.as_asked(samples, made.logits)
        return Score(distance, floor, floor_n, asked, protocol, **self.more(made))

    def check(self, shape: tuple[int, ...], whose: str) -> None:
        """Raises UserError for images (C, H, W) that the feature network does not take, or of
        another size than the real ones."""
        c, h, w = shape
        wanted = self.eyes.shape
        if wanted and shape != wanted:
            raise UserError(
                f"{self.eyes.name} sees images of {wanted[2]}x{wanted[1]} in {wanted[0]} "
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
        if self.held_out is not None:
            part = self.see(self.held_out.images[:n], "floor").moments
            return frechet_distance(part.gaussian(), self.reference.moments.gaussian()), part.n
        spread = self.spread(n)
        part = self.see(self.real.images[spread], "floor").moments
        rest = self.reference.moments - part
        return frechet_distance(part.gaussian(), rest.gaussian()), len(spread)

    def spread(self, n: int) -> Tensor:
        """The places of n images, of half of them at most, spread evenly over the reference."""
        n = min(n, len(self.real) // 2)
        return torch.arange(0, len(self.real), len(self.real) // n)[:n]

    def as_asked(self, samples: Samples, logits: Tensor | None) -> float | None:
        if samples.labels is None or logits is None:
            return None
        if not set(samples.classes) <= set(self.eyes.classes):
            return None
        asked = torch.tensor([self.eyes.classes.index(name) for name in samples.classes])
        return (logits.argmax(1) == asked[samples.labels]).float().mean().item()

    def more(self, made: "Seen") -> dict[str, Any]:
        """What torch-fidelity computes of Inception's features, with its own settings."""
        if made.features is None:
            return {}
        assert self.reference.features is not None
        from torch_fidelity.metric_isc import isc_features_to_metric
        from torch_fidelity.metric_kid import kid_features_to_metric
        from torch_fidelity.metric_prc import prc_features_to_metric

        real, n = self.reference.features, len(made.features)
        size = min(1000, n, len(real))
        kid = kid_features_to_metric(made.features, real, kid_subset_size=size, verbose=False)
        prc = prc_features_to_metric(
            made.features, real, prc_batch_size=1000, save_cpu_ram=True, verbose=False
        )
        # The spread is of subsets: that of all n samples is narrower by the root of their number.
        spread = kid["kernel_inception_distance_std"] * (size / n) ** 0.5
        return {
            "kid": kid["kernel_inception_distance_mean"], "kid_95": 1.96 * spread,
            "inception_score": isc_features_to_metric(made.logits)["inception_score_mean"],
            "precision": prc["precision"], "recall": prc["recall"],
        }  # fmt: skip

    def see(self, images: Tensor, what: str = "images", keep: Path | None = None) -> "Seen":
        """Pass uint8 images through the feature network, part by part.

        Inception's features, of which more than the moments is wanted, go to the file `keep`, or
        to one without a name, and are mapped into memory from there.
        """
        moments, logits = Moments(), []
        folder = cache_folder()
        kept = self.eyes.name == "inception"
        bar = tqdm(
            total=len(images),
            desc=what,
            unit="img",
            disable=None if self.team.main else True,
            leave=False,
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with bar, keep.open("w+b") if keep else TemporaryFile(dir=folder) as file:
                for features, *told in self.team.share(images.split(PART), self.look):
                    moments.add(features)
                    logits += told
                    if kept:
                        file.write(features.numpy().data)
                    bar.update(len(features))
                file.flush()
                mapped = map_features(file, len(images)) if kept else None
        except OSError as error:
            raise UserError(
                f"the features of {len(images):,} images could not be kept in {folder} ({error}): "
                f"make room there, or name another folder in DDPM_CACHE"
            ) from None
        return Seen(moments, mapped, torch.cat(logits) if logits else None)

    def look(self, images: Tensor) -> tuple[Tensor, ...]:
        features, logits = self.eyes(images.to(self.device))
        return (features,) if logits is None else (features, logits)

    def seconds(self, n: int) -> float:
        """How long it will take to score n images, from a few that are timed."""
        few = self.real.images[:32].to(self.device)
        self.eyes(few)
        start = time.perf_counter()
        self.eyes(few)
        fresh = n + self.floor_images(n) + (0 if self.kept.exists() else len(self.real))
        return (time.perf_counter() - start) / len(few) * fresh / self.team.size

    def floor_images(self, n: int) -> int:
        return min(n, len(self.real) // 2 if self.held_out is None else len(self.held_out))

    @property
    def kept(self) -> Path:
        """Where the cache has what the real images look like."""
        of_what = f"{self.eyes.hash} {self.real.fingerprint} {self.device.type}"
        key = hashlib.sha256(of_what.encode()).hexdigest()[:24]
        return cache_folder() / f"reference-{key}.safetensors"

    @cached_property
    def reference(self) -> "Seen":
        """What the real images look like: from the cache, or seen now and kept there."""
        inception, features = self.eyes.name == "inception", self.kept.with_suffix(".features")
        try:
            known = load_file(self.kept)
            moments = Moments(int(known["n"]), known["sum"], known["outer"])
            mapped = map_features(features, len(self.real)) if inception else None
            return Seen(moments, mapped, None)
        except (OSError, SafetensorError, KeyError, ValueError):
            pass  # not there, or damaged
        if inception and self.team.main:
            with replacing(features) as beside:
                reference = self.see(self.real.images, "real images", beside)
        else:
            reference = self.see(self.real.images, "real images")
        if not self.team.main:
            return reference
        try:
            with replacing(self.kept) as beside:
                of = reference.moments
                save_file({"n": np.array(of.n), "sum": of.sum, "outer": of.outer}, beside)
        except (OSError, SafetensorError) as error:
            print(f"note: {self.kept} could not be written: {error}", file=sys.stderr)
        return reference


@dataclass(frozen=True, eq=False)
class Seen:
    """What a feature network saw in N images: Σ f and Σ f fᵀ, and, where they were kept, the
    features (N, D) and logits (N, K)."""

    moments: Moments
    features: Tensor | None
    logits: Tensor | None


def map_features(file: Any, n: int) -> Tensor:
    """Float32 features of n images in a file, which stays on disk until they are used."""
    return torch.from_numpy(np.memmap(file, np.float32, "r+").reshape(n, -1))
