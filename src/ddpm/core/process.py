"""The process in general form: DDPM, EDM and rectified flow on one page.

x_t = a_t x_0 + s_t ε is DDPM's x_t of ᾱ = a²/(a² + s²), times r = √(a² + s²). So the posteriors,
samplers and bounds are DDPM's. What differs: which times there are, what a network sees and learns.
"""

from dataclasses import dataclass

from torch import Tensor

from .diffusion import Posterior
from .schedule import Schedule


@dataclass(frozen=True, eq=False)
class Process:
    """q(x_t | x_0) = N(a_t x_0, s_t² I),  SNR = a²/s²   [Kingma et al. 2021, Eq. 1 and 2]

    DDPM  a = √ᾱ     s = √(1 − ᾱ)   [DDPM, Eq. 4]
    EDM   a = 1      s = σ          [EDM, Table 1]
    flow  a = 1 − τ  s = τ          [Liu et al. 2023, Eq. 1]

    Arrays of shape (T + 1,); at time 0, a is 1 and s is 0.
    """

    a: Tensor
    s: Tensor

    @classmethod
    def of(cls, schedule: Schedule) -> "Process":
        """a = r √ᾱ,  s = r √(1 − ᾱ),  r = `schedule.scale`"""
        r, alpha_bar = 1 if schedule.scale is None else schedule.scale, schedule.alpha_bar
        return cls(r * alpha_bar.sqrt(), r * (1 - alpha_bar).sqrt())

    def q_sample(self, x_s: Tensor, t: int, eps: Tensor, s: int = 0) -> Tensor:
        """x_t = a_{t|s} x_s + s_{t|s} ε,  a_{t|s} = a_t/a_s,  s_{t|s}² = s_t² − a_{t|s}² s_s²
        [Kingma et al. 2021, App. A.1]"""
        ratio = self.a[t] / self.a[s]
        return ratio * x_s + (self.s[t] ** 2 - (ratio * self.s[s]) ** 2).sqrt() * eps

    def q_posterior(self, x0: Tensor, x_t: Tensor, s: int, t: int) -> Posterior:
        """q(x_s | x_t, x_0) = N(μ̃, β̃ I)   [Kingma et al. 2021, App. A.2]

        μ̃ = a_s s_{t|s}²/s_t² · x_0 + a_{t|s} s_s²/s_t² · x_t,   β̃ = s_{t|s}² s_s²/s_t²

        β is r_s²/r_t² s_{t|s}², the variance for data that are N(0, I).
        """
        ratio, r2 = self.a[t] / self.a[s], self.a**2 + self.s**2
        added, kept = self.s[t] ** 2 - (ratio * self.s[s]) ** 2, self.s[s] ** 2 / self.s[t] ** 2
        mean = self.a[s] * added / self.s[t] ** 2 * x0 + ratio * kept * x_t
        return Posterior(mean, beta_tilde=kept * added, beta=r2[s] / r2[t] * added)
