"""How far samples are from data: distances between sets of features."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The mean (D,) and covariance (D, D) of features, in float64 on the CPU."""

    mean: np.ndarray
    cov: np.ndarray


@dataclass(eq=False)
class Moments:
    """n, Σ f and Σ f fᵀ over features that come in parts, so that no set need fit in memory."""

    n: int = 0
    sum: np.ndarray = field(default_factory=lambda: np.zeros(()))
    outer: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, features: Tensor) -> None:
        """Take in features of shape (B, D)."""
        f = features.detach().cpu().double().numpy()
        self.n, self.sum, self.outer = self.n + len(f), self.sum + f.sum(0), self.outer + f.T @ f

    def __sub__(self, part: "Moments") -> "Moments":
        """What is left without the features of a part of the set."""
        return Moments(self.n - part.n, self.sum - part.sum, self.outer - part.outer)

    def gaussian(self) -> Gaussian:
        """The covariance is the unbiased one; two features at least."""
        if self.n < 2:
            raise ValueError(f"a covariance needs two samples at least, not {self.n}")
        mean = self.sum / self.n
        return Gaussian(mean, (self.outer - self.n * np.outer(mean, mean)) / (self.n - 1))


def moments(features: Tensor) -> Gaussian:
    """The Gaussian of features (N, D) that are all at hand."""
    of = Moments()
    of.add(features)
    return of.gaussian()


def frechet_distance(p: Gaussian, q: Gaussian) -> float:
    """d² = ‖μ_p − μ_q‖² + Tr(Σ_p + Σ_q − 2 (Σ_p Σ_q)^½)   [Heusel et al. 2017, Eq. 6]

    It falls with the number of samples: compare only distances of the same n. The trace of the
    root is Σ √ eig(Σ_p^½ Σ_q Σ_p^½), whose matrix is symmetric.
    """
    values, vectors = np.linalg.eigh(p.cov)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ q.cov @ root).clip(min=0)).sum()
    gap = p.mean - q.mean
    return float(gap @ gap + np.trace(p.cov) + np.trace(q.cov) - 2 * cross)
