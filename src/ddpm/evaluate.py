"""Scores, each with the protocol it was made under and the floor that real images have."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from .checkpoint import Checkpoint
from .config import SampleConfig
from .data import cache_folder, load_images
from .digit_net import WEIGHTS, digit_net
from .errors import UserError
from .folders import replacing
from .generate import OnState, Samples, generate, network_evaluations
from .images import to_float
from .metrics import Gaussian, Moments, frechet_distance, moments

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Protocol:
    """All that a score depends on. Scores under different protocols are not to be compared."""

    n: int
    features: str
    """The feature network and the hash of its weights."""
    reference: str
    """The images that the samples are held against, and their fingerprint."""
    sampling: dict[str, object]
    """The sampler's settings, network evaluations an image, weights and seed; or the file."""


@dataclass(frozen=True)
class Score:
    """A Fréchet distance of features beside its floor, and how many digits were what was asked.

    distance   samples against the training set
    floor      the first `floor_n` images of the test set against the training set: as many as
               there are samples, or all 10,000
    as_asked   share of samples classified as their label says; None where nothing was asked
    """

    distance: float
    floor: float
    floor_n: int
    as_asked: float | None
    protocol: Protocol

    def text(self) -> str:
        """The score for a person to read."""
        p = self.protocol
        times = f", {self.distance / self.floor:.2f} times the floor" if self.floor_n == p.n else ""
        lines = [
            f"Fréchet distance   {self.distance:.4f}{times}",
            f"floor              {self.floor:.4f}, of {self.floor_n:,} test digits",
        ]
        if self.as_asked is not None:
            lines.append(f"as asked           {self.as_asked:.2%}")
        how = ", ".join(f"{name} {value}" for name, value in p.sampling.items())
        lines.append(f"protocol           {p.n:,} samples; {p.features}; {p.reference}; {how}")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the score and its protocol as JSON."""
        with replacing(path) as beside:
            beside.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


class DigitJudge:
    """The digit net beside the MNIST that it is to hold samples against. `root` has MNIST.

    Raises UserError where MNIST cannot be had.
    """

    def __init__(self, root: str | Path = "data", device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.net = digit_net().to(self.device)
        self.hash = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
        self.train = load_images("mnist", root=root)
        self.test = load_images("mnist", root=root, split="test")
        self.reference = self._reference()

    def score(self, samples: Samples, sampling: dict[str, object]) -> Score:
        """Score digits that were made, with the settings they were made by."""
        n = len(samples.images)
        check_digits(n, tuple(samples.images.shape[1:]), samples.classes, "these samples")
        features, told = self.look(samples.images)
        real, _ = self.look(self.test.images[:n])
        right = None
        if samples.labels is not None:
            asked = torch.tensor([int(name) for name in samples.classes])[samples.labels]
            right = (told == asked).float().mean().item()
        protocol = Protocol(
            n, f"digit-net {self.hash[:16]}", f"mnist train {self.train.fingerprint[:16]}", sampling
        )
        return Score(
            frechet_distance(moments(features), self.reference),
            frechet_distance(moments(real), self.reference), len(real), right, protocol,
        )  # fmt: skip

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 128) of uint8 digits, and the class (N,) that each is taken for."""
        features, told = zip(*(self._look(part) for part in images.split(500)), strict=True)
        return torch.cat(features), torch.cat(told)

    @torch.inference_mode()
    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.net(to_float(images.to(self.device)))
        return features.cpu(), logits.argmax(1).cpu()

    def _reference(self) -> Gaussian:
        """The training set's mean and covariance, kept in the cache for the next time."""
        of_what = f"{self.hash} {self.train.fingerprint} {self.device.type}"
        key = hashlib.sha256(of_what.encode()).hexdigest()[:24]
        path = cache_folder() / f"digit-reference-{key}.safetensors"
        try:
            kept = load_file(path)
            return Gaussian(kept["mean"], kept["cov"])
        except (OSError, SafetensorError, KeyError):
            pass  # not there, or damaged
        found = Moments()
        for part in self.train.images.split(5000):
            found.add(self.look(part)[0])
        reference = found.gaussian()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as beside:
                save_file({"mean": reference.mean, "cov": reference.cov}, beside)
        except (OSError, SafetensorError) as error:
            print(f"note: {path} could not be written: {error}", file=sys.stderr)
        return reference


def evaluate(
    checkpoint: Checkpoint,
    judge: DigitJudge,
    n: int = 10_000,
    *,
    seed: int = 0,
    settings: SampleConfig | None = None,
    batch: int = 64,
    on_state: OnState | None = None,
) -> Score:
    """Make n digits with a checkpoint, as `generate` does, and score them."""
    data = checkpoint.data
    shape = (data.channels, data.height, data.width)
    check_digits(n, shape, data.classes, "this network's images")
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


def check_digits(n: int, shape: tuple[int, ...], classes: tuple[str, ...], what: str) -> None:
    """Raises UserError for anything but two or more 28x28 digits in gray, with their classes or
    without."""
    if n < 2:
        raise UserError("a distance needs two samples at least")
    if shape != (1, 28, 28) or not set(classes) <= set(DIGITS):
        channels, height, width = shape
        other = [name for name in classes if name not in DIGITS]
        named = f", classes such as {other[0]!r}" if other else ""
        raise UserError(
            f"only handwritten digits can be scored, 28x28 in one channel, classes 0 to 9; "
            f"{what} are {width}x{height} in {channels}{named}"
        )
