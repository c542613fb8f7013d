"""The noise schedule: one array, ᾱ. Everything else is derived from it where it is used.

Any process x_t = a_t x_0 + s_t ε is that of ᾱ = a²/(a² + s²), times √(a² + s²): see `process`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .types import ScheduleName, Time

MAX_BETA = 0.999  # Improved DDPM, Sec. 3.2: no single step may destroy everything


@dataclass(frozen=True, eq=False)
class Schedule:
    """ᾱ_t = ∏_{i=1…t} α_i,  α_i = 1 − β_i,  1 = ᾱ_0 > ᾱ_1 > … > ᾱ_T ≥ 0   [DDPM, Sec. 2]

    Time 0 is clean data and time T is noise: nothing but noise, where ᾱ_T is 0. `alpha_bar` has
    shape (T + 1,). Raise ValueError where it does not fall strictly from 1 to 0 or above.
    `scale`: a second array for other processes, whose network sees scale_t x_t; None for 1.
    """

    alpha_bar: Tensor
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        a = self.alpha_bar
        if a.ndim != 1 or len(a) < 2:
            raise ValueError(f"alpha_bar must have shape (T + 1,) with T ≥ 1, not {tuple(a.shape)}")
        if not (a[0] == 1 and a[-1] >= 0 and (a[1:] < a[:-1]).all()):
            raise ValueError(
                f"alpha_bar must start at 1 and fall strictly, to 0 or above; if it does but for "
                f"rounding, T = {len(a) - 1} is too many steps"
            )

    @property
    def T(self) -> int:
        return len(self.alpha_bar) - 1

    def at(self, t: Time, ndim: int = 1) -> Tensor:
        """ᾱ_t, shaped to multiply images of `ndim` axes: () for an int, (B, 1, …) for a batch."""
        if isinstance(t, int):
            if not 0 <= t <= self.T:
                raise ValueError(f"time {t} is outside 0 … {self.T}")
            return self.alpha_bar[t]
        return self.alpha_bar[t].view(-1, *[1] * (ndim - 1))

    def snr(self, t: Time, ndim: int = 1) -> Tensor:
        """SNR(t) = ᾱ_t / (1 − ᾱ_t)   [Kingma et al. 2021, Eq. 2]

        The signal-to-noise ratio, infinite at t = 0, and 0 where nothing but noise is left.
        """
        alpha_bar = self.at(t, ndim)
        return alpha_bar / (1 - alpha_bar)

    def sigma(self, t: Time, ndim: int = 1) -> Tensor:
        """σ_t = √((1 − ᾱ_t) / ᾱ_t) = 1/√SNR(t), the noise level of x_t/√ᾱ_t   [EDM, Eq. 1]"""
        alpha_bar = self.at(t, ndim)
        return ((1 - alpha_bar) / alpha_bar).sqrt()

    def half_log_snr(self, t: Time, ndim: int = 1) -> Tensor:
        """λ_t = ½ log SNR(t)   [DPM-Solver, Lu et al. 2022, Sec. 2.1]"""
        return self.snr(t, ndim).log() / 2

    def to(self, device: torch.device | str) -> "Schedule":
        scale = None if self.scale is None else self.scale.to(device)
        return Schedule(self.alpha_bar.to(device), scale)


def linear(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """β_t = β_1 + (t − 1)/(T − 1) · (β_T − β_1)   [DDPM, Sec. 4]

    β_1 and β_T are those of a process of 1000 steps; for another T they are multiplied by
    1000 / T, so that the data are destroyed to about the same degree.
    """
    scale = 1000 / T
    ramp = (i / (T - 1) if T > 1 else 1.0 for i in range(T))
    return from_betas([scale * (beta_1 + r * (beta_T - beta_1)) for r in ramp])


def cosine(T: int = 1000, s: float = 0.008) -> Schedule:
    """ᾱ_t = f(t) / f(0),  f(t) = cos²((t/T + s)/(1 + s) · π/2)   [Improved DDPM, Eq. 17]"""
    return from_function(lambda u: math.cos((u + s) / (1 + s) * math.pi / 2) ** 2, T)


def sigmoid(T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """ᾱ_t = (σ(e/τ) − σ((s + (e − s) t/T)/τ)) / (σ(e/τ) − σ(s/τ))   [Chen 2023, Algorithm 1]

    σ is the logistic function, s is `start` and e is `end`; a larger τ is flatter.
    """

    def sig(z: float) -> float:
        return 1 / (1 + math.exp(-z / tau))

    return from_function(lambda u: sig(end) - sig(start + (end - start) * u), T)


def zero_terminal_snr(schedule: Schedule) -> Schedule:
    """√ᾱ′_t = (√ᾱ_t − √ᾱ_T) √ᾱ_1 / (√ᾱ_1 − √ᾱ_T)   [Lin et al. 2024, Algorithm 1]

    Nothing of the image is left at time T, and the first step stays as it is. T is 2 or more.
    """
    if schedule.alpha_bar[-1] == 0:
        return schedule
    if schedule.T < 2 or schedule.scale is not None:
        raise ValueError("zero terminal SNR is for linear, cosine and sigmoid, and T = 2 or more")
    root = schedule.alpha_bar.sqrt()
    scaled = (root[1:] - root[-1]) * (root[1] / (root[1] - root[-1]))
    return Schedule(torch.cat([root[:1], scaled]).square())


def from_betas(betas: list[float]) -> Schedule:
    """ᾱ_t = ∏_{i=1…t} (1 − β_i)   [DDPM, Sec. 2], each β_i at most 0.999"""
    alpha = 1 - torch.tensor([0.0, *betas], dtype=torch.float32).clamp(max=MAX_BETA)
    return Schedule(alpha.cumprod(0))


def from_function(f: Callable[[float], float], T: int) -> Schedule:
    """β_t = min(1 − f(t/T) / f((t−1)/T), 0.999)   [Improved DDPM, Sec. 3.2]

    `f` falls over [0, 1], and ᾱ_t is f(t/T) / f(0) wherever β is not clipped.
    """
    return from_betas([1 - f(t / T) / f((t - 1) / T) for t in range(1, T + 1)])


def edm(
    T: int = 1000, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Schedule:
    """x_t = x_0 + σ_t ε,  σ_t^{1/ρ} rises evenly from σ_min at 1 to σ_max at T   [EDM, Eq. 5]"""
    first, last = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    rise = (last - first) / max(T - 1, 1)
    sigma = torch.tensor([(last - rise * (T - t)) ** rho for t in range(T + 1)]).double()
    sigma[0] = 0
    return from_a_s(torch.ones_like(sigma), sigma)


def flow(T: int = 1000) -> Schedule:
    """x_t = (1 − τ) x_0 + τ ε,  τ = t/T   [Liu et al. 2023, Eq. 1; Lipman et al. 2023, Ex. II]"""
    tau = torch.arange(T + 1, dtype=torch.float64) / T
    return from_a_s(1 - tau, tau)


def from_a_s(a: Tensor, s: Tensor) -> Schedule:
    """x_t = a_t x_0 + s_t ε, of shape (T + 1,) each:  ᾱ = a²/(a² + s²),  scale = √(a² + s²)"""
    square = a**2 + s**2
    return Schedule((a**2 / square).float(), square.sqrt().float())


SCHEDULES: dict[ScheduleName, Callable[[int], Schedule]] = {
    "linear": linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "edm": edm,
    "flow": flow,
}


def named_schedule(name: ScheduleName, T: int, zero_snr: bool = False) -> Schedule:
    """SCHEDULES[name](T); with `zero_snr`, rescaled to zero terminal SNR."""
    schedule = SCHEDULES[name](T)
    return zero_terminal_snr(schedule) if zero_snr else schedule
