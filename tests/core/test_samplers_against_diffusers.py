"""Whole trajectories of diffusers' samplers, of the same network from the same noise."""

import pytest
import torch

from ddpm import Diffusion, Schedule, edm, flow, invert, linear, sample, timesteps
from ddpm.core.sampling import SAMPLERS
from lazy import optional

diffusers = optional("diffusers")

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
LINEAR = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.01,
}
STEPS = 20


def net(x, t, y=None):
    """Anything smooth, of both of its inputs."""
    return 0.6 * x + 0.4 * torch.sin(2 * x + t.view(-1, 1, 1, 1) / 300)


@pytest.fixture
def draws(generator):
    return torch.randn(STEPS + 1, 2, 1, 4, 4, generator=generator)


def ours(diffusion, sampler, draws, times):
    noise = iter(draws)
    *_, last = sample(
        diffusion, diffusion.denoiser(net), lambda: next(noise), times, SAMPLERS[sampler]
    )
    return last.x


@pytest.mark.parametrize(
    ("sampler", "name", "options"),
    [("euler", "EulerDiscreteScheduler", {}), ("ddim", "EulerDiscreteScheduler", {}),
     ("heun", "HeunDiscreteScheduler", {}), ("dpm++", "DPMSolverMultistepScheduler", {}),
     ("dpm++sde", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"})],
)  # fmt: skip
@pytest.mark.parametrize("target", ["eps", "v"])
def test_a_trajectory_is_theirs(sampler, name, options, target, draws):
    if name.startswith("DPM"):
        options = options | {"solver_order": 2, "solver_type": "midpoint"}
    if name != "HeunDiscreteScheduler":
        options = options | {"final_sigmas_type": "zero"}
    theirs = getattr(diffusers, name)(
        **LINEAR, timestep_spacing="trailing",
        prediction_type={"eps": "epsilon", "v": "v_prediction"}[target], **options,
    )  # fmt: skip
    theirs.set_timesteps(STEPS)
    diffusion = Diffusion(linear(beta_T=0.01), target, clip=None)
    times = timesteps(diffusion.schedule, STEPS)
    x, noise = draws[0], iter(draws[1:])
    if not name.startswith("DPM"):  # they keep x_0 + σ ε
        x = x / diffusion.schedule.at(1000).sqrt()
    for t in theirs.timesteps:
        out = net(theirs.scale_model_input(x, t), t.float() + 1)
        more = {"variance_noise": next(noise)} if sampler == "dpm++sde" else {}
        x = theirs.step(out, t, x, **more).prev_sample
    torch.testing.assert_close(ours(diffusion, sampler, draws, times), x.float(), **CLOSE)


def test_a_flow_is_theirs(draws):
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(1000)
    theirs.set_timesteps(sigmas=[1 - i / STEPS for i in range(STEPS)])
    x = draws[0]
    for t in theirs.timesteps:
        x = theirs.step(net(x, t), t, x).prev_sample
    diffusion = Diffusion(flow(), "u", clip=None)
    made = ours(diffusion, "euler", draws, timesteps(diffusion.schedule, STEPS))
    torch.testing.assert_close(made, x, **CLOSE)


def test_edm_is_theirs(draws):
    """Their scheduler preconditions, at the σ of Table 1; ours is of a schedule of these."""
    theirs = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0)
    theirs.set_timesteps(STEPS)
    schedule = edm(STEPS)
    sigma = schedule.snr(torch.arange(1, STEPS + 1)).flip(0) ** -0.5
    torch.testing.assert_close(sigma, theirs.sigmas[:-1], rtol=1e-2, atol=0)  # ᾱ is float32
    exact = theirs.sigmas.flip(0).double()
    schedule = Schedule(1 / (1 + exact**2), (1 + exact**2).sqrt())
    diffusion = Diffusion(schedule, "F", clip=None, sigma_data=0.5)
    x = draws[0] * (1 + theirs.sigmas[0] ** 2).sqrt()
    for t in theirs.timesteps:
        out = net(theirs.scale_model_input(x, t), t)
        x = theirs.step(out, t, x).prev_sample
    made = ours(diffusion, "euler", draws.double(), list(range(STEPS, -1, -1)))
    torch.testing.assert_close(made.float(), x, **CLOSE)


@pytest.mark.parametrize("t", [20, 40, 500, 1000])
def test_a_step_upwards_is_theirs(t, draws):
    x, eps = draws[0], draws[1]
    theirs = diffusers.DDIMInverseScheduler(
        **LINEAR, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    theirs.set_timesteps(50)
    diffusion = Diffusion(linear(beta_T=0.01), clip=None)
    denoise = diffusion.denoiser(lambda x, t, y: eps)
    expected = theirs.step(eps, t - 1, x).prev_sample
    torch.testing.assert_close(invert(diffusion, denoise, x, [t, t - 20]), expected, **CLOSE)
