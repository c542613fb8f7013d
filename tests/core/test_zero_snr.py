"""Zero terminal SNR: a schedule that ends in noise alone, as sampling begins."""

from dataclasses import replace
from typing import get_args

import pytest
import torch

from closed_form import closed_form_gaussian
from ddpm import Diffusion, Loss, Schedule, UserError, cosine, linear, sample, timesteps
from ddpm.config import Config, DiffusionConfig
from ddpm.core.likelihood import variational_bound
from ddpm.core.sampling import SAMPLERS
from ddpm.core.schedule import SCHEDULES, zero_terminal_snr
from ddpm.core.types import Spacing
from ddpm.training.train import check_config


def test_the_last_step_is_noise_and_the_first_stays():
    for plain in (linear(), cosine()):
        ended = zero_terminal_snr(plain).alpha_bar
        assert ended[-1] == 0
        assert ended[0] == 1
        torch.testing.assert_close(ended[1], plain.alpha_bar[1])
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    diffusion = Diffusion(zero_terminal_snr(linear()), "v")
    assert torch.equal(diffusion.q_sample(x, 1000, 2 * x), 2 * x)
    assert diffusion.schedule.snr(1000) == 0


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("T", [2, 10, 1000, 4000])
def test_every_schedule_can_end_in_noise(name, T):
    assert zero_terminal_snr(SCHEDULES[name](T)).alpha_bar[-1] == 0


def test_what_cannot_end_in_noise_is_told():
    for schedule in (linear(1), SCHEDULES["edm"](10)):
        with pytest.raises(ValueError, match="for linear, cosine and sigmoid, and T = 2 or more"):
            zero_terminal_snr(schedule)
    for target in ("eps", "F"):
        with pytest.raises(ValueError, match="choose the target v, x0 or u"):
            Diffusion(zero_terminal_snr(linear()), target)
    for settings in ({"target": "eps", "zero_snr": True}, {"target": "F", "schedule": "flow"}):
        with pytest.raises(UserError, match=r"do not fit together.* choose the target v, x0 or u"):
            check_config(Config(steps=1, diffusion=DiffusionConfig(**settings)))
    assert check_config(
        Config(steps=1, diffusion=DiffusionConfig("flow", target="u", zero_snr=True))
    )


@pytest.mark.parametrize("spacing", get_args(Spacing))
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_every_sampler_begins_there(sampler, steps, spacing):
    schedule = zero_terminal_snr(Schedule(linear().alpha_bar.double()))
    diffusion = Diffusion(schedule, "v", clip=None)
    draws = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(20_000, 1, 1, 1, generator=draws, dtype=torch.float64)  # noqa: E731
    denoise = closed_form_gaussian(diffusion, mean=0.3, var=0.25)
    times = timesteps(schedule, steps, spacing)
    *_, last = sample(diffusion, denoise, noise, times, SAMPLERS[sampler])
    assert last.x.isfinite().all()
    assert last.x.mean().item() == pytest.approx(0.3, abs=0.03)
    if steps == 50 and spacing == "even":
        assert last.x.std().item() == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize("settings", [{"zero_snr": True}, {"schedule": "flow"}])
def test_a_loss_that_never_learns_the_last_time_is_refused(settings):
    never = DiffusionConfig(**settings, target="v", weight="min-snr")
    with pytest.raises(UserError, match="gives time T, whose SNR is 0, no weight: set min_weight"):
        check_config(Config(steps=1, diffusion=never))
    assert check_config(Config(steps=1, diffusion=replace(never, min_weight=0.5)))


@pytest.mark.parametrize("target", ["v", "x0", "u"])
@pytest.mark.parametrize("weight", ["simple", "min-snr"])
def test_the_loss_and_the_bound_are_finite_at_the_last_time(target, weight):
    diffusion = Diffusion(zero_terminal_snr(linear(100)), target)
    x0, eps = torch.randn(2, 100, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    net = lambda x, t, y: 0.1 * x  # noqa: E731
    assert (
        Loss(diffusion, weight, min_weight=0.5)(net, x0, torch.arange(1, 101), eps).isfinite().all()
    )
    times = list(range(100, -1, -1))
    bound = variational_bound(
        diffusion, diffusion.denoiser(net), x0[:4], lambda: torch.randn(4, 1, 4, 4), times
    )
    assert bound.total.isfinite().all()
    assert (bound.prior == 0).all()
