"""The forward process, its posterior, and the network's predictions: the paper's whiteboard.

A reverse step takes a pair of times s < t, and with α_{t|s} = ᾱ_t / ᾱ_s the paper's formulas
hold for every stride. There is no second array for "the step before", and no special last step.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .schedule import Schedule
from .types import Denoiser, Net, Prediction, Target, Time, Variance


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0): its mean, its variance β̃, and the paper's other choice of variance, β."""

    mean: Tensor
    beta_tilde: Tensor
    beta: Tensor

    def variance(self, choice: Variance, var_values: Tensor | None = None) -> Tensor:
        """σ² of p_θ(x_s | x_t): β̃ or β; or exp(u log β + (1 − u) log β̃), u = (v + 1)/2, where the
        network learned v, `var_values` [Improved DDPM, Eq. 15], and β at s = 0, where β̃ is 0."""
        if var_values is None:
            return self.beta if choice == "beta" else self.beta_tilde
        low = torch.where(self.beta_tilde > 0, self.beta_tilde, self.beta).log()
        return (low + (var_values + 1) / 2 * (self.beta.log() - low)).exp()


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A schedule, and what the network predicts.

    `clip`: predictions of x_0 are held within [−clip, clip]; None for data without a range.
    `sigma_data`: the data's standard deviation, for F. `learned_variance`: the network has twice as
    many channels for output, the second half of them `var_values`. Raise ValueError for ε and F
    where ᾱ_T is 0: there x_T is ε, and tells nothing of x_0.
    """

    schedule: Schedule
    target: Target = "eps"
    clip: float | None = 1.0
    sigma_data: float = 0.5
    learned_variance: bool = False

    def __post_init__(self) -> None:
        if self.target in ("eps", "F") and self.schedule.alpha_bar[-1] == 0:
            what = f"noise alone (a terminal SNR of zero), of which {self.target} tells nothing"
            raise ValueError(f"this schedule ends in {what}: choose the target v, x0 or u")

    @property
    def T(self) -> int:
        return self.schedule.T

    @property
    def device(self) -> torch.device:
        return self.schedule.alpha_bar.device

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
        u:  x_0 = (x_t − √(1−ᾱ_t) u) / (√ᾱ_t + √(1−ᾱ_t))
        F:  x_0 = c_skip x + c_out F,  x = x_t/√ᾱ_t                       [EDM, Eq. 7]
        ε̂ = (x_t − √ᾱ_t x̂_0) / √(1−ᾱ_t), so that the two always agree on x_t.

        `t` is 1 … T: at t = 0 there is no noise to predict.
        """
        out, var_values = self.output(net, x_t, t, y)
        alpha_bar = self.schedule.at(t, x_t.ndim)
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.target == "eps":
            x0 = (x_t - noise * out) / signal
        elif self.target == "v":
            x0 = signal * x_t - noise * out
        elif self.target == "u":
            x0 = (x_t - noise * out) / (signal + noise)
        elif self.target == "F":
            c_skip, c_out, _, _ = self.preconditioning(t, x_t.ndim)
            x0 = c_skip * x_t / signal + c_out * out
        else:
            x0 = out
        return self.prediction_from_x0(x0, x_t, t, var_values)

    def prediction_from_x0(
        self, x0: Tensor, x_t: Tensor, t: Time, var_values: Tensor | None = None
    ) -> Prediction:
        """Return x̂_0, clipped, and the ε̂ that agrees with it on x_t."""
        alpha_bar = self.schedule.at(t, x_t.ndim)
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.clip is not None:
            x0 = x0.clamp(-self.clip, self.clip)
        return Prediction(x0, (x_t - signal * x0) / noise, var_values)

    def target_of(self, x0: Tensor, eps: Tensor, t: Time) -> Tensor:
        """The training target at x_t: ε, x_0,
        v = √ᾱ_t ε − √(1−ᾱ_t) x_0             [Salimans and Ho 2022, App. D],
        u = ε − x_0, the flow's velocity       [Lipman et al. 2023, Ex. II; Liu et al. 2023, Eq. 1]
        or F = (x_0 − c_skip x) / c_out,  x = x_0 + σ ε                     [EDM, Eq. 8]
        """
        alpha_bar = self.schedule.at(t, x0.ndim)
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.target == "F":
            c_skip, c_out, _, _ = self.preconditioning(t, x0.ndim)
            return (x0 - c_skip * (x0 + noise / signal * eps)) / c_out
        v = signal * eps - noise * x0
        return {"eps": eps, "x0": x0, "v": v, "u": eps - x0}[self.target]

    def output(
        self, net: Net, x_t: Tensor, t: Time, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """net(x_t, t, y); of a process with a `scale`, net(scale_t x_t, t, y); for the target F
        net(c_in x, c_noise, y), x = x_t/√ᾱ_t   [EDM, Eq. 7]

        Returned with `var_values`, the second half of the channels, or None where no variance is
        learned.
        """
        t = self._times(t, x_t)
        if self.target == "F":
            _, _, c_in, c_noise = self.preconditioning(t, x_t.ndim)
            out = net(c_in * x_t / self.schedule.at(t, x_t.ndim).sqrt(), c_noise.flatten(), y)
        elif self.schedule.scale is not None:
            out = net(self.schedule.scale[t].view(-1, *[1] * (x_t.ndim - 1)) * x_t, t, y)
        else:
            out = net(x_t, t, y)
        if not self.learned_variance:
            return out, None
        out, var_values = out.chunk(2, dim=1)
        return out, var_values

    def preconditioning(self, t: Time, ndim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip = σ_d²/(σ² + σ_d²),  c_out = σ σ_d/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²),
        c_noise = ¼ ln σ,  for F = (D(x; σ) − c_skip x)/c_out, of c_in x   [EDM, Eq. 7, Table 1]

        σ_d is `sigma_data`; where it is 1, F is −v.
        """
        sigma, d = self.schedule.sigma(t, ndim), self.sigma_data
        norm = (sigma**2 + d**2).sqrt()
        return (d / norm) ** 2, sigma * d / norm, 1 / norm, sigma.log() / 4

    def denoiser(self, net: Net, y: Tensor | None = None) -> Denoiser:
        """denoise(x_t, t) = predict(net, x_t, t, y): a network as samplers and the bound see it."""
        return lambda x_t, t: self.predict(net, x_t, t, y)

    def _times(self, t: Time, x: Tensor) -> Tensor:
        return t if isinstance(t, Tensor) else torch.full((len(x),), t, device=x.device)
