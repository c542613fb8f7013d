"""Image editing: interpolation, variations, DDIM inversion and inpainting.

Variations need nothing new: `sample` begins at q_sample(x0, t, eps) instead of at noise
[SDEdit, Meng et al. 2022, Algorithm 1].
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from .diffusion import Diffusion
from .sampling import State, Step, ddpm_step
from .types import Denoiser, Noise


def slerp(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """sin((1−u)θ)/sin θ · a + sin(uθ)/sin θ · b,  cos θ = a·b/(‖a‖‖b‖)   [DDIM, App. D.5]

    Between two draws of noise (B, …), u of shape (B,) from 0 to 1. A straight line would pass
    through less noise than a network has ever seen; this keeps to the sphere where all of it lies.
    """
    flat = [x.flatten(1) for x in (a, b)]
    norms = flat[0].norm(dim=1) * flat[1].norm(dim=1)
    cos = ((flat[0] * flat[1]).sum(1) / norms).clamp(-1, 1)
    theta = cos.acos().clamp(min=1e-4)  # where they are one and the same, any weights that sum to 1
    shape = (-1, *[1] * (a.ndim - 1))
    w_a, w_b = ((1 - u) * theta).sin() / theta.sin(), (u * theta).sin() / theta.sin()
    return w_a.view(shape) * a + w_b.view(shape) * b


@torch.inference_mode()
def invert(diffusion: Diffusion, denoise: Denoiser, x0: Tensor, times: list[int]) -> Tensor:
    """x_t/√ᾱ_t = x_s/√ᾱ_s + (σ_t − σ_s) ε̂(x_s),  σ = √((1 − ᾱ)/ᾱ)   [DDIM, Eq. 13]

    The latent at times[0] from which deterministic DDIM reconstructs `x0`: DDIM's steps in reverse.
    `times` decreases to 0; for the step from there, ε̂ is taken at time 1.
    """
    x = x0
    for s, t in pairwise(times[::-1]):
        a_s, a_t = diffusion.schedule.at(s), diffusion.schedule.at(t)
        rise = (1 - a_t).sqrt() - (a_t / a_s * (1 - a_s)).sqrt()
        x = (a_t / a_s).sqrt() * x + rise * denoise(x, max(s, 1)).eps
    return x


@torch.inference_mode()
def inpaint(
    diffusion: Diffusion, denoise: Denoiser, noise: Noise, times: list[int], x0: Tensor,
    mask: Tensor, step: Step = ddpm_step, rounds: int = 1,
) -> Iterator[State]:  # fmt: skip
    """x_s = (1 − m) ⊙ x_s^known + m ⊙ x_s^new,  x_s^known ~ q(x_s | x_0)   [RePaint, Algorithm 1]

    Paints anew where the mask m is 1 and keeps `x0` where it is 0 (RePaint's m is 1 − m); both have
    the shape of a batch, or broadcast to it. Each step is repeated `rounds` times, and between two
    rounds noise is added again, x_t ~ q(x_t | x_s), so that what is new comes to fit what is known:
    in one round new pixels fit only what the step before left; ten are plenty.
    """
    if rounds < 1:
        raise ValueError(f"inpainting takes one round or more, not {rounds}")
    x = noise()
    yield State(times[0], x, None)
    for t, s in pairwise(times):
        for left in reversed(range(rounds if s > 0 else 1)):
            pred = denoise(x, t)
            new = step(diffusion, x, pred, s, t, noise, None, denoise)
            x = (1 - mask) * diffusion.q_sample(x0, s, noise()) + mask * new
            if left:
                x = diffusion.q_sample(x, t, noise(), s)
        yield State(s, x, pred.x0)
