"""The loss: its weights over time, and the times that it draws."""

import math
from dataclasses import replace

import pytest
import torch

from ddpm import Diffusion, Loss, Schedule, cosine, linear
from ddpm.core.likelihood import discretized_log_likelihood, normal_kl
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


def learned(schedule, target="v"):
    return replace(exact(schedule, target), learned_variance=True)


def test_a_learned_variance_lies_between_the_papers_two(generator):
    x0, x_t = torch.randn(2, 4, 1, 4, 4, generator=generator, dtype=torch.float64)
    posterior = learned(linear()).q_posterior(x0, x_t, 499, 500)
    at = lambda v: posterior.variance("beta", torch.tensor(v).double())  # noqa: E731
    torch.testing.assert_close(at(-1.0), posterior.beta_tilde)
    torch.testing.assert_close(at(1.0), posterior.beta)
    torch.testing.assert_close(at(0.0), (posterior.beta * posterior.beta_tilde).sqrt())
    last = learned(linear()).q_posterior(x0, x_t, 0, 1)
    torch.testing.assert_close(last.variance("beta", torch.tensor(-1.0)), last.beta)


@pytest.mark.parametrize("target", TARGETS)
def test_the_hybrid_loss_is_the_bounds_term_beside_the_simple_one(target, generator):
    """Improved DDPM, Eq. 16, the terms by the bound's own functions; Eq. 15 by hand."""
    diffusion, T = learned(linear(100), target), 100
    x0 = (torch.randint(0, 256, (4, 1, 4, 4), generator=generator) / 127.5 - 1).double()
    eps, out, v = torch.randn(3, 4, 1, 4, 4, generator=generator, dtype=torch.float64)
    t, v = torch.tensor([1, 2, 50, 100]), v.clamp(-1, 1)
    hybrid = Loss(diffusion)(lambda x, t, y: torch.cat([out, v], 1), x0, t, eps)
    plain = replace(diffusion, learned_variance=False)
    simple = Loss(plain)(lambda x, t, y: out, x0, t, eps)
    x_t = diffusion.q_sample(x0, t, eps)
    guess = plain.predict(lambda x, t, y: out, x_t, t).x0
    p, q = (plain.q_posterior(x, x_t, t - 1, t) for x in (guess, x0))
    share = (v + 1) / 2
    var = (share * p.beta.log() + (1 - share) * p.beta_tilde.log()).exp()
    terms = normal_kl(q.mean, q.beta_tilde, p.mean, var)
    terms[0] = -discretized_log_likelihood(x0, p.mean, p.beta)[0]
    vlb = terms.flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(hybrid, simple + 0.001 * T * vlb)


def test_the_bound_teaches_the_variance_alone(generator):
    """Every gradient is finite, that of the mean is L_simple's, and v finds the true variance."""
    diffusion = replace(Diffusion(cosine(100), "v"), learned_variance=True)
    x0 = torch.randint(0, 256, (100, 1, 4, 4), generator=generator) / 127.5 - 1
    eps, t = torch.randn(100, 1, 4, 4, generator=generator), torch.arange(1, 101)
    out = torch.randn(100, 2, 4, 4, generator=generator).requires_grad_()
    Loss(diffusion)(lambda x, t, y: out, x0, t, eps).sum().backward()
    assert out.grad.isfinite().all()
    mean = out.detach()[:, :1].requires_grad_()
    plain = Loss(replace(diffusion, learned_variance=False))
    plain(lambda x, t, y: mean, x0, t, eps).sum().backward()
    torch.testing.assert_close(out.grad[:, :1], mean.grad)
    assert (out.grad[1:, 1:] != 0).all()
    # The best variance about a mean that is right is β̃, v = −1, and v may only fall to it.
    truth = diffusion.target_of(x0, eps, t)
    v = torch.zeros(100, 1, 4, 4, requires_grad=True)
    Loss(diffusion)(lambda x, t, y: torch.cat([truth, v], 1), x0, t, eps).sum().backward()
    assert (v.grad[1:] > 0).all()


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


@pytest.mark.parametrize("times", ["by-weight", "log-normal", "logit-normal"])
def test_a_variance_is_not_learned_where_times_are_drawn_unevenly(times):
    """L_vlb is a mean over times, and the first, which are most of it, would be drawn seldom."""
    diffusion = Diffusion(cosine(100), "v", learned_variance=True)
    with pytest.raises(ValueError, match="time_sampling uniform or stratified"):
        Loss(diffusion, time_sampling=times)
    assert Loss(diffusion, time_sampling="stratified")
