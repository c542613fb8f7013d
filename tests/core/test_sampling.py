"""The samplers, against data for which the best denoiser is known in closed form."""

from functools import partial
from itertools import pairwise
from typing import get_args

import pytest
import torch

from closed_form import closed_form_gaussian, mixture
from ddpm import (
    Churn,
    Diffusion,
    ImageNoise,
    Prediction,
    Schedule,
    cosine,
    ddim_step,
    ddpm_step,
    dpmpp_step,
    heun_step,
    linear,
    sample,
    sigmoid,
    timesteps,
)
from ddpm.core.sampling import SAMPLERS, eps_scaled, named_step
from ddpm.core.schedule import SCHEDULES, edm, flow, zero_terminal_snr
from ddpm.core.types import SamplerName, ScheduleName, Spacing

STEPS = {
    "ddpm": ddpm_step,
    "ddpm, beta": partial(ddpm_step, variance="beta"),
    "ddim": ddim_step,
    "ddim, eta 0.5": partial(ddim_step, eta=0.5),
    "dpm++": dpmpp_step,
    "dpm++sde": partial(dpmpp_step, eta=1.0),
    "heun": heun_step,
}


def doubles(schedule):
    return Diffusion(Schedule(schedule.alpha_bar.double()), clip=None)


def last(states):
    *_, state = states
    return state.x


