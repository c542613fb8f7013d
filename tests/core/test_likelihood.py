"""The bound, against data whose likelihood is known exactly."""

import math

import pytest
import torch

from closed_form import closed_form_gaussian
from ddpm import Diffusion, Schedule, UNet, linear, timesteps
from ddpm.core.likelihood import (
    discretized_log_likelihood,
    variational_bound,
)

MEAN, STD = 0.1, 0.25


def gaussian_pixels(n, generator):
    x = MEAN + STD * torch.randn(n, 1, 8, 8, generator=generator)
    levels = ((x + 1) * 127.5).round().clamp(0, 255)
    return (levels / 127.5 - 1).double()


def exact_bits(x0):
    """−log₂ of the probability of each 8-bit level under the Gaussian, a dimension."""
    mean = torch.full_like(x0, MEAN)
    return -discretized_log_likelihood(x0, mean, torch.tensor(STD**2)).mean().item() / math.log(2)


def bound_of(T, x0, generator, variance="beta-tilde", steps=None):
    diffusion = Diffusion(Schedule(linear(T).alpha_bar.double()), clip=None)
    denoise = closed_form_gaussian(diffusion, MEAN, STD**2)
    noise = lambda: torch.randn(x0.shape, generator=generator, dtype=x0.dtype)  # noqa: E731
    times = timesteps(diffusion.schedule, steps or T)
    return variational_bound(diffusion, denoise, x0, noise, times, variance)


def test_the_bound_meets_the_exact_likelihood(generator):
    x0 = gaussian_pixels(512, generator)
    bounds, exact = bound_of(1000, x0, generator, "beta").total, exact_bits(x0)
    error = bounds.std().item() / 512**0.5  # of the mean over 512 images, one draw for each term
    assert error < 0.03
    assert bounds.mean().item() == pytest.approx(exact, abs=4 * error)


def test_with_the_smaller_variance_it_is_looser_for_data_as_smooth_as_these(generator):
    x0 = gaussian_pixels(64, generator)
    exact = exact_bits(x0)
    loose = bound_of(1000, x0, generator, "beta-tilde").total.mean().item()
    assert exact + 0.1 < loose < exact + 1.5


def test_the_bound_tightens_with_more_steps(generator):
    x0 = gaussian_pixels(256, generator)
    exact = exact_bits(x0)
    gaps = [
        bound_of(1000, x0, generator, "beta", steps=n).total.mean().item() - exact
        for n in (20, 100, 1000)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[1] > 0.02


def test_its_parts_are_its_sum_and_the_prior_is_small(generator):
    x0 = gaussian_pixels(4, generator)
    bound = bound_of(100, x0, generator)
    assert bound.steps.shape == (99, 4)
    torch.testing.assert_close(bound.total, bound.prior + bound.steps.sum(0) + bound.decoder)
    assert 0 <= bound.prior.max() < 1e-3
    assert (bound.steps >= 0).all()


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("std", [1e-3, 0.01, 0.3, 2.0])
def test_the_decoder_is_a_distribution_over_256_levels(mean, std):
    levels = torch.arange(256) / 127.5 - 1
    log_p = discretized_log_likelihood(levels, torch.full_like(levels, mean), torch.tensor(std**2))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=2e-5)
    assert log_p.isfinite().all()


def test_a_network_has_a_bound_that_is_finite(generator):
    net = UNet(1, channels=8, mults=(1, 2), blocks=1, attention=(), groups=4).eval()
    diffusion = Diffusion(linear(50))
    x0 = gaussian_pixels(4, generator).float()
    noise = lambda: torch.randn(x0.shape, generator=generator)  # noqa: E731
    denoise = diffusion.denoiser(net)
    bound = variational_bound(diffusion, denoise, x0, noise, timesteps(diffusion.schedule, 50))
    assert bound.total.shape == (4,)
    assert bound.total.isfinite().all()
    assert bound.total.mean() > exact_bits(x0.double())
