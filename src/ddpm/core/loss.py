"""What the network learns: the error of its target, its weight over time, and how times are drawn.

All three belong to training alone: what is sampled knows a Diffusion and no Loss.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .diffusion import Diffusion
from .types import Net, TimeSampling, Weight

P_MEAN, P_STD = -1.2, 1.2  # of ln σ, EDM, Table 1


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss of a network that predicts the diffusion's target.

    `gamma`: the γ of min-SNR, and `min_weight` the least weight beside it.
    """

    diffusion: Diffusion
    weight: Weight = "simple"
    gamma: float = 5.0
    min_weight: float = 0.0
    time_sampling: TimeSampling = "uniform"

    def __call__(
        self, net: Net, x0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """L_simple = w(t) ‖ε − ε_θ(√ᾱ_t x_0 + √(1−ᾱ_t) ε, t)‖²   [DDPM, Eq. 14, Algorithm 1]

        The target is ε, or another of `Diffusion.target_of`, and ‖·‖² is the mean over an image;
        w is 1 where the times were drawn by it. Shapes: x0, eps (B, C, H, W); t, y and the loss
        (B,). With F, a weight of 1 is EDM's λ(σ) = (σ² + σ_data²)/(σ σ_data)² on the error of x_0
        [EDM, Eq. 8].
        """
        diffusion = self.diffusion
        out = diffusion.output(net, diffusion.q_sample(x0, t, eps), t, y)
        error = out - diffusion.target_of(x0, eps, t)
        loss = error.square().flatten(1).mean(1)
        return loss if self.time_sampling == "by-weight" else self.weight_at(t) * loss

    def weight_at(self, t: Tensor) -> Tensor:
        """w(t): 1, or min{SNR(t), γ} on the error of x_0   [Hang et al. 2023, Eq. 5]

        An error of ε is √SNR, one of v √(SNR + 1), one of u √SNR + 1 and one of F
        √(SNR + 1/σ_data²) times the error of x_0; hence min{SNR, γ}/SNR for ε,
        min{SNR, γ}/(SNR + 1) for v, and so on. Shape (B,). With `min_weight` m it is
        max{m, min{SNR, γ}}; m = 1 and no γ are the truncated SNR [Salimans and Ho 2022, Sec. 4].
        """
        schedule = self.diffusion.schedule
        if self.weight == "simple":
            return torch.ones_like(t, dtype=schedule.alpha_bar.dtype)
        snr = schedule.snr(t)
        scale = {
            "eps": snr, "x0": torch.ones_like(snr), "v": snr + 1, "u": (snr.sqrt() + 1).square(),
            "F": snr + self.diffusion.sigma_data**-2,
        }  # fmt: skip
        return snr.clamp(self.min_weight, self.gamma) / scale[self.diffusion.target]

    def sample_times(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """t ~ Uniform{1 … T}   [DDPM, Algorithm 1]
        or t_i = ⌈T u_i⌉, u_i = (u + i/n) mod 1, one u ~ U(0, 1)   [Kingma et al. 2021, App. I.1]
        or P(t) = w(t) / Σ w, by those same u_i, and then no weight on the loss
        or t = ⌈T σ(z)⌉, z ~ N(0, 1)   [Esser et al. 2024, Sec. 3.1]
        or ln σ_t ~ N(−1.2, 1.2²)      [EDM, Table 1]

        "uniform", "stratified", "by-weight", "logit-normal" and "log-normal". Stratified times are
        uniform too, but a batch has some from all over the chain, so its loss has less variance;
        by-weight has less still, and the gradient's mean is that of the weighted loss but for a
        factor. The last two are not divided out of it: to draw a time more often is to weigh it
        more.
        Returns int64 (n,).
        """
        T, device = self.diffusion.T, self.diffusion.schedule.alpha_bar.device
        if self.time_sampling == "uniform":
            return torch.randint(1, T + 1, (n,), generator=generator, device=device)
        if self.time_sampling in ("stratified", "by-weight"):
            u = torch.rand(1, generator=generator, device=device)
            share = (u + torch.arange(n, device=device) / n) % 1
            if self.time_sampling == "by-weight":
                w = self.weight_at(torch.arange(1, T + 1, device=device)).cumsum(0)
                return torch.searchsorted(w, share * w[-1]).clamp(max=T - 1) + 1
        elif self.time_sampling == "log-normal":
            sigma = (P_MEAN + P_STD * torch.randn(n, generator=generator, device=device)).exp()
            sigmas = self.diffusion.schedule.snr(torch.arange(1, T + 1, device=device)) ** -0.5
            return torch.searchsorted(sigmas, sigma).clamp(max=T - 1) + 1
        else:
            share = torch.randn(n, generator=generator, device=device).sigmoid()
        return (T * share).ceil().long().clamp(1, T)
