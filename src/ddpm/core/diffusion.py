"""The forward process, its posterior, and what the network learns: the paper's whiteboard.

A reverse step takes a pair of times s < t, and with α_{t|s} = ᾱ_t / ᾱ_s the paper's formulas
hold for every stride. There is no second array for "the step before", and no special last step.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .schedule import Schedule, Time

Net = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""net(x_t, t, y) with t of shape (B,) and labels y of shape (B,) or None; returns the target."""

Target = Literal["eps", "x0", "v"]
Weight = Literal["simple", "min-snr"]
TimeSampling = Literal["uniform", "stratified", "by-weight", "logit-normal"]


class Prediction(NamedTuple):
    """What a network's output says of x_t: the clean image in it and the noise in it."""

    x0: Tensor
    eps: Tensor


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0): its mean, its variance β̃, and the paper's other choice of variance, β."""

    mean: Tensor
    beta_tilde: Tensor
    beta: Tensor


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A schedule, what the network predicts, and how its errors are weighted.

    `clip`: predictions of x_0 are held within [−clip, clip]; None for data without a range.
    `gamma`: the γ of min-SNR, and `min_weight` the least weight beside it.
    """

    schedule: Schedule
    target: Target = "eps"
    weight: Weight = "simple"
    gamma: float = 5.0
    min_weight: float = 0.0
    time_sampling: TimeSampling = "uniform"
    clip: float | None = 1.0

    @property
    def T(self) -> int:
        return self.schedule.T

    def to(self, device: torch.device | str) -> "Diffusion":
        return replace(self, schedule=self.schedule.to(device))

    def q_sample(self, x_s: Tensor, t: Time, eps: Tensor, s: Time = 0) -> Tensor:
        """x_t = √(ᾱ_t/ᾱ_s) x_s + √(1 − ᾱ_t/ᾱ_s) ε,  ε ~ N(0, I)   [DDPM, Eq. 4; Eq. 2 for s = t−1]

        Noise is added from time s to time t; with s = 0, the default, x_s is the clean image.
        """
        a_s, a_t = self.schedule.at(s, x_s.ndim), self.schedule.at(t, x_s.ndim)
        return (a_t / a_s).sqrt() * x_s + (1 - a_t / a_s).sqrt() * eps

    def q_posterior(self, x0: Tensor, x_t: Tensor, s: Time, t: Time) -> Posterior:
        """q(x_s | x_t, x_0) = N(μ̃, β̃ I)   [DDPM, Eq. 6 and 7], for any pair s < t

        μ̃ = √ᾱ_s β_{t|s} / (1 − ᾱ_t) · x_0 + √α_{t|s} (1 − ᾱ_s) / (1 − ᾱ_t) · x_t
        β̃ = (1 − ᾱ_s) / (1 − ᾱ_t) · β_{t|s},   α_{t|s} = ᾱ_t / ᾱ_s,   β_{t|s} = 1 − α_{t|s}

        With s = t − 1 these are the paper's. β is the variance for data that are N(0, I), β̃ for
        data that are a single point [DDPM, Sec. 3.2]; they bound the best choice.
        """
        a_s, a_t = self.schedule.at(s, x_t.ndim), self.schedule.at(t, x_t.ndim)
        alpha, beta = a_t / a_s, 1 - a_t / a_s
        mean = a_s.sqrt() * beta / (1 - a_t) * x0 + alpha.sqrt() * (1 - a_s) / (1 - a_t) * x_t
        return Posterior(mean, beta_tilde=(1 - a_s) / (1 - a_t) * beta, beta=beta)

    def predict(self, net: Net, x_t: Tensor, t: Time, y: Tensor | None = None) -> Prediction:
        """x̂_0 from the network's output, for every target, then clipped; ε̂ from that x̂_0.

        ε:  x_0 = (x_t − √(1−ᾱ_t) ε) / √ᾱ_t     [DDPM, Eq. 15]
        v:  x_0 = √ᾱ_t x_t − √(1−ᾱ_t) v         [Salimans and Ho 2022, App. D]
        ε̂ = (x_t − √ᾱ_t x̂_0) / √(1−ᾱ_t), so that the two always agree on x_t.

        `t` is 1 … T: at t = 0 there is no noise to tell.
        """
        out = net(x_t, self._times(t, x_t), y)
        alpha_bar = self.schedule.at(t, x_t.ndim)
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.target == "eps":
            x0 = (x_t - noise * out) / signal
        elif self.target == "v":
            x0 = signal * x_t - noise * out
        else:
            x0 = out
        if self.clip is not None:
            x0 = x0.clamp(-self.clip, self.clip)
        return Prediction(x0, eps=(x_t - signal * x0) / noise)

    def simple_loss(
        self, net: Net, x0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """L_simple = w(t) ‖ε − ε_θ(√ᾱ_t x_0 + √(1−ᾱ_t) ε, t)‖²   [DDPM, Eq. 14, Algorithm 1]

        The target is ε, x_0 or v = √ᾱ_t ε − √(1−ᾱ_t) x_0 [Salimans and Ho 2022, App. D], and
        ‖·‖² is the mean over an image; w is 1 where the times were drawn by it. Shapes: x0, eps
        (B, C, H, W); t, y and the loss (B,).
        """
        alpha_bar = self.schedule.at(t, x0.ndim)
        if self.target == "eps":
            target = eps
        elif self.target == "v":
            target = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0
        else:
            target = x0
        error = net(self.q_sample(x0, t, eps), t, y) - target
        loss = error.square().flatten(1).mean(1)
        return loss if self.time_sampling == "by-weight" else self.loss_weight(t) * loss

    def loss_weight(self, t: Tensor) -> Tensor:
        """w(t): 1, or min{SNR(t), γ} on the error of x_0   [Hang et al. 2023, Eq. 5]

        An error of ε is √SNR, and one of v is √(SNR + 1), times the error of x_0; hence
        min{SNR, γ}/SNR for ε and min{SNR, γ}/(SNR + 1) for v. Shape (B,). With `min_weight` m it is
        max{m, min{SNR, γ}}; m = 1 and no γ are the truncated SNR [Salimans and Ho 2022, Sec. 4].
        """
        if self.weight == "simple":
            return torch.ones_like(t, dtype=self.schedule.alpha_bar.dtype)
        snr = self.schedule.snr(t)
        scale = {"eps": snr, "x0": torch.ones_like(snr), "v": snr + 1}[self.target]
        return snr.clamp(self.min_weight, self.gamma) / scale

    def sample_times(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """t ~ Uniform{1 … T}   [DDPM, Algorithm 1]
        or t_i = ⌈T u_i⌉, u_i = (u + i/n) mod 1, one u ~ U(0, 1)   [Kingma et al. 2021, App. I.1]
        or P(t) = w(t) / Σ w, by those same u_i, and then no weight on the loss
        or t = ⌈T σ(z)⌉, z ~ N(0, 1)   [Esser et al. 2024, Sec. 3.1]

        "uniform", "stratified", "by-weight" and "logit-normal". Stratified times are uniform too,
        but a batch has some from all over the chain, so its loss has less variance; by-weight has
        less still, and the gradient's mean is that of the weighted loss but for a factor. The
        logit-normal is not divided out of the loss: to draw a time more often is to weigh it more.
        Returns int64 (n,).
        """
        device = self.schedule.alpha_bar.device
        if self.time_sampling == "uniform":
            return torch.randint(1, self.T + 1, (n,), generator=generator, device=device)
        if self.time_sampling in ("stratified", "by-weight"):
            u = torch.rand(1, generator=generator, device=device)
            share = (u + torch.arange(n, device=device) / n) % 1
            if self.time_sampling == "by-weight":
                w = self.loss_weight(torch.arange(1, self.T + 1, device=device)).cumsum(0)
                return torch.searchsorted(w, share * w[-1]).clamp(max=self.T - 1) + 1
        else:
            share = torch.randn(n, generator=generator, device=device).sigmoid()
        return (self.T * share).ceil().long().clamp(1, self.T)

    def _times(self, t: Time, x: Tensor) -> Tensor:
        return t if isinstance(t, Tensor) else torch.full((len(x),), t, device=x.device)
