"""Between two images, near one, and in the gaps of one: against closed forms."""

import math

import pytest
import torch

from closed_form import closed_form_gaussian
from ddpm import (
    Diffusion,
    Prediction,
    Schedule,
    cosine,
    ddim_step,
    inpaint,
    invert,
    sample,
    slerp,
    timesteps,
)


def doubles(T=100):
    return Diffusion(Schedule(cosine(T).alpha_bar.double()), clip=None)


def normal(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, generator=g, dtype=torch.float64)


def last(states):
    *_, state = states
    return state.x


# ---- into noise ------------------------------------------------------------------------------


def test_inversion_finds_the_noise_that_an_image_comes_from_at_first_order(generator):
    """For a Gaussian the flow is a scaling about its mean, known at every time."""
    mean, std = 0.3, 0.5
    diffusion = Diffusion(Schedule(cosine(4000).alpha_bar.double()), clip=None)
    a = diffusion.schedule.alpha_bar
    denoise = closed_form_gaussian(diffusion, mean, std**2)
    x0 = torch.randn(5, 1, 2, 2, generator=generator, dtype=torch.float64)
    top = 3600
    spread = (a[top] * std**2 + 1 - a[top]).sqrt() / std
    exact = a[top].sqrt() * mean + spread * (x0 - mean)

    def errors(steps):
        times = [top * i // steps for i in range(steps, -1, -1)]
        x_t = invert(diffusion, denoise, x0, times)
        back = last(sample(diffusion, denoise, None, times, ddim_step, start=x_t))
        return (x_t - exact).abs().max(), (back - x0).abs().max()

    for coarse, fine in zip(errors(100), errors(200), strict=True):
        assert (coarse / fine).item() == pytest.approx(2, rel=0.15)
    assert errors(1800)[1] < 5e-3


def test_inversion_is_the_mirror_of_ddims_step(generator):
    """From any s > 0, the same straight line in x/√ᾱ: with one slope they cancel."""
    diffusion = doubles()
    x, eps = torch.randn(2, 5, 1, 2, 2, generator=generator, dtype=torch.float64)

    def denoise(x_t, t):
        a = diffusion.schedule.at(t)
        return Prediction((x_t - (1 - a).sqrt() * eps) / a.sqrt(), eps)

    times = [100, 60, 20, 0]
    x_t = invert(diffusion, denoise, x, times)
    back = last(sample(diffusion, denoise, None, times, ddim_step, start=x_t))
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x_t, diffusion.q_sample(x, 100, eps))


# ---- between ---------------------------------------------------------------------------------


def test_slerp_keeps_to_the_sphere(generator):
    a, b = torch.randn(2, 7, 3, 16, 16, generator=generator)
    u = torch.linspace(0, 1, 7)
    x = slerp(a, b, u)
    torch.testing.assert_close(x[0], a[0])
    torch.testing.assert_close(x[-1], b[-1])
    norms = x.flatten(1).norm(dim=1)
    between = torch.stack([a, b]).flatten(2).norm(dim=2)
    assert (norms > between.min(0).values - 0.5).all()
    straight = ((1 - u.view(-1, 1, 1, 1)) * a + u.view(-1, 1, 1, 1) * b).flatten(1).norm(dim=1)
    assert straight[3] < 0.8 * norms[3]


def test_slerp_is_a_quarter_of_a_circle_between_what_is_orthogonal():
    e1, e2 = torch.eye(2)
    u = torch.linspace(0, 1, 5)
    angle = u[:, None] * math.pi / 2
    x = slerp(e1.expand(5, 2), e2.expand(5, 2), u)
    torch.testing.assert_close(x, angle.cos() * e1 + angle.sin() * e2)


def test_between_an_image_and_itself_is_the_image(generator):
    a = torch.randn(3, 1, 4, 4, generator=generator)
    torch.testing.assert_close(slerp(a, a, torch.tensor([0.0, 0.3, 1.0])), a)


# ---- near ------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [20, 60, 100])
def test_variations_of_a_gaussian(t):
    """x_t = √ᾱ x_0 + √(1−ᾱ) ε, and the flow to time 0 is a scaling: x'_0 = c x_t / √(ᾱ c² + 1 − ᾱ).
    So x'_0 ~ N(·, c²) again, and the less is kept of x_0 the larger t."""
    diffusion, c = doubles(), 0.5
    denoise = closed_form_gaussian(diffusion, mean=0.0, var=c**2)
    a = diffusion.schedule.at(t).item()
    draw = normal(20_000, 1, 1, 1)
    x0 = c * draw()
    start = diffusion.q_sample(x0, t, draw())
    x = last(sample(diffusion, denoise, draw, list(range(t, -1, -1)), ddim_step, start))
    assert x.std().item() == pytest.approx(c, rel=0.05)
    correlation = torch.corrcoef(torch.stack([x0.flatten(), x.flatten()]))[0, 1].item()
    kept = a**0.5 * c / (a * c**2 + 1 - a) ** 0.5
    assert correlation == pytest.approx(kept, abs=0.03)


# ---- gaps ------------------------------------------------------------------------------------


def two_pixels(diffusion, rho):
    """E[x_0 | x_t] for pairs of pixels of variance 1 and correlation ρ."""
    cov = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)

    def denoise(x_t, t):
        a = diffusion.schedule.at(t)
        gain = a.sqrt() * cov @ torch.linalg.inv(a * cov + (1 - a) * torch.eye(2).double())
        x0 = x_t @ gain
        return Prediction(x0, (x_t - a.sqrt() * x0) / (1 - a).sqrt())

    return denoise


def painted(rounds, rho=0.9, known=1.5):
    diffusion = doubles()
    x0 = torch.tensor([known, 0.0], dtype=torch.float64)
    mask = torch.tensor([0.0, 1.0], dtype=torch.float64)
    times = timesteps(diffusion.schedule, 50)
    draw = normal(4000, 1, 1, 2)
    x = last(inpaint(diffusion, two_pixels(diffusion, rho), draw, times, x0, mask, rounds=rounds))
    assert (x[..., 0] == known).all()
    return x[..., 1]


def test_inpainting_draws_from_the_conditional():
    """p(x_2 | x_1) = N(ρ x_1, 1 − ρ²)."""
    x = painted(rounds=20)
    assert x.mean().item() == pytest.approx(0.9 * 1.5, abs=0.1)
    assert x.std().item() == pytest.approx((1 - 0.9**2) ** 0.5, rel=0.2)


def test_more_rounds_fit_better():
    far = [abs(painted(rounds).mean().item() - 0.9 * 1.5) for rounds in (1, 4, 16)]
    assert far[0] > 1.5 * far[1] > 2 * far[2]


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="one round or more"):
        painted(rounds=0)
