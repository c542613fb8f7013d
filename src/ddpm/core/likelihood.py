"""The variational bound on −log p(x_0), term by term, in bits per dimension."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .diffusion import Diffusion
from .types import Denoiser, Noise, Variance


@dataclass(frozen=True, eq=False)
class Bound:
    """L = L_T + Σ_{t>1} L_{t−1} + L_0   [DDPM, Eq. 5], each in bits/dim, for B images.

    prior    L_T, shape (B,)
    steps    L_{t−1} for every pair of times but the last, from the highest down, (S − 1, B)
    decoder  L_0, shape (B,)
    """

    prior: Tensor
    steps: Tensor
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        return self.prior + self.steps.sum(0) + self.decoder


@torch.inference_mode()
def variational_bound(
    diffusion: Diffusion, denoise: Denoiser, x0: Tensor, noise: Noise, times: list[int],
    variance: Variance = "beta-tilde",
) -> Bound:  # fmt: skip
    """E_q[ D_KL(q(x_T|x_0) ‖ p(x_T)) + Σ_{t>1} D_KL(q(x_s|x_t,x_0) ‖ p_θ(x_s|x_t))
    − log p_θ(x_0|x_1) ]   [DDPM, Eq. 5]

    One draw of x_t for each term makes it an unbiased estimate. `x0`: images of 8 bits scaled to
    [−1, 1], (B, …). `denoise(x_t, t)` is a network's or a closed form's Prediction. `times` falls
    from T to 0; with fewer than T + 1 it is the bound of that shorter chain. `variance` is that of
    p_θ; where β̃ would be 0, in L_0, that of the step before is taken, or β where there is none, or
    where the variance is learned.
    """
    prior = bits_per_dim(prior_kl(diffusion, x0, times[0]))
    terms = []
    for t, s in pairwise(times):
        x_t = diffusion.q_sample(x0, t, noise())
        pred = denoise(x_t, t)
        p = diffusion.q_posterior(pred.x0, x_t, s, t)
        if s > 0:
            q, var = diffusion.q_posterior(x0, x_t, s, t), p.variance(variance, pred.var_values)
            terms.append(bits_per_dim(normal_kl(q.mean, q.beta_tilde, p.mean, var)))
        else:
            if variance == "beta" or pred.var_values is not None or not terms:
                var = p.beta
            terms.append(bits_per_dim(-discretized_log_likelihood(x0, p.mean, var)))
    return Bound(
        prior, torch.stack(terms[:-1]) if terms[:-1] else x0.new_empty(0, len(x0)), terms[-1]
    )


def prior_kl(diffusion: Diffusion, x0: Tensor, T: int) -> Tensor:
    """L_T = D_KL(N(√ᾱ_T x_0, (1 − ᾱ_T) I) ‖ N(0, I))   [DDPM, Eq. 5], elementwise, in nats"""
    alpha_bar = diffusion.schedule.at(T)
    zero, one = torch.zeros_like(alpha_bar), torch.ones_like(alpha_bar)
    return normal_kl(alpha_bar.sqrt() * x0, 1 - alpha_bar, zero, one)


def normal_kl(mean1: Tensor, var1: Tensor, mean2: Tensor, var2: Tensor) -> Tensor:
    """D_KL(N(μ₁, σ₁²) ‖ N(μ₂, σ₂²)) = ½ (log σ₂²/σ₁² + (σ₁² + (μ₁ − μ₂)²)/σ₂² − 1), in nats"""
    return ((var2 / var1).log() + (var1 + (mean1 - mean2).square()) / var2 - 1) / 2


def discretized_log_likelihood(x0: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """log ∫_{δ₋(x_0)}^{δ₊(x_0)} N(x; μ, σ²) dx   [DDPM, Eq. 13], elementwise, in nats

    δ± = x_0 ± 1/255, and the outermost of the 256 bins reach to ±∞, so that it is a distribution
    over 8-bit pixels scaled to [−1, 1].
    """
    sigma = var.sqrt()
    low, high = (x0 - 1 / 255 - mean) / sigma, (x0 + 1 / 255 - mean) / sigma
    low = torch.where(x0 < -1 + 1 / 255, -math.inf, low)
    high = torch.where(x0 > 1 - 1 / 255, math.inf, high)
    # Work in the tail on the left, by symmetry: Φ near 1 has no digits left to subtract.
    flip = low > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    mass = torch.special.ndtr(high) - torch.special.ndtr(low)
    # Where even the tail is empty in float32: the log of the density at the near edge, times 2/255.
    density = -high.square() / 2 - sigma.log() - math.log(2 * math.pi) / 2 + math.log(2 / 255)
    return torch.where(mass > 1e-30, mass.clamp(min=1e-30).log(), density)


def bits_per_dim(nats: Tensor) -> Tensor:
    """Nats for each element (B, …) -> the mean over an image, in bits: shape (B,)"""
    return nats.flatten(1).mean(1) / math.log(2)
