"""The loss: its weights over time, and the times that it draws."""

import math
from dataclasses import replace

import pytest
import torch

from ddpm import Diffusion, Loss, Schedule, cosine, linear
from ddpm.core.schedule import SCHEDULES

VP = ("linear", "cosine", "sigmoid")
TARGETS = ("eps", "x0", "v", "u", "F")


def exact(schedule, target="eps"):
    """A diffusion in float64 without clipping, for comparisons to many digits."""
    return Diffusion(Schedule(schedule.alpha_bar.double()), target, clip=None)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", VP)
def test_a_network_that_knows_the_target_has_no_loss(name, target, generator):
    diffusion = exact(SCHEDULES[name](), target)
    x0, eps = torch.randn(2, 8, 1, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([1, 2, 10, 100, 500, 900, 990, 999])
    truth = diffusion.target_of(x0, eps, t)
    loss = Loss(diffusion)(lambda x, t, y: truth, x0, t, eps)
    torch.testing.assert_close(loss, torch.zeros(8, dtype=torch.float64))


def test_the_loss_is_the_mean_square_of_the_error_and_y_reaches_the_network(generator):
    x0, eps = torch.randn(2, 3, 1, 4, 4, generator=generator)
    t, y = torch.tensor([1, 500, 1000]), torch.tensor([0, 1, 2])
    net = lambda x, t, y: eps + y.view(-1, 1, 1, 1)  # noqa: E731
    loss = Loss(Diffusion(linear()))(net, x0, t, eps, y)
    torch.testing.assert_close(loss, torch.tensor([0.0, 1.0, 4.0]))


@pytest.mark.parametrize("min_weight", [0.0, 0.5])
def test_min_snr_is_one_weight_on_x0_whatever_the_target(min_weight, generator):
    x0, eps, guess = torch.randn(3, 16, 1, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.arange(60, 1000, 60)[:16]
    plain = exact(linear())
    x_t = plain.q_sample(x0, t, eps)
    a = plain.schedule.at(t, 4)
    # One and the same guess at x_0, told in the terms of each target.
    guess_eps = (x_t - a.sqrt() * guess) / (1 - a).sqrt()
    expected = plain.schedule.snr(t).clamp(min_weight, 5) * (guess - x0).square().flatten(1).mean(1)
    for target in TARGETS:
        weighted = Loss(exact(linear(), target), weight="min-snr", min_weight=min_weight)
        told = weighted.diffusion.target_of(guess, guess_eps, t)
        loss = weighted(lambda x, t, y, out=told: out, x0, t, eps)
        torch.testing.assert_close(loss, expected)


def test_times_are_drawn_over_all_of_the_chain(generator):
    uniform = Loss(Diffusion(linear(10))).sample_times(20_000, generator)
    assert set(uniform.tolist()) == set(range(1, 11))
    assert (uniform == 1).float().mean().item() == pytest.approx(0.1, abs=0.01)
    middle = Loss(Diffusion(linear()), time_sampling="logit-normal").sample_times(20_000, generator)
    assert middle.min() >= 1
    assert middle.max() <= 1000
    # 68.3 % of a standard normal lies within one of 0.
    inside = (middle > 1000 / (1 + math.e)) & (middle <= 1000 * math.e / (1 + math.e))
    assert inside.float().mean().item() == pytest.approx(0.683, abs=0.02)


def test_stratified_times_are_uniform_and_each_batch_has_all_of_the_chain(generator):
    loss = Loss(Diffusion(linear(1000)), time_sampling="stratified")
    batches = torch.stack([loss.sample_times(50, generator) for _ in range(2000)])
    assert batches.min() >= 1
    assert batches.max() <= 1000
    for batch in batches[:20]:  # one in each fiftieth of the chain
        assert set(((batch - 1) // 20).tolist()) == set(range(50))
    counts = torch.bincount((batches.flatten() - 1) // 100, minlength=10) / batches.numel()
    torch.testing.assert_close(counts, torch.full((10,), 0.1), rtol=0, atol=0.005)


@pytest.mark.parametrize("target", TARGETS)
def test_times_by_weight_have_the_loss_of_the_weighted_one(target, generator):
    """E over t ~ w/Σw of the plain loss is Σ w ℓ / Σ w."""
    uniform = Loss(Diffusion(cosine(100), target), weight="min-snr")
    by_weight = replace(uniform, time_sampling="by-weight")
    w = uniform.weight_at(torch.arange(1, 101))
    batches = torch.stack([by_weight.sample_times(50, generator) for _ in range(4000)])
    shares = torch.bincount(batches.flatten(), minlength=101)[1:] / batches.numel()
    torch.testing.assert_close(shares, w / w.sum(), rtol=0, atol=0.002)
    x0 = torch.randn(100, 1, 4, 4, generator=generator)
    eps, t = torch.randn(100, 1, 4, 4, generator=generator), torch.arange(1, 101)
    net = lambda x, t, y: 0.1 * x  # noqa: E731
    plain, weighted = by_weight(net, x0, t, eps), uniform(net, x0, t, eps)
    torch.testing.assert_close(w * plain, weighted)
