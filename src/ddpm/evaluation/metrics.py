"""How far samples are from data: distances between sets of features."""

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

SUBSETS = 100  # of features, whose kernel distances are averaged


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
        """Add features of shape (B, D)."""
        f = features.detach().cpu().double().numpy()
        self.n, self.sum, self.outer = self.n + len(f), self.sum + f.sum(0), self.outer + f.T @ f

    def __sub__(self, part: "Moments") -> "Moments":
        """Return the moments of the set without a part of it."""
        return Moments(self.n - part.n, self.sum - part.sum, self.outer - part.outer)

    def gaussian(self) -> Gaussian:
        """Return the mean and the unbiased covariance. Raise ValueError for fewer than two."""
        if self.n < 2:
            raise ValueError(f"a covariance needs two samples at least, not {self.n}")
        mean = self.sum / self.n
        return Gaussian(mean, (self.outer - self.n * np.outer(mean, mean)) / (self.n - 1))


def moments(features: Tensor) -> Gaussian:
    """Return the mean and covariance of features (N, D), all in memory."""
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


def kernel_distance(samples: Tensor, real: Tensor) -> tuple[float, float]:
    """Return the Kernel Inception Distance of features (N, D) and (M, D), and half the width of its
    95 % interval.

    The mean over 100 pairs of subsets of size m [Bińkowski et al. 2018]. Subsets of one set of n
    vary among themselves by σ² (1/m − 1/n), where n samples drawn anew would vary by σ²/n: that is
    m / (n − m) of it. The error of a mean of 100 is added.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric

    n = min(len(samples), len(real))
    size = max(2, min(1000, n // 2))
    kid = kid_features_to_metric(
        samples, real, kid_subset_size=size, kid_subsets=SUBSETS, verbose=False
    )
    share = size / (n - size) + 1 / SUBSETS
    spread = kid["kernel_inception_distance_std"] * share**0.5
    return kid["kernel_inception_distance_mean"], 1.96 * spread


def inception_score(logits: Tensor) -> float:
    """exp E_x D_KL(p(y|x) ‖ p(y))   [Salimans et al. 2016], of logits (N, K) in ten parts"""
    from torch_fidelity.metric_isc import isc_features_to_metric

    return isc_features_to_metric(logits)["inception_score_mean"]


def precision_recall(samples: Tensor, real: Tensor) -> tuple[float, float]:
    """Return the share of samples among the nearest neighbours of real images, and the share of
    real images among those of samples   [Kynkäänniemi et al. 2019, but in Inception features].

    Both are features (N, D) and (M, D)."""
    from torch_fidelity.metric_prc import prc_features_to_metric

    prc = prc_features_to_metric(
        samples, real, prc_batch_size=1000, save_cpu_ram=True, verbose=False
    )
    return prc["precision"], prc["recall"]


def precision_recall_seconds(n: int, d: int) -> float:
    """Estimate the time for n features of d dimensions in all: of n² distances 500² are timed."""
    some = torch.rand(500, d)
    start = time.perf_counter()
    torch.cdist(some, some).kthvalue(4)
    return (time.perf_counter() - start) / len(some) ** 2 * n**2