def normal(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(n, 1, 1, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("schedule", [linear(), cosine()], ids=["linear", "cosine"])
def test_samples_of_a_gaussian_have_its_mean_and_variance(name, schedule):
    diffusion = doubles(schedule)
    denoise = closed_form_gaussian(diffusion, mean=0.3, var=0.04)
    x = last(
        sample(diffusion, denoise, normal(10_000), timesteps(diffusion.schedule, 1000), STEPS[name])
    )
    assert x.mean().item() == pytest.approx(0.3, abs=0.01)
    assert x.std().item() == pytest.approx(0.2, rel=0.03)


@pytest.mark.parametrize("name", STEPS)
def test_samples_of_a_mixture_come_in_its_proportions(name):
    diffusion = doubles(linear())
    denoise = mixture(diffusion, means=(-0.8, 0.5), weights=(0.3, 0.7), std=0.1)
    x = last(
        sample(diffusion, denoise, normal(10_000), timesteps(diffusion.schedule, 1000), STEPS[name])
    )
    low = x < 0
    assert low.double().mean().item() == pytest.approx(0.3, abs=0.02)
    assert x[low].mean().item() == pytest.approx(-0.8, abs=0.02)
    assert x[~low].std().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(("step", "order"), [(ddim_step, 1), (dpmpp_step, 2), (heun_step, 2)])
def test_deterministic_samplers_converge_at_their_order(step, order):
    """From noise to time 1 the exact flow of a Gaussian is a straight scaling about its mean."""
    T, mean, std = 20_000, 0.3, 0.5
    diffusion = doubles(cosine(T))
    a = diffusion.schedule.alpha_bar
    lam = diffusion.schedule.snr(torch.arange(1, T + 1)).log() / 2
    x_T = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None, None, None]
    start, end = 19_000, 2_000
    spread = lambda t: (a[t] * std**2 + 1 - a[t]).sqrt()  # noqa: E731
    exact = a[end].sqrt() * mean + spread(end) / spread(start) * (x_T - a[start].sqrt() * mean)

    def error(steps):
        goals = torch.linspace(lam[start - 1].item(), lam[end - 1].item(), steps + 1)
        times = [1 + int((lam - goal).abs().argmin()) for goal in goals]
        denoise = closed_form_gaussian(diffusion, mean, std**2)
        return (last(sample(diffusion, denoise, lambda: x_T, times, step)) - exact).abs().max()

    ratio = (error(100) / error(200)).item()
    assert ratio == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize(
    ("step", "order"), [(partial(ddim_step, eta=1.0), 1), (partial(dpmpp_step, eta=1.0), 2)]
)
def test_stochastic_samplers_converge_in_law_at_their_order(step, order):
    """For a Gaussian each step is linear, so that the variance is a sum over the draws: image 0 has
    no noise, image 1 that of the beginning, and each of the others that of one step."""
    T, mean, std = 20_000, 0.3, 0.5
    diffusion = doubles(cosine(T))
    a = diffusion.schedule.alpha_bar
    lam = diffusion.schedule.snr(torch.arange(1, T + 1)).log() / 2
    start, end = 17_000, 5_000
    denoise = closed_form_gaussian(diffusion, mean, std**2)

    def error(steps):
        goals = torch.linspace(lam[start - 1].item(), lam[end - 1].item(), steps + 1)
        times = [1 + int((lam - goal).abs().argmin()) for goal in goals]
        drawn = iter(torch.eye(steps + 2, dtype=torch.float64)[2:])
        x = torch.zeros(steps + 2, dtype=torch.float64)
        x[1] = 1
        x = last(sample(diffusion, denoise, lambda: next(drawn), times, step, start=x))
        gain = x - x[0]
        torch.testing.assert_close(x[0] + gain[1] * a[start].sqrt() * mean, a[end].sqrt() * mean)
        variance = gain[1] ** 2 * (a[start] * std**2 + 1 - a[start]) + gain[2:].square().sum()
        return variance - (a[end] * std**2 + 1 - a[end])

    assert (error(100) / error(200)).item() == pytest.approx(2**order, rel=0.15)


def doubled_edm(T=200):
    """EDM's own range of σ, in float64, with the pair's a = 1 and s = σ beside it."""
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    sigma = torch.linspace(low, high, T, dtype=torch.float64) ** 7
    sigma = torch.cat([torch.zeros(1, dtype=torch.float64), sigma])
    return Diffusion(Schedule(1 / (1 + sigma**2)), "v", clip=None), sigma


@pytest.mark.parametrize("amount", [0.0, 3.0, 80.0])
def test_heun_with_churn_is_edms_algorithm_2(amount, generator):
    """Written as in the paper, in x = x_0 + σ ε; t̂ is the nearest time of the schedule."""
    diffusion, sigma = doubled_edm()
    churn = Churn(amount, s_tmin=0.05, s_tmax=50.0, s_noise=1.003)
    times = timesteps(diffusion.schedule, 18, "rho")
    normals = torch.randn(100, 4, generator=generator, dtype=torch.float64)
    best = mixture(diffusion, means=(-0.8, 0.5), weights=(0.3, 0.7), std=0.1)

    def D(x, t):
        return best(x / (1 + sigma[t] ** 2).sqrt(), t).x0

    draws = iter(normals)
    x = sigma[-1] * next(draws)
    x = x * ((1 + sigma[-1] ** 2).sqrt() / sigma[-1])  # ours begins with N(0, 1 + σ²)
    gamma = min(amount / 18, 2**0.5 - 1)
    for t, s in pairwise(times):
        up = t
        if 0.05 <= sigma[t] <= 50:
            up = int((sigma - (1 + gamma) * sigma[t]).abs().argmin())
        if up > t:
            x = x + (sigma[up] ** 2 - sigma[t] ** 2).sqrt() * 1.003 * next(draws)
        d = (x - D(x, up)) / sigma[up]
        x_s = x + (sigma[s] - sigma[up]) * d
        if s:
            x_s = x + (sigma[s] - sigma[up]) * (d + (x_s - D(x_s, s)) / sigma[s]) / 2
        x = x_s
    draws = iter(normals)
    ours = last(sample(diffusion, best, lambda: next(draws), times, heun_step, churn=Churn(*churn)))
    torch.testing.assert_close(ours, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpm++"])
@pytest.mark.parametrize("schedule", ["linear", "edm"])
def test_samples_with_churn_have_the_right_law(name, schedule):
    """As much noise as there can be: Langevin's equation, in effect, which forgets errors."""
    diffusion = doubled_edm()[0] if schedule == "edm" else doubles(linear())
    denoise = closed_form_gaussian(diffusion, mean=0.3, var=0.04)
    times = timesteps(diffusion.schedule, 200 if schedule == "edm" else 300)
    x = last(sample(diffusion, denoise, normal(10_000), times, SAMPLERS[name], churn=Churn(30.0)))
    assert x.mean().item() == pytest.approx(0.3, abs=0.01)
    assert x.std().item() == pytest.approx(0.2, rel=0.03 if name == "heun" else 0.1)


def test_churn_is_between_its_bounds_and_none_where_no_higher_time_is():
    diffusion, sigma = doubled_edm()
    times = timesteps(diffusion.schedule, 20, "rho")
    raised = Churn(1e9, s_tmin=1.0, s_tmax=10.0).t_hat(diffusion.schedule, times)
    assert set(raised) == {t for t in times if 1 <= sigma[t] <= 10}
    for t, up in raised.items():
        assert (sigma[up] / sigma[t]).item() == pytest.approx(2**0.5, rel=0.02)
    everywhere = Churn(1e9).t_hat(diffusion.schedule, times)
    assert everywhere[200] == 200
    ended = zero_terminal_snr(linear())
    assert 1000 not in Churn(1e9).t_hat(ended, timesteps(ended, 20))


def test_the_two_variances_of_the_paper_enclose_the_truth():
    """β is too wide and β̃ too narrow for data that are neither N(0, I) nor a point."""
    diffusion = doubles(linear())
    denoise = closed_form_gaussian(diffusion, mean=0.3, var=0.04)
    widths = [
        last(
            sample(
                diffusion, denoise, normal(50_000), timesteps(diffusion.schedule, 50), STEPS[name]
            )
        ).std()
        for name in ("ddpm", "ddpm, beta")
    ]
    assert widths[0] < 0.2 < widths[1]


def test_ddim_at_eta_1_is_the_ancestral_step(generator):
    diffusion = doubles(linear())
    x_t, x0, z = torch.randn(3, 4, 1, 8, 8, generator=generator, dtype=torch.float64)
    for s, t in [(0, 1), (0, 400), (1, 2), (300, 301), (100, 900), (999, 1000)]:
        a = diffusion.schedule.at(t)
        pred = Prediction(x0, (x_t - a.sqrt() * x0) / (1 - a).sqrt())
        ancestral = ddpm_step(diffusion, x_t, pred, s, t, lambda: z)
        torch.testing.assert_close(
            ddim_step(diffusion, x_t, pred, s, t, lambda: z, eta=1.0), ancestral
        )


@pytest.mark.parametrize("name", STEPS)
def test_a_strided_chain_is_the_chain_of_the_respaced_process(name):
    diffusion = doubles(linear())
    times = timesteps(diffusion.schedule, 20)
    respaced = Diffusion(Schedule(diffusion.schedule.alpha_bar[times[::-1]]), clip=None)
    denoise = closed_form_gaussian(diffusion, 0.3, 0.04)
    strided = last(sample(diffusion, denoise, normal(4), times, STEPS[name]))
    denoise = closed_form_gaussian(respaced, 0.3, 0.04)
    whole = last(
        sample(respaced, denoise, normal(4), timesteps(respaced.schedule, 20), STEPS[name])
    )
    torch.testing.assert_close(strided, whole)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_a_step_is_one_evaluation_or_two_and_each_state_is_yielded(name, steps):
    diffusion, calls = doubles(linear(100)), []
    gaussian = closed_form_gaussian(diffusion, 0.0, 0.25)

    def denoise(x_t, t):
        calls.append(t)
        return gaussian(x_t, t)

    states = list(sample(diffusion, denoise, normal(2), timesteps(linear(100), steps), STEPS[name]))
    assert [s.t for s in states] == timesteps(linear(100), steps)
    assert states[0].x0 is None
    times = [s.t for s in states[:-1]]
    second = times[1:] if name == "heun" else []  # Heun looks at both ends of a step, but at 0
    assert sorted(calls) == sorted(times + second)
    torch.testing.assert_close(states[-1].x, states[-1].x0)  # at time 0, x is the prediction


@pytest.mark.parametrize("steps", [0, -1, 101])
def test_more_steps_than_T_or_none_are_refused(steps):
    with pytest.raises(ValueError, match="between 1 and T = 100"):
        timesteps(linear(100), steps)


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_every_number_of_steps_gives_times_that_fall(spacing):
    for steps in range(1, 101):
        for schedule in (linear(100), cosine(100), sigmoid(100), zero_terminal_snr(linear(100))):
            times = timesteps(schedule, steps, spacing)
            assert len(times) == steps + 1
            assert times[0] == 100
            assert times[-1] == 0
            assert all(t > s for t, s in pairwise(times))


def test_spacings_are_what_they_are_called():
    schedule = cosine(1000)
    assert timesteps(schedule, 4) == [1000, 750, 500, 250, 0]
    assert timesteps(schedule, 4, "quadratic") == [1000, 562, 250, 62, 0]
    assert timesteps(schedule, 4, "root") == [1000, 866, 707, 500, 0]
    schedule = linear(1000)
    times = timesteps(schedule, 10, "log-snr")
    assert times[-2] == 1
    gaps = torch.stack([schedule.snr(t).log() for t in times[:-1]]).diff()
    assert gaps.std() < 0.1 * gaps.mean()
    roots = torch.stack([schedule.snr(t) ** (-1 / 14) for t in timesteps(schedule, 10, "rho")[:-1]])
    assert roots.diff().std() < 0.1 * roots.diff().mean().abs()


def test_rho_ends_at_the_sigma_of_edm_and_one_step_leads_there_from_above():
    schedule = cosine(1000)
    assert schedule.snr(1000) ** -0.5 > 1000
    times = timesteps(schedule, 12, "rho", 0.2)
    sigmas = torch.stack([schedule.snr(t) ** -0.5 for t in times[1:-1]])
    assert 70 < sigmas[0] <= 80.1  # no time is nearer to 80
    roots = sigmas ** (1 / 7)
    assert roots.diff().std() < 0.1 * roots.diff().mean().abs()
    assert times[0] == 1000


@pytest.mark.parametrize("spacing", ["rho", "log-snr"])
def test_the_last_step_begins_at_the_noise_that_is_asked_for(spacing):
    for schedule in (linear(1000), edm(1000), zero_terminal_snr(cosine(1000))):
        assert timesteps(schedule, 10, spacing, 0.0) == timesteps(schedule, 10, spacing)
        times = timesteps(schedule, 10, spacing, 0.1)
        assert len(times) == 11
        assert schedule.snr(times[-2]) ** -0.5 >= 0.1 > schedule.snr(times[-2] - 1) ** -0.5
        assert times[0] == 1000
        assert all(t > s for t, s in pairwise(timesteps(schedule, 1000, spacing, 0.1)))
        assert timesteps(schedule, 3, spacing, 1e9)[0] == 1000
    assert timesteps(linear(100), 10, "even", 0.1) == timesteps(linear(100), 10, "even")


def test_images_have_noise_of_their_own_in_any_batch():
    together = ImageNoise(7, range(6), (1, 4, 4))
    alone = [ImageNoise(7, [i], (1, 4, 4)) for i in range(6)]
    for _ in range(3):
        torch.testing.assert_close(together(), torch.cat([n() for n in alone]), rtol=0, atol=0)
    first, other = ImageNoise(7, range(2), (1, 4, 4))(), ImageNoise(8, range(2), (1, 4, 4))()
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    wide = ImageNoise(0, range(200), (1, 28, 28))()
    assert wide.mean().abs() < 0.01
    assert wide.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("name", "options", "like"),
    [("ddpm", {}, "ddpm"), ("ddpm", {"variance": "beta"}, "ddpm, beta"), ("ddim", {}, "ddim"),
     ("ddim", {"eta": 0.5}, "ddim, eta 0.5"), ("dpm++", {"eta": 0.5}, "dpm++"),
     ("heun", {"variance": "beta"}, "heun")],
)  # fmt: skip
def test_a_sampler_is_found_by_name_with_the_option_that_is_its_own(name, options, like, generator):
    diffusion, x = doubles(linear()), torch.randn(2, 1, 4, 4, generator=generator).double()
    pred = Prediction(x, x)
    denoise = closed_form_gaussian(diffusion, mean=0.0, var=1.0)
    found, expected = (
        step(diffusion, x, pred, 10, 20, lambda: x, None, denoise)
        for step in (named_step(name, **options), STEPS[like])
    )
    torch.testing.assert_close(found, expected)


def test_every_name_that_a_setting_may_have_is_registered():
    assert set(SAMPLERS) == set(get_args(SamplerName))
    assert set(SCHEDULES) == set(get_args(ScheduleName))


def test_a_denoiser_is_the_network_and_the_class():
    diffusion = Diffusion(linear(10), "x0", clip=None)
    net = lambda x, t, y: x * y.view(-1, 1, 1, 1)  # noqa: E731
    x = torch.ones(2, 1, 2, 2)
    pred = diffusion.denoiser(net, torch.tensor([2, 3]))(x, 5)
    assert pred.x0[:, 0, 0, 0].tolist() == [2, 3]
    torch.testing.assert_close(diffusion.q_sample(pred.x0, 5, pred.eps), x)


def test_scaled_noise_agrees_with_x_t_and_is_clipped_as_predictions_are():
    diffusion, x_t = Diffusion(linear(10), "x0"), torch.linspace(-3, 3, 8).view(2, 1, 2, 2)
    open_ended = Diffusion(linear(10), "x0", clip=None)
    denoise = closed_form_gaussian(diffusion, mean=0.0, var=0.25)
    assert eps_scaled(diffusion, denoise, 1.0) is denoise
    pred = eps_scaled(open_ended, denoise, 1.25)(x_t, 5)
    torch.testing.assert_close(pred.eps, denoise(x_t, 5).eps / 1.25)
    for of in (open_ended, diffusion):
        pred = eps_scaled(of, denoise, 1.25)(x_t, 5)
        torch.testing.assert_close(of.q_sample(pred.x0, 5, pred.eps), x_t)
    assert pred.x0.abs().max() == 1


def test_scaled_noise_keeps_what_is_predicted_of_nothing_but_noise():
    diffusion, x_T = Diffusion(flow(10), "u"), torch.linspace(-3, 3, 8).view(2, 1, 2, 2)
    denoise = closed_form_gaussian(diffusion, mean=0.3, var=0.25)
    pred, kept = eps_scaled(diffusion, denoise, 1.01)(x_T, 10), denoise(x_T, 10)
    torch.testing.assert_close((pred.x0, pred.eps), (kept.x0, kept.eps))


@pytest.mark.parametrize("step", [ddim_step, dpmpp_step, STEPS["dpm++sde"], heun_step])
def test_scaled_noise_undoes_what_a_network_takes_too_much(step):
    """A network whose ε̂ is 3 % too large makes, at λ = 1.03, the images of the exact one."""
    diffusion = doubles(edm(1000))
    exact = closed_form_gaussian(diffusion, mean=0.3, var=0.25)
    times = timesteps(diffusion.schedule, 12, "rho", 0.02)

    def greedy(x_t, t):
        eps, a = 1.03 * exact(x_t, t).eps, diffusion.schedule.at(t)
        return Prediction((x_t - (1 - a).sqrt() * eps) / a.sqrt(), eps)

    def made(denoise):
        return last(sample(diffusion, denoise, normal(50), times, step))

    assert not torch.allclose(made(greedy), made(exact), atol=1e-3)
    torch.testing.assert_close(made(eps_scaled(diffusion, greedy, 1.03)), made(exact))


@pytest.mark.parametrize("step", [ddim_step, dpmpp_step, STEPS["dpm++sde"], heun_step])
def test_few_even_steps_from_a_cosine_schedules_end_come_near_the_data(step):
    """At T a cosine schedule has σ in the thousands, which no slope may be multiplied by."""
    diffusion = doubles(cosine())
    denoise = closed_form_gaussian(diffusion, mean=0.3, var=0.25)
    times = timesteps(diffusion.schedule, 20)
    x = last(sample(diffusion, denoise, normal(20_000), times, step))
    assert x.mean().item() == pytest.approx(0.3, abs=0.02)
    assert x.std().item() == pytest.approx(0.5, rel=0.1)
