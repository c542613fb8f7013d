"""The names that settings choose among, and the callables that the whiteboard is made of.

Nothing is imported at run time, so that the command's options can use these without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, Union

if TYPE_CHECKING:
    from torch import Tensor

ScheduleName = Literal["linear", "cosine", "sigmoid", "edm", "flow"]
Target = Literal["eps", "x0", "v", "u", "F"]
Weight = Literal["simple", "min-snr"]
TimeSampling = Literal["uniform", "stratified", "by-weight", "logit-normal", "log-normal"]
SamplerName = Literal["ddpm", "ddim", "euler", "heun", "dpm++", "dpm++sde"]
Spacing = Literal["even", "quadratic", "root", "log-snr", "rho"]
Variance = Literal["beta", "beta-tilde"]
Conventions = Literal["ddpm", "improved-diffusion"]


class Prediction(NamedTuple):
    """What the network predicts at x_t: x̂_0 and ε̂, of shape (B, C, H, W) each; and `var_values`, v
    in [−1, 1], which interpolates the log-variance of the reverse step from β̃ (−1) to β (1)
    [Improved DDPM, Eq. 15]: None where the variance is not learned."""

    x0: Tensor
    eps: Tensor
    var_values: Tensor | None = None


Time: TypeAlias = Union[int, "Tensor"]
"""A time 0 … T: one for the whole batch, or a tensor of shape (B,), one for each image."""

Net: TypeAlias = Callable[["Tensor", "Tensor", "Tensor | None"], "Tensor"]
"""net(x_t, t, y) with t of shape (B,) and labels y of shape (B,) or None; returns the target."""

Denoiser: TypeAlias = Callable[["Tensor", int], Prediction]
"""denoise(x_t, t) -> Prediction(x0, eps), for one time t for the whole batch."""

Noise: TypeAlias = Callable[[], "Tensor"]
"""Each call gives fresh standard normal noise of shape (B, C, H, W)."""
