"""What the network learns: the error of its target, its weight over time, and how times are drawn.

All three are for training alone; sampling needs the Diffusion, and no Loss.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .diffusion import Diffusion
from .likelihood import bits_per_dim, discretized_log_likelihood, normal_kl
from .types import Net, TimeSampling, Weight

P_MEAN, P_STD, VLB_WEIGHT = -1.2, 1.2, 0.001  # EDM, Table 1; Improved DDPM, Sec. 3.1


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss of a network that predicts the diffusion's target.

    `gamma`: the γ of min-SNR, and `min_weight` the least weight beside it. Raise ValueError for a
    learned variance whose times are not drawn evenly, which L_vlb asks for, and for min-SNR without
    a `min_weight` where SNR(T) is 0: time T, at which sampling begins, would never be learned.
    """

    diffusion: Diffusion
    weight: Weight = "simple"
    gamma: float = 5.0
    min_weight: float = 0.0
    time_sampling: TimeSampling = "uniform"

    def __post_init__(self) -> None:
        if self.diffusion.learned_variance and self.time_sampling not in ("uniform", "stratified"):
            raise ValueError("a variance is learned with time_sampling uniform or stratified alone")
        ends_in_noise = self.diffusion.schedule.alpha_bar[-1] == 0
        if self.weight == "min-snr" and not self.min_weight and ends_in_noise:
            raise ValueError("min-snr gives time T, whose SNR is 0, no weight: set min_weight 0.5")

    def __call__(
        self, net: Net, x0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """L_simple = w(t) ‖ε − ε_θ(√ᾱ_t x_0 + √(1−ᾱ_t) ε, t)‖²   [DDPM, Eq. 14, Algorithm 1]

        The target is ε, or another of `Diffusion.target_of`, and ‖·‖² is the mean over an image;
        w is 1 where the times were drawn by it. Shapes: x0, eps (B, C, H, W); t, y and the loss
        (B,). With F, a weight of 1 is EDM's λ(σ) = (σ² + σ_data²)/(σ σ_data)² on the error of x_0
        [EDM, Eq. 8]. A variance is learned by L_hybrid = L_simple + λ L_vlb, with λ = 0.001, whose
        mean takes no gradient of L_vlb [Improved DDPM, Eq. 16].
        """
        diffusion, x_t = self.diffusion, self.diffusion.q_sample(x0, t, eps)
        out, var_values = diffusion.output(net, x_t, t, y)
        loss = (out - diffusion.target_of(x0, eps, t)).square().flatten(1).mean(1)
        loss = loss if self.time_sampling == "by-weight" else self.weight_at(t) * loss
        if var_values is not None:
            fixed = torch.cat([out.detach(), var_values], dim=1)
            loss = loss + VLB_WEIGHT * diffusion.T * self.vlb_term(x0, x_t, t, fixed)
        return loss

    def vlb_term(self, x0: Tensor, x_t: Tensor, t: Tensor, out: Tensor) -> Tensor:
        """L_{t−1}, and L_0 where t is 1, of a network's output, (B,) in bits/dim  [DDPM, Eq. 5]"""
        pred = self.diffusion.predict(lambda *_: out, x_t, t)
        p, q = (self.diffusion.q_posterior(x, x_t, t - 1, t) for x in (pred.x0, x0))
        var, first = p.variance("beta", pred.var_values), q.beta_tilde == 0
        true = torch.where(first, q.beta, q.beta_tilde)  # of 0 the gradient would be NaN
        decoder = -discretized_log_likelihood(x0, p.mean, var)
        return bits_per_dim(torch.where(first, decoder, normal_kl(q.mean, true, p.mean, var)))

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
        weight = snr.clamp(max=self.gamma).clamp(min=self.min_weight)
        return weight / scale[self.diffusion.target]

    def sample_times(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """t ~ Uniform{1 … T}   [DDPM, Algorithm 1]
        or t_i = ⌈T u_i⌉, u_i = (u + i/n) mod 1, one u ~ U(0, 1)   [Kingma et al. 2021, App. I.1]
        or P(t) = w(t) / Σ w, by those same u_i, and then no weight on the loss
        or t = ⌈T σ(z)⌉, z ~ N(0, 1)   [Esser et al. 2024, Sec. 3.1]
        or ln σ_t ~ N(−1.2, 1.2²)      [EDM, Table 1]

        "uniform", "stratified", "by-weight", "logit-normal" and "log-normal". Stratified times are
        uniform too, but a batch has some from all over the chain, so its loss has less variance;
        by-weight has less still, and the gradient's mean is that of the weighted loss but for a
        factor. The last two are not divided out: to draw a time more often is to weigh it more.
        Returns int64 (n,).
        """
        T, device = self.diffusion.T, self.diffusion.device
        if self.time_sampling == "uniform":
            return torch.randint(1, T + 1, (n,), generator=generator, device=device)
        times = torch.arange(1, T + 1, device=device)
        if self.time_sampling in ("stratified", "by-weight"):
            u = torch.rand(1, generator=generator, device=device)
            share = (u + torch.arange(n, device=device) / n) % 1
            if self.time_sampling == "by-weight":
                w = self.weight_at(times).cumsum(0)
                return torch.searchsorted(w, share * w[-1]).clamp(max=T - 1) + 1
        else:
            z = torch.randn(n, generator=generator, device=device)
            if self.time_sampling == "log-normal":
                sigma, wanted = self.diffusion.schedule.sigma(times), P_MEAN + P_STD * z
                return torch.searchsorted(sigma, wanted.exp()).clamp(max=T - 1) + 1
            share = z.sigmoid()
        return (T * share).ceil().long().clamp(1, T)
