"""From noise to images: steps over a pair of times s < t, and one loop over such pairs.

A step is a plain function. It sees a Prediction(x0, eps) and never learns what the network was
trained to predict, whether it was guided, or how many steps there are.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from .diffusion import Diffusion
from .schedule import Schedule
from .types import Denoiser, Noise, Prediction, SamplerName, Spacing, Variance


class State(NamedTuple):
    """A point of the trajectory: x at time t, and the x̂_0 that led to it (None for the noise)."""

    t: int
    x: Tensor
    x0: Tensor | None


Previous: TypeAlias = tuple[int, Prediction] | None  # the step before: its time and prediction


class Step(Protocol):
    """step(diffusion, x_t, prediction, s, t, noise, previous, denoise) -> x_s; `denoise` is for
    steps that evaluate the network again."""

    def __call__(
        self, diffusion: Diffusion, x_t: Tensor, pred: Prediction, s: int, t: int, noise: Noise,
        previous: Previous = None, denoise: Denoiser | None = None,
    ) -> Tensor: ...  # fmt: skip


SIGMA_MAX, RHO = 80.1, 7.0  # EDM, Table 1: 80, and what rounding may add to it


def ddpm_step(
    diffusion: Diffusion, x_t: Tensor, pred: Prediction, s: int, t: int, noise: Noise,
    previous: Previous = None, denoise: Denoiser | None = None, variance: Variance = "beta-tilde",
) -> Tensor:  # fmt: skip
    """x_s = μ̃(x_t, x̂_0) + σ z,  z ~ N(0, I), and z = 0 if s = 0   [DDPM, Algorithm 2]

    σ² is β̃, or β, which the paper used for CIFAR-10 [DDPM, Sec. 3.2], or what the network has
    learned, which leaves no choice. Any stride will do.
    """
    posterior = diffusion.q_posterior(pred.x0, x_t, s, t)
    if s == 0:
        return posterior.mean
    return posterior.mean + posterior.variance(variance, pred.var_values).sqrt() * noise()


def ddim_step(
    diffusion: Diffusion, x_t: Tensor, pred: Prediction, s: int, t: int, noise: Noise,
    previous: Previous = None, denoise: Denoiser | None = None, eta: float = 0.0,
) -> Tensor:  # fmt: skip
    """x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ z   [DDIM, Eq. 12]

    σ = η √((1−ᾱ_s)/(1−ᾱ_t)) √(1 − ᾱ_t/ᾱ_s) = η √β̃   [DDIM, Eq. 16; its α is DDPM's ᾱ]

    η = 0 draws no noise; η = 1 is the ancestral step with β̃.
    """
    a_s, a_t = diffusion.schedule.at(s), diffusion.schedule.at(t)
    sigma2 = eta**2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
    x_s = a_s.sqrt() * pred.x0 + (1 - a_s - sigma2).clamp(min=0).sqrt() * pred.eps
    return x_s + sigma2.sqrt() * noise() if eta > 0 and s > 0 else x_s


def dpmpp_step(
    diffusion: Diffusion, x_t: Tensor, pred: Prediction, s: int, t: int, noise: Noise,
    previous: Previous = None, denoise: Denoiser | None = None, eta: float = 0.0,
) -> Tensor:  # fmt: skip
    """x_s = σ_s/σ_t x_t − √ᾱ_s (e^{−h} − 1) D,  h = λ_s − λ_t   [DPM-Solver++, Algorithm 2 (2M)]

    D = x̂_0(t) + (x̂_0(t) − x̂_0(p)) / (2r),  r = (λ_t − λ_p)/h,  p the time before t,
    λ = ½ log SNR, σ² = 1 − ᾱ. The first step has no p, and at s = 0 h is infinite: D = x̂_0(t).
    η = 1 solves the SDE: x_s = σ_s/σ_t e^{−h} x_t − √ᾱ_s (e^{−2h} − 1) D + σ_s √(1 − e^{−2h}) z
    [DPM-Solver++: SDE-DPM-Solver++(2M)]
    """
    schedule = diffusion.schedule
    if s == 0:
        return pred.x0
    lam_s, lam_t = schedule.half_log_snr(s), schedule.half_log_snr(t)
    h = lam_s - lam_t
    D = pred.x0
    if previous is not None:
        p, pred_p = previous
        r = (lam_t - schedule.half_log_snr(p)) / h
        D = pred.x0 + (pred.x0 - pred_p.x0) / (2 * r)
    a_s, a_t = schedule.at(s), schedule.at(t)
    kept = torch.exp(-eta * h) if eta else 1.0  # h is infinite where the SNR at t is zero
    x_s = kept * ((1 - a_s) / (1 - a_t)).sqrt() * x_t - a_s.sqrt() * torch.expm1(-(1 + eta) * h) * D
    return x_s + ((a_s - 1) * torch.expm1(-2 * eta * h)).sqrt() * noise() if eta else x_s


def heun_step(
    diffusion: Diffusion, x_t: Tensor, pred: Prediction, s: int, t: int, noise: Noise,
    previous: Previous = None, denoise: Denoiser | None = None,
) -> Tensor:  # fmt: skip
    """x̄_s = x̄_t + (σ_s − σ_t) (ε̂(x_t) + ε̂(x_s′)) / 2,  x̄ = x/√ᾱ,  σ = √((1 − ᾱ)/ᾱ)
    [EDM, Karras et al. 2022, Algorithm 1]

    ε̂ is the slope dx̄/dσ, and x_s′ the Euler step, x̄_t + (σ_s − σ_t) ε̂(x_t), which is DDIM's. At
    s = 0 the Euler step is returned; every other step evaluates the network again, at x_s′. A step
    from above EDM's σ_max = 80, where a cosine schedule begins at thousands, is Euler's too: it is
    too long for the mean of two slopes. (The network is evaluated, to spare a device a wait.)
    """
    euler = ddim_step(diffusion, x_t, pred, s, t, noise)
    if s == 0:
        return euler
    assert denoise is not None
    slope = (pred.eps + denoise(euler, s).eps) / 2
    schedule = diffusion.schedule
    a_s, a_t, sigma_s, sigma_t = (
        schedule.at(s),
        schedule.at(t),
        schedule.sigma(s),
        schedule.sigma(t),
    )
    x_s = a_s.sqrt() * (x_t / a_t.sqrt() + (sigma_s - sigma_t) * slope)
    return torch.where(sigma_t > SIGMA_MAX, euler, x_s)


def timesteps(
    schedule: Schedule, steps: int, spacing: Spacing = "even", sigma_min: float = 0.0
) -> list[int]:
    """T = τ_S > … > τ_1 > τ_0 = 0, one step for each of the S = `steps` pairs

    even       τ_i = T i/S                                            [DDIM, App. D.2, "linear"]
    quadratic  τ_i = T (i/S)²                                         [DDIM, App. D.2]
    root       τ_i = T √(i/S), its mirror: most steps where the noise is most
    log-snr    λ_τ falls evenly from τ_1 to τ_S = T,  λ = ½ log SNR   [DPM-Solver, Sec. 3.3]
    rho        σ_τ^{1/ρ} rises evenly from τ_1 to τ_S = T,  σ = 1/√SNR,  ρ = 7  [EDM, Eq. 5]

    For the last two, τ_1 is the first time with σ ≥ `sigma_min` (EDM's σ_min), 1 if that is 0; the
    last step leads from there to x̂_0. They end at the last time with an SNR above zero; rho, of
    more than 3 steps, at EDM's σ_max = 80 if σ_T is over twice that, as a cosine schedule's is, and
    one more step leads there from T. Times are distinct integers. Raise ValueError unless
    1 ≤ steps ≤ T.
    """
    T = schedule.T
    if not 1 <= steps <= T:
        raise ValueError(f"steps must be between 1 and T = {T}, not {steps}")
    if steps == 1:
        return [T, 0]
    if spacing in ("log-snr", "rho"):
        snr = schedule.snr(torch.arange(1, T + 1)).cpu()
        above_sigma_max = spacing == "rho" and steps > 3 and snr[-1] < (2 * SIGMA_MAX) ** -2
        snr = snr[snr > (SIGMA_MAX**-2 if above_sigma_max else 0)]
        levels = -snr.log() if spacing == "log-snr" else snr ** (-0.5 / RHO)  # rising with t
        first = min(int((snr * sigma_min**2 > 1).sum()), len(snr) - 1)
        even = torch.linspace(float(levels[first]), float(levels[-1]), steps - (len(snr) < T))
        wanted = [0.0, *(torch.searchsorted(levels, even) + 1.0).tolist(), float(T)][: steps + 1]
    else:
        power = {"even": 1.0, "quadratic": 2.0, "root": 0.5}[spacing]
        wanted = [T * (i / steps) ** power for i in range(steps + 1)]
    wanted[-1] = T
    times = [0]
    for i in range(1, steps + 1):  # each above the one before, with room for those after
        times.append(min(max(round(wanted[i]), times[-1] + 1), T - steps + i))
    return times[::-1]


def eps_scaled(diffusion: Diffusion, denoise: Denoiser, scale: float) -> Denoiser:
    """x̂_0 = (x_t − √(1−ᾱ_t) ε̂/λ) / √ᾱ_t,  clipped, and the ε̂ of that x̂_0
    [Ning et al. 2024, Epsilon Scaling, with the same λ at all times]

    A network is trained on noised images, but samples from its own outputs, of which it takes too
    much for noise (exposure bias): contrast and texture are lost. `scale` is λ; a little above 1,
    such as 1.01, it keeps them. 1 changes nothing, nor does any λ above σ = 80, EDM's σ_max.
    """
    if scale == 1:
        return denoise

    def scaled(x_t: Tensor, t: int) -> Prediction:
        pred, a = denoise(x_t, t), diffusion.schedule.at(t)
        x0 = (x_t - (1 - a).sqrt() * pred.eps / scale) / a.sqrt()
        x0 = torch.where(diffusion.schedule.snr(t) > SIGMA_MAX**-2, x0, pred.x0)
        return diffusion.prediction_from_x0(x0, x_t, t, pred.var_values)

    return scaled


class Churn(NamedTuple):
    """σ_t̂ = (1 + γ) σ_t,  γ = min(S_churn/S, √2 − 1) if S_tmin ≤ σ_t ≤ S_tmax, else 0
    [EDM, Algorithm 2: S_churn, S_tmin, S_tmax and S_noise]

    Before each step, of any sampler, noise takes x from t to t̂, the time whose σ is nearest; the
    step then starts at t̂. With Heun's steps this is EDM's stochastic sampler.
    """

    s_churn: float
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0

    def t_hat(self, schedule: Schedule, times: list[int]) -> dict[int, int]:
        """t̂ for each t that has one."""
        sigma = schedule.sigma(torch.arange(schedule.T + 1)).cpu()
        gamma = min(self.s_churn / (len(times) - 1), math.sqrt(2) - 1)
        inside = [
            t for t in times if self.s_tmin <= sigma[t] <= self.s_tmax and sigma[t].isfinite()
        ]
        return {t: int((sigma - (1 + gamma) * sigma[t]).abs().argmin()) for t in inside}


@torch.inference_mode()
def sample(
    diffusion: Diffusion, denoise: Denoiser, noise: Noise, times: list[int],
    step: Step = ddpm_step, start: Tensor | None = None, churn: Churn | None = None,
) -> Iterator[State]:  # fmt: skip
    """x_T ~ N(0, I);  x_s = step(x_t) for each pair t > s of `times`   [DDPM, Algorithm 2]

    Yields every State, the noise first and the images last, so that a progress bar, an animation
    or a demo is a loop over it. `times` decreases to 0, as `timesteps` gives it. `start`: the x at
    times[0], in place of noise. `churn`: add noise before each step.
    """
    x = noise() if start is None else start
    yield State(times[0], x, None)
    t_hat, previous = churn.t_hat(diffusion.schedule, times) if churn else {}, None
    for t, s in pairwise(times):
        if churn and (up := t_hat.get(t, t)) > t:
            x, t, previous = diffusion.q_sample(x, up, churn.s_noise * noise(), t), up, None
        pred = denoise(x, t)
        x = step(diffusion, x, pred, s, t, noise, previous, denoise)
        previous = (t, pred)
        yield State(s, x, pred.x0)


SAMPLERS: dict[SamplerName, Step] = {
    "ddpm": ddpm_step,
    "ddim": ddim_step,
    "euler": ddim_step,  # with η = 0 they are one, in the variables of EDM and of flows
    "heun": heun_step,
    "dpm++": dpmpp_step,
    "dpm++sde": partial(dpmpp_step, eta=1.0),
}


def named_step(name: SamplerName, eta: float = 0.0, variance: Variance = "beta-tilde") -> Step:
    """SAMPLERS[name] with its own option: `variance` of ddpm, `eta` of ddim."""
    own: dict[str, dict[str, Any]] = {"ddpm": {"variance": variance}, "ddim": {"eta": eta}}
    return partial(SAMPLERS[name], **own.get(name, {}))
