"""Scores, each with the protocol it was made under and the floor that real images have."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from .checkpoint import Checkpoint
from .config import SampleConfig, validated
from .data import SPLIT, cache_folder, load_images
from .errors import UserError
from .features import Eyes, eyes_for
from .folders import replacing
from .generate import OnState, Samples, generate, network_evaluations
from .metrics import Moments, frechet_distance

PART = 250  # images that pass through a feature network at once


@dataclass(frozen=True)
class Protocol:
    """All that a score depends on."""

    n: int
    features: str
    """The feature network and the hash of its weights."""
    reference: str
    """The images that the samples are held against: source, split and fingerprint."""
    sampling: dict[str, Any]
    """The sampler's settings, network evaluations an image, weights and seed; or the file."""


@dataclass(frozen=True)
class Score:
    """How near samples are to real images, beside how near other real images are.

    distance   Fréchet distance of features, samples against the reference; in Inception features
               it is the FID
    floor      the same of `floor_n` real images: the first of the set's other split, or, where
               there is none, images spread over the reference, against the rest of it
    as_asked   share of samples that are classified as their label says; None where nothing was
               asked or the feature network knows other classes
    kid        Kernel Inception Distance, and half the width of its 95 % interval   [these five in
    kid_95     Inception features alone]
    inception_score
    precision  share of samples among the nearest neighbours of real images; recall: the reverse
               [Kynkäänniemi et al. 2019, but in Inception features]
    """

    distance: float
    floor: float
    floor_n: int
    as_asked: float | None
    protocol: Protocol
    kid: float | None = None
    kid_95: float | None = None
    inception_score: float | None = None
    precision: float | None = None
    recall: float | None = None

    def text(self) -> str:
        """The score for a person to read."""
        p = self.protocol
        name = "FID" if p.features.startswith("inception ") else "Fréchet distance"
        times = f", {self.distance / self.floor:.2f} times the floor" if self.floor_n == p.n else ""
        lines = [
            f"{name:19}{self.distance:.4f}{times}",
            f"{'floor':19}{self.floor:.4f}, of {self.floor_n:,} real images",
        ]
        if self.kid is not None:
            lines.append(f"{'KID':19}{self.kid:.5f} ± {self.kid_95:.5f} (95 %)")
            lines.append(f"{'Inception score':19}{self.inception_score:.3f}")
            lines.append(f"{'precision, recall':19}{self.precision:.3f}, {self.recall:.3f}")
        if self.as_asked is not None:
            lines.append(f"{'as asked':19}{self.as_asked:.2%}")
        how = ", ".join(f"{name} {value}" for name, value in p.sampling.items())
        lines.append(f"{'protocol':19}{p.n:,} samples; {p.features}; {p.reference}; {how}")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the score and its protocol as JSON."""
        with replacing(path) as beside:
            beside.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def read_score(path: Path) -> Score:
    """What `Score.save` wrote. Raises UserError for anything else."""
    try:
        return validated(Score, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a score of ddpm: {error}") from None


def ratio(a: Score, b: Score) -> float:
    """a's distance over b's. Raises UserError where they were not made in the same way: other
    numbers, features or references give other distances for the same samples."""
    for name, x in asdict(a.protocol).items():
        y = asdict(b.protocol)[name]
        if name != "sampling" and x != y:
            raise UserError(f"these scores are not to be compared: {name} is {x} here, {y} there")
    return a.distance / b.distance


class Judge:
    """A feature network beside the real images that it is to hold samples against.

    source    a named set, a folder, a zip or an npz; `root` has the named ones
    features  a name or a file, see `eyes_for`; None for what suits the images
    split     of a named set: the samples are held against it, the other one makes the floor

    Raises UserError where the images or the network cannot be had.
    """

    def __init__(
        self,
        source: str | Path = "mnist",
        *,
        root: str | Path = "data",
        split: str = "train",
        features: str | None = None,
        device: torch.device | str = "cpu",
    ):
        self.device = torch.device(device)
        self.real = load_images(source, root=root, split=split)
        self.other = None
        if str(source) in SPLIT:
            other = "test" if split == "train" else "train"
            self.other = load_images(source, root=root, split=other)
        shape = tuple(self.real.images.shape[1:])
        self.eyes = eyes_for(features, shape, self.device)
        which = f" {split}" if self.other else ""
        self.name = f"{self.real.source}{which} {self.real.fingerprint[:16]}"
        self.check(shape, "the reference's")
        self.reference = self._reference()

    def score(self, samples: Samples, sampling: dict[str, Any]) -> Score:
        """Score images that were made, with the settings they were made by."""
        n = len(samples.images)
        if n < 2:
            raise UserError("a distance needs two samples at least")
        self.check(tuple(samples.images.shape[1:]), "the samples'")
        made = self.see(samples.images)
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
        if self.other is not None:
            part = self.see(self.other.images[:n]).moments
            return frechet_distance(part.gaussian(), self.reference.moments.gaussian()), part.n
        n = min(n, len(self.real) // 2)
        part = self.see(self.real.images[:: len(self.real) // n][:n]).moments
        rest = self.reference.moments - part
        return frechet_distance(part.gaussian(), rest.gaussian()), n

    def as_asked(self, samples: Samples, logits: Tensor | None) -> float | None:
        if samples.labels is None or logits is None:
            return None
        if not set(samples.classes) <= set(self.eyes.classes):
            return None
        asked = torch.tensor([self.eyes.classes.index(name) for name in samples.classes])
        return (logits.argmax(1) == asked[samples.labels]).float().mean().item()

    def more(self, made: "Seen") -> dict[str, float]:
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

    def see(self, images: Tensor, keep: Path | None = None) -> "Seen":
        """Pass uint8 images through the feature network, part by part.

        Inception's features, of which more than the moments is wanted, go to the file `keep`, or
        to one without a name, and are mapped into memory from there.
        """
        moments, logits = Moments(), []
        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with keep.open("w+b") if keep else TemporaryFile(dir=folder) as file:
                for part in images.split(PART):
                    features, told = self.eyes(part.to(self.device))
                    moments.add(features)
                    if told is not None:
                        logits.append(told)
                    if self.eyes.name == "inception":
                        file.write(features.numpy().data)
                file.flush()
                features = mapped(file, len(images)) if self.eyes.name == "inception" else None
        except OSError as error:
            raise UserError(
                f"the features of {len(images):,} images could not be kept in {folder} ({error}): "
                f"make room there, or name another folder in DDPM_CACHE"
            ) from None
        return Seen(moments, features, torch.cat(logits) if logits else None)

    def _reference(self) -> "Seen":
        """What the real images look like, kept in the cache for the next time."""
        of_what = f"{self.eyes.hash} {self.real.fingerprint} {self.device.type}"
        key = hashlib.sha256(of_what.encode()).hexdigest()[:24]
        path = cache_folder() / f"reference-{key}.safetensors"
        features = path.with_suffix(".features")
        try:
            known = load_file(path)
            moments = Moments(int(known["n"]), known["sum"], known["outer"])
            kept = mapped(features, len(self.real)) if self.eyes.name == "inception" else None
            return Seen(moments, kept, None)
        except (OSError, SafetensorError, KeyError, ValueError):
            pass  # not there, or damaged
        if self.eyes.name == "inception":
            with replacing(features) as beside:
                reference = self.see(self.real.images, beside)
        else:
            reference = self.see(self.real.images)
        try:
            with replacing(path) as beside:
                of = reference.moments
                save_file({"n": np.array(of.n), "sum": of.sum, "outer": of.outer}, beside)
        except (OSError, SafetensorError) as error:
            print(f"note: {path} could not be written: {error}", file=sys.stderr)
        return reference


@dataclass(frozen=True, eq=False)
class Seen:
    """What a feature network saw in N images: Σ f and Σ f fᵀ, and, where they were kept, the
    features (N, D) and logits (N, K)."""

    moments: Moments
    features: Tensor | None
    logits: Tensor | None


def mapped(file: Any, n: int) -> Tensor:
    """Float32 features of n images in a file, which stays on disk until they are used."""
    return torch.from_numpy(np.memmap(file, np.float32, "r+").reshape(n, -1))


def evaluate(
    checkpoint: Checkpoint,
    judge: Judge,
    n: int = 10_000,
    *,
    seed: int = 0,
    settings: SampleConfig | None = None,
    batch: int = 64,
    on_state: OnState | None = None,
) -> Score:
    """Make n images with a checkpoint, as `generate` does, and score them."""
    data = checkpoint.data
    judge.check((data.channels, data.height, data.width), "this network's")
    settings = settings or checkpoint.config.sample
    samples = generate(
        checkpoint, n, seed=seed, settings=settings, device=judge.device, batch=batch,
        on_state=on_state,
    )  # fmt: skip
    nfe = network_evaluations(settings, checkpoint.diffusion, bool(data.classes))
    how = {
        "network": weights_hash(checkpoint), "weights": "ema", "images": checkpoint.images,
        **asdict(settings), "nfe": nfe, "seed": seed,
    }  # fmt: skip
    return judge.score(samples, how)


def weights_hash(checkpoint: Checkpoint) -> str:
    """The first 16 digits of a SHA-256 of all weights, in order."""
    digest = hashlib.sha256()
    for tensor in checkpoint.net.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
