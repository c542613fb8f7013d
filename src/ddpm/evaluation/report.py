"""A score, with the protocol it was made under and the distance that real images have."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import validated
from ..generation.settings import ineffective_settings
from ..utils.errors import UserError, counted
from ..utils.files import atomic_write, read_text

MAX_BYTES = 1_000_000  # of a score's file
# What was scored, among the entries of Protocol.sampling: two scores may differ in it.
SUBJECT = ("network", "weights", "guide", "file", "fingerprint", "images_seen")
# What a score is of that does not say it.
BEFORE = {
    "eps_scale": 1.0, "precision": "no", "churn": 0.0, "sigma_min": 0.0,
    "guidance_above": 0.0, "guidance_below": 1.0,
}  # fmt: skip
OLD_NAMES = {"as_asked": "class_accuracy", "copies": "memorization"}  # in scores written before


@dataclass(frozen=True)
class Protocol:
    """All that a score depends on.

    n          number of samples
    features   the feature network and the hash of its weights
    reference  the real images that samples are compared with: source, split and fingerprint
    sampling   the sampler's settings, network evaluations an image, weights and seed; or the file
    held_out   the real images that make the floor, where they are not of the reference
    """

    n: int
    features: str
    reference: str
    sampling: dict[str, Any]
    held_out: str | None = None


@dataclass(frozen=True)
class Likelihood:
    """−log p(x_0) in bits/dim, bounded from above: the mean over n held-out images, its standard
    error (None of a single image), and the variance of p(x_s | x_t)."""

    bits: float
    error: float | None
    n: int
    variance: str


@dataclass(frozen=True)
class NearestDistances:
    """Quantiles of the distance to the nearest training image, of samples and of real images: the
    root mean square over pixels, in levels of 0 … 255."""

    quantiles: tuple[float, ...]
    samples: tuple[float, ...]
    real: tuple[float, ...]

    def __str__(self) -> str:
        lines = [f"{'nearest training image':24}{'samples':>10}{'real images':>14}"]
        for q, x, y in zip(self.quantiles, self.samples, self.real, strict=True):
            lines.append(f"{f'  {q:.0%} are nearer than':24}{x:10.2f}{y:14.2f}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """How near samples are to real images, beside how near other real images are.

    distance   Fréchet distance of features, samples against the reference; in Inception features
               it is the FID
    floor      the same of `floor_n` real images: of those held out, or, where there are none, of
               the reference against the rest of it; drawn at random, always the same
    class_accuracy  share of samples that are classified as their label says; None where samples
               have no labels or the feature network knows other classes
    kid        Kernel Inception Distance, and half the width of its 95 % interval   [these five in
    kid_95     Inception features alone]
    inception_score
    precision  share of samples among the nearest neighbours of real images; recall: the reverse
               [Kynkäänniemi et al. 2019, but in Inception features]
    likelihood of held-out images, where it was asked for
    memorization  share of samples that are nearer to a training image than all but 1 % of other
               real images are, where it was asked for; `nearest` has the distances
    """

    distance: float
    floor: float
    floor_n: int
    class_accuracy: float | None
    protocol: Protocol
    kid: float | None = None
    kid_95: float | None = None
    inception_score: float | None = None
    precision: float | None = None
    recall: float | None = None
    likelihood: Likelihood | None = None
    memorization: float | None = None
    nearest: NearestDistances | None = None

    def __str__(self) -> str:
        """Return the score and its protocol, a line for each number."""
        p = self.protocol
        name = "FID" if p.features.startswith("inception ") else "Fréchet distance"
        relative = ""
        if self.floor_n == p.n and self.floor > 0:
            relative = f", {self.distance / self.floor:.2f} times the floor"
        lines = [f"{self.nearest}"] if self.nearest is not None else []
        lines += [
            f"{name:19}{self.distance:.4f}{relative}",
            f"{'floor':19}{self.floor:.4f}, of {counted(self.floor_n, 'real image')}",
        ]
        if self.kid is not None:
            lines.append(f"{'KID':19}{self.kid:.5f} ± {self.kid_95:.5f} (95 %)")
            lines.append(f"{'Inception score':19}{self.inception_score:.3f}")
            lines.append(f"{'precision, recall':19}{self.precision:.3f}, {self.recall:.3f}")
        if self.class_accuracy is not None:
            lines.append(f"{'class accuracy':19}{self.class_accuracy:.2%}")
        if self.likelihood is not None:
            of = self.likelihood
            error = "" if of.error is None else f" ± {of.error:.3f}"
            lines.append(
                f"{'bits/dim':19}{of.bits:.3f}{error} at most, of "
                f"{counted(of.n, 'held-out image')}, variance {of.variance}"
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

    def save(self, path: str | Path) -> None:
        """Write the score and its protocol as JSON."""
        with atomic_write(Path(path)) as beside:
            beside.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def read_report(path: str | Path) -> Report:
    """Return what `Report.save` wrote. Raise UserError for anything else."""
    try:
        table = json.loads(read_text(Path(path), MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a score of ddpm: {error}") from None
    return validated(Report, with_new_names(table), str(path))


def with_new_names(table: Any) -> Any:
    """Return the table of a score, with today's names where it has former ones."""
    if not isinstance(table, dict):
        return table
    table = {OLD_NAMES.get(name, name): value for name, value in table.items()}
    protocol = table.get("protocol")
    sampling = protocol.get("sampling") if isinstance(protocol, dict) else None
    if isinstance(sampling, dict) and "images" in sampling:
        sampling = {"images_seen" if k == "images" else k: v for k, v in sampling.items()}
        table["protocol"] = {**protocol, "sampling": sampling}
    return table


def ratio(a: Report, b: Report) -> float:
    """Return a's distance over b's. Raise UserError where their protocols differ."""
    check_comparable(a.protocol, b.protocol)
    if b.distance <= 0:
        raise UserError("the other score's distance is 0, so there is no ratio to it")
    return a.distance / b.distance


def check_comparable(a: Protocol, b: Protocol) -> None:
    """Raise UserError where the protocols differ in more than what was scored: another number of
    samples, other features, references or settings give other distances for the same network."""
    pairs = {name: (getattr(a, name), getattr(b, name)) for name in ("n", "features", "reference")}
    here, there = a.sampling, b.sampling
    if "network" in here and "network" in there:
        here, there = BEFORE | here, BEFORE | there
        classes = "classes of samples"
        pairs[classes] = here.get("classes", "in turn"), there.get("classes", "in turn")
    ignored = {*SUBJECT, "classes", *ineffective_settings(here)}
    pairs |= {k: (here[k], there[k]) for k in here if k in there and k not in ignored}
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise UserError(
                f"these scores cannot be compared: {name} is {ours} here and {theirs} there"
            )
