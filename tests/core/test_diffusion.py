"""The forward process and its posterior, against what the papers define and Bayes' rule."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm import Diffusion, Schedule, cosine, linear, sigmoid
from ddpm.core.schedule import SCHEDULES

VP = ("linear", "cosine", "sigmoid")
TARGETS = ("eps", "x0", "v", "u", "F")


def exact(schedule, target="v"):
    """A diffusion in float64 without clipping, for comparisons to many digits."""
    return Diffusion(Schedule(schedule.alpha_bar.double()), target, clip=None)


def test_linear_is_the_product_of_the_papers_betas():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    expected = torch.cumprod(1 - betas, 0)
    assert linear().alpha_bar.dtype == torch.float32
    torch.testing.assert_close(linear().alpha_bar[1:].double(), expected, rtol=1e-6, atol=0)


def test_cosine_is_equation_17_until_beta_is_clipped():
    t = torch.arange(1001, dtype=torch.float64)
    f = torch.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(cosine().alpha_bar.double(), f / f[0], rtol=0, atol=1e-6)
    assert cosine().alpha_bar[-1] > 0


def test_sigmoid_runs_from_data_to_noise_symmetrically():
    alpha_bar = sigmoid().alpha_bar
    assert alpha_bar[500] == pytest.approx(0.5, abs=1e-4)
    torch.testing.assert_close(alpha_bar[:999], 1 - alpha_bar.flip(0)[:999], rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [1, 2, 10, 100, 1000, 2000, 4000])
def test_any_number_of_steps_makes_a_schedule(name, T):
    if name == "edm" and T == 4000:  # one step of σ is less than float32 can tell
        with pytest.raises(ValueError, match="T = 4000 is too many"):
            SCHEDULES[name](T)
        return
    schedule = SCHEDULES[name](T)
    assert schedule.T == T
    assert schedule.alpha_bar[0] == 1
    if T >= 10:
        assert schedule.alpha_bar[-1] < 0.01


@pytest.mark.parametrize(
    "alpha_bar", [[1.0], [0.9, 0.5], [1.0, 0.5, 0.5], [1.0, -0.1], [[1.0, 0.5]]]
)
def test_what_is_no_schedule_is_refused(alpha_bar):
    with pytest.raises(ValueError, match="alpha_bar must"):
        Schedule(torch.tensor(alpha_bar))


def test_times_outside_the_process_are_refused():
    with pytest.raises(ValueError, match="outside"):
        linear(10).at(-1)
    with pytest.raises(ValueError, match="outside"):
        linear(10).at(11)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_chain_of_single_steps_is_the_closed_form(name):
    diffusion = exact(SCHEDULES[name](200))
    scale, variance = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    for t in range(1, 201):
        scale = diffusion.q_sample(scale, t, zero, s=t - 1)
        step_noise = diffusion.q_sample(zero, t, one, s=t - 1)
        variance = diffusion.q_sample(variance.sqrt(), t, zero, s=t - 1) ** 2 + step_noise**2
        torch.testing.assert_close(scale, diffusion.q_sample(one, t, zero))
        torch.testing.assert_close(variance, diffusion.q_sample(zero, t, one) ** 2)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.integers(1, 98),
    st.integers(1, 99),
    st.floats(-1, 1),
    st.floats(-2, 2),
)
def test_the_posterior_is_bayes_rule(name, s, gap, x0, x_t):
    t = min(s + gap, 100)
    diffusion = exact(SCHEDULES[name](100))
    a_s, a_t = (diffusion.schedule.alpha_bar[i].item() for i in (s, t))
    posterior = diffusion.q_posterior(
        torch.tensor([x0], dtype=torch.float64), torch.tensor([x_t], dtype=torch.float64), s, t
    )
    # q(x_s|x_t,x_0) ∝ q(x_t|x_s) q(x_s|x_0), normalised on a grid of x_s around its bulk.
    centre, width = posterior.mean.item(), posterior.beta_tilde.sqrt().item()
    x_s = torch.linspace(centre - 12 * width, centre + 12 * width, 20_001, dtype=torch.float64)
    log_q = -((x_s - math.sqrt(a_s) * x0) ** 2) / (2 * (1 - a_s))
    log_q = log_q - (x_t - math.sqrt(a_t / a_s) * x_s) ** 2 / (2 * (1 - a_t / a_s))
    q = (log_q - log_q.max()).exp()
    q = q / q.sum()
    mean = (q * x_s).sum()
    variance = (q * (x_s - mean) ** 2).sum()
    assert mean.item() == pytest.approx(centre, abs=1e-6)
    assert variance.item() == pytest.approx(width**2, rel=1e-6)


def test_single_steps_have_the_papers_variances():
    diffusion, betas = exact(linear()), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    x = torch.zeros(1, dtype=torch.float64)
    for t in (2, 500, 1000):
        posterior = diffusion.q_posterior(x, x, t - 1, t)
        assert posterior.beta.item() == pytest.approx(betas[t - 1].item(), rel=1e-3)
        assert posterior.beta_tilde < posterior.beta
    assert diffusion.q_posterior(x, x, 0, 1).beta_tilde == 0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", VP)
def test_every_target_is_turned_back_into_x0_and_eps(name, target, generator):
    diffusion = exact(SCHEDULES[name](), target)
    x0 = torch.randn(8, 1, 4, 4, generator=generator, dtype=torch.float64)
    eps = torch.randn(8, 1, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([1, 2, 10, 100, 500, 900, 990, 999])
    x_t = diffusion.q_sample(x0, t, eps)
    a = diffusion.schedule.at(t, 4)
    known = {"eps": eps, "x0": x0, "v": a.sqrt() * eps - (1 - a).sqrt() * x0, "u": eps - x0}
    truth = diffusion.target_of(x0, eps, t)
    torch.testing.assert_close(truth, known.get(target, truth))
    prediction = diffusion.predict(lambda x, t, y: truth, x_t, t)
    torch.testing.assert_close(prediction.x0, x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(prediction.eps, eps, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_after_clipping_eps_is_what_is_left(target, generator):
    diffusion = Diffusion(linear(), target)
    x_t = 3 * torch.randn(4, 1, 8, 8, generator=generator)
    out = 3 * torch.randn(4, 1, 8, 8, generator=generator)
    prediction = diffusion.predict(lambda x, t, y: out, x_t, 300)
    assert prediction.x0.abs().max() == 1
    torch.testing.assert_close(diffusion.q_sample(prediction.x0, 300, prediction.eps), x_t)


def test_times_for_each_image_and_one_for_all_agree(generator):
    diffusion = Diffusion(cosine())
    x0, eps = torch.randn(2, 3, 1, 4, 4, generator=generator)
    t, s = torch.full((3,), 700), torch.full((3,), 300)
    torch.testing.assert_close(diffusion.q_sample(x0, t, eps), diffusion.q_sample(x0, 700, eps))
    each, all_ = diffusion.q_posterior(x0, eps, s, t), diffusion.q_posterior(x0, eps, 300, 700)
    torch.testing.assert_close(each.mean, all_.mean)
    torch.testing.assert_close(each.beta.flatten(), all_.beta.expand(3))
