"""A score, with the protocol it was made under and the floor that real images have."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import validated
from ..utils.errors import UserError
from ..utils.files import atomic_write, read_text

MAX_BYTES = 1_000_000  # of a score's file
# What was scored, of a protocol's sampling; "images" is in reports of before.
WHICH = ("network", "file", "fingerprint", "images_seen", "images")


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
    held_out: str | None = None
    """The real images that make the floor, where they are not of the reference."""


@dataclass(frozen=True)
class Likelihood:
    """−log p(x_0) in bits/dim, bounded from above: the mean over n images that were held out, its
    standard error (of one image none), and the variance of p(x_s | x_t)."""

    bits: float
    error: float | None
    n: int
    variance: str


@dataclass(frozen=True)
class Report:
    """How near samples are to real images, beside how near other real images are.

    distance   Fréchet distance of features, samples against the reference; in Inception features
               it is the FID
    floor      the same of `floor_n` real images: of those held out, or, where there are none, of
               the reference against the rest of it. They are the first of a named set, and are
               spread evenly over any other, whose images may lie class by class
    as_asked   share of samples that are classified as their label says; None where nothing was
               asked or the feature network knows other classes
    kid        Kernel Inception Distance, and half the width of its 95 % interval   [these five in
    kid_95     Inception features alone]
    inception_score
    precision  share of samples among the nearest neighbours of real images; recall: the reverse
               [Kynkäänniemi et al. 2019, but in Inception features]
    memorization  share of samples that lie nearer to a training image than all but 1 % of other
               real images do
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
    likelihood: Likelihood | None = None
    memorization: float | None = None

    def text(self) -> str:
        """The score for a person to read."""
        p = self.protocol
        name = "FID" if p.features.startswith("inception ") else "Fréchet distance"
        times = ""
        if self.floor_n == p.n and self.floor > 0:
            times = f", {self.distance / self.floor:.2f} times the floor"
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
        if self.likelihood is not None:
            of = self.likelihood
            error = "" if of.error is None else f" ± {of.error:.3f}"
            lines.append(
                f"{'bits/dim':19}{of.bits:.3f}{error} at most, of {of.n:,} held-out "
                f"images, variance {of.variance}"
            )
        if self.memorization is not None:
            lines.append(
                f"{'memorization':19}{self.memorization:.1%} as near to training "
                f"as 1 % of real images"
            )
        how = ", ".join(f"{name} {value}" for name, value in p.sampling.items())
        floor = f"floor of {p.held_out}; " if p.held_out else ""
        lines.append(f"{'protocol':19}{p.n:,} samples; {p.features}; {p.reference}; {floor}{how}")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the score and its protocol as JSON."""
        with atomic_write(path) as beside:
            beside.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """What `Report.save` wrote. Raises UserError for anything else."""
    try:
        return validated(Report, json.loads(read_text(path, MAX_BYTES)), str(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a score of ddpm: {error}") from None


def ratio(a: Report, b: Report) -> float:
    """a's distance over b's. Raises UserError where they were not made in the same way."""
    check_alike(a.protocol, b.protocol)
    if b.distance <= 0:
        raise UserError("the other score's distance is 0: nothing can be held against that")
    return a.distance / b.distance


def check_alike(a: Protocol, b: Protocol) -> None:
    """Raises UserError where distances are not to be compared: other numbers, features, references
    or ways to make samples give other distances for the same network. Only what was scored may
    differ: the network, or the file."""
    for name in ("n", "features", "reference"):
        refuse_unlike(name, getattr(a, name), getattr(b, name))
    for name in [k for k in a.sampling if k in b.sampling and k not in WHICH]:
        refuse_unlike(name, a.sampling[name], b.sampling[name])


def refuse_unlike(name: str, here: object, there: object) -> None:
    if here != there:
        raise UserError(
            f"these scores are not to be compared: {name} is {here} here, {there} there"
        )
