"""DDIM's step is Euler's, in EDM's variables and in those of rectified flow, to rounding."""

import pytest
import torch
from torch import Tensor

from ddpm.core.diffusion import Diffusion
from ddpm.core.sampling import ddim_step
from ddpm.core.schedule import SCHEDULES, Schedule
from ddpm.core.types import Prediction


def no_noise() -> Tensor:
    raise AssertionError("a deterministic step drew noise")


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize(("s", "t"), [(0, 1), (0, 300), (1, 2), (250, 500), (499, 500), (300, 900)])
@pytest.mark.parametrize("variables", ["edm", "flow"])
def test_ddim_is_euler(name, s, t, variables):
    diffusion = Diffusion(Schedule(SCHEDULES[name](1000).alpha_bar.double()), "v")
    draws = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 3, generator=draws, dtype=torch.float64)
    (a_s, n_s), (a_t, n_t) = (
        (diffusion.schedule.at(u).sqrt(), (1 - diffusion.schedule.at(u)).sqrt()) for u in (s, t)
    )
    x_t = a_t * x0 + n_t * eps
    if variables == "edm":  # x / a = x_0 + σ ε, whose slope in σ = n / a is ε
        euler = a_s * (x_t / a_t + (n_s / a_s - n_t / a_t) * eps)
    else:  # x / (a + n) = (1 − τ) x_0 + τ ε, whose slope in τ = n / (a + n) is u = ε − x_0
        tau_s, tau_t = n_s / (a_s + n_s), n_t / (a_t + n_t)
        euler = (a_s + n_s) * (x_t / (a_t + n_t) + (tau_s - tau_t) * (eps - x0))
    x_s = ddim_step(diffusion, x_t, Prediction(x0, eps), s, t, no_noise)
    torch.testing.assert_close(x_s, euler, rtol=1e-12, atol=1e-12)
