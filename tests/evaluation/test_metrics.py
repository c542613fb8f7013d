"""Distances between sets of features, against what is known in closed form and against scipy."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ddpm.evaluation.metrics import (
    Gaussian,
    Moments,
    frechet_distance,
    inception_score,
    kernel_distance,
    moments,
    precision_recall,
)


def covariance(rng, d):
    a = rng.normal(size=(d, d))
    return a @ a.T / d


def test_the_distance_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    p = Gaussian(rng.normal(size=12), covariance(rng, 12))
    q = Gaussian(rng.normal(size=12), covariance(rng, 12))
    root = sqrtm(p.cov @ q.cov).real
    expected = ((p.mean - q.mean) ** 2).sum() + np.trace(p.cov + q.cov - 2 * root)
    assert frechet_distance(p, q) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(q, p) == pytest.approx(expected, rel=1e-9)


def test_the_distance_of_gaussians_on_the_axes():
    p = Gaussian(np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    q = Gaussian(np.array([1.0, 0, 2]), np.diag([4.0, 4.0, 1.0]))
    assert frechet_distance(p, q) == pytest.approx(1 + 4 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2)


def test_a_set_is_at_no_distance_from_itself_even_where_it_is_flat():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50, 8, generator=generator) @ torch.randn(8, 32, generator=generator)
    p = moments(features)
    assert frechet_distance(p, p) == pytest.approx(0, abs=1e-6 * np.trace(p.cov))


def test_moments_in_parts_are_those_of_the_whole():
    features = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)) + 100
    parts = Moments()
    for part in features.split(77):
        parts.add(part)
    whole = parts.gaussian()
    np.testing.assert_allclose(whole.mean, features.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(whole.cov, np.cov(features.double().numpy().T), atol=1e-8)


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="two samples"):
        moments(torch.zeros(1, 4))


def test_the_interval_of_the_kernel_distance_covers_it():
    """Of draws from two Gaussians, against the distance of large sets of both."""
    pytest.importorskip("torch_fidelity")
    g = torch.Generator().manual_seed(0)

    def draw(n, shift):
        return torch.randn(n, 16, generator=g) + shift

    real = draw(2000, 0.0)
    truth, _ = kernel_distance(draw(2000, 0.25), real)
    for n in (60, 400):
        intervals = [kernel_distance(draw(n, 0.25), real) for _ in range(10)]
        assert all(half > 0 for _, half in intervals)
        assert sum(abs(mean - truth) <= half for mean, half in intervals) >= 8
        spread = torch.tensor([mean for mean, _ in intervals]).std()
        assert torch.tensor([half for _, half in intervals]).mean() < 2 * 1.96 * spread


def test_tight_copies_are_precise_and_recall_little(generator):
    """Whichever of its arguments torch-fidelity takes for the real ones."""
    pytest.importorskip("torch_fidelity")
    real = torch.randn(100, 8, generator=generator)
    copies = real[:2].repeat_interleave(20, 0) + 1e-3 * torch.randn(40, 8, generator=generator)
    precision, recall = precision_recall(copies, real)
    assert precision > 0.9
    assert recall < 0.3


def test_the_inception_score_of_certain_and_of_uncertain_logits():
    pytest.importorskip("torch_fidelity")
    labels = torch.arange(200) % 4
    certain = 50 * torch.nn.functional.one_hot(labels, 4).float()
    assert inception_score(certain) == pytest.approx(4, rel=0.1)
    assert inception_score(torch.zeros(200, 4)) == pytest.approx(1)
