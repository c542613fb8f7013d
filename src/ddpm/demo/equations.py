"""The whiteboard: one image at one time, and each equation with the code that computes it."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint
from ..core.diffusion import Diffusion
from ..core.schedule import Schedule, from_betas
from ..core.types import Time
from ..utils.errors import UserError
from ..utils.images import to_float, to_uint8
from ..utils.random import ImageNoise
from .pictures import png

MATHML = Path(__file__).parent / "static" / "mathml"


@dataclass(frozen=True)
class Equation:
    """An equation, in static/mathml under its key; where it is from, and what computes it."""

    key: str
    title: str
    paper: str
    code: Callable[..., object]

    def as_dict(self) -> dict[str, str]:
        return {
            "key": self.key, "title": self.title, "paper": self.paper,
            "mathml": (MATHML / f"{self.key}.html").read_text(encoding="utf-8"),
            "function": self.code.__qualname__, "code": source(self.code),
        }  # fmt: skip


EQUATIONS = (
    Equation("schedule", "The schedule: how much of the image is left",
             "DDPM, Ho et al. 2020, section 2", from_betas),
    Equation("forward", "The forward process: noise is added in one leap",
             "DDPM, Ho et al. 2020, Eq. 4", Diffusion.q_sample),
    Equation("snr", "The signal-to-noise ratio",
             "Variational Diffusion Models, Kingma et al. 2021, Eq. 2", Schedule.snr),
    Equation("predict", "What the network sees in it",
             "DDPM, Eq. 15; for v: Salimans and Ho 2022, App. D", Diffusion.predict),
    Equation("posterior", "The posterior: one step back, if the clean image were known",
             "DDPM, Ho et al. 2020, Eq. 6 and 7", Diffusion.q_posterior),
)  # fmt: skip


def source(code: Callable[..., object]) -> str:
    """Return the source of a function, without the docstring, which states the equation too."""
    lines = textwrap.dedent(inspect.getsource(code))
    head, quote, rest = lines.partition('"""')
    if not quote:
        return lines.rstrip()
    return head.rstrip() + rest.partition('"""')[2].rstrip()


@torch.inference_mode()
def whiteboard(
    checkpoint: Checkpoint, image: Tensor, t: int, seed: int = 0,
    pixel: tuple[int, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return x_0, ε, x_t, what the network predicts, and the posterior's mean at time t, limited to
    1 … T: pictures, their weights, and with `pixel`, (x, y), all values there, by channel.

    `image` is x_0, uint8 (C, H, W). ε follows from `seed`. Raise UserError for a pixel outside.
    """
    diffusion, T = checkpoint.diffusion, checkpoint.diffusion.T
    t = min(max(1, int(t)), T)
    device = diffusion.device
    x0 = to_float(image)[None].to(device)
    eps = ImageNoise(seed, [0], tuple(image.shape), device)()
    x_t = diffusion.q_sample(x0, t, eps)
    predicted = diffusion.predict(checkpoint.net, x_t, t)
    posterior = diffusion.q_posterior(predicted.x0, x_t, t - 1, t)
    weights = posterior_weights(diffusion, t)
    alpha_bar = diffusion.schedule.at(t)
    images = {
        "x0": x0, "eps": eps, "x_t": x_t, "x0_hat": predicted.x0, "eps_hat": predicted.eps,
        "mean": posterior.mean,
    }  # fmt: skip
    noise = ("eps", "eps_hat")  # of which two deviations are shown as one
    numbers = {
        "alpha_bar": alpha_bar, "sqrt_alpha_bar": alpha_bar.sqrt(),
        "sqrt_rest": (1 - alpha_bar).sqrt(), "snr": diffusion.schedule.snr(t),
        "beta": posterior.beta, "beta_tilde": posterior.beta_tilde,
        "weight_x0": weights.x0, "weight_x_t": weights.x_t,
        "error": (predicted.x0 - x0).square().mean(),
    }  # fmt: skip
    return {
        "t": t, "T": T, "target": diffusion.target,
        "pictures": {k: png(to_uint8(x / 2 if k in noise else x).cpu()) for k, x in images.items()},
        "numbers": {k: float(v) for k, v in numbers.items()},
        "pixel": None if pixel is None else at_pixel(images, *pixel),
    }  # fmt: skip


def at_pixel(images: dict[str, Tensor], x: int, y: int) -> dict[str, list[float]]:
    """Return the values of every image at a pixel, by channel."""
    h, w = images["x0"].shape[-2:]
    if x >= w or y >= h:
        raise UserError(f"pixel ({x}, {y}) is outside of an image of {w} x {h}")
    return {k: [round(v, 4) for v in image[0, :, y, x].tolist()] for k, image in images.items()}


class PosteriorWeights(NamedTuple):
    """The weights of the posterior's mean, μ̃ = x0 · x_0 + x_t · x_t, and its variances, at one time
    or at many."""

    x0: Tensor
    x_t: Tensor
    beta: Tensor
    beta_tilde: Tensor


def posterior_weights(diffusion: Diffusion, t: Time) -> PosteriorWeights:
    """Return the posterior's weights, one step back: what q_posterior makes of 1 and 0, as its mean
    is linear in x_0 and x_t."""
    one = torch.ones_like(diffusion.schedule.at(t))
    of_x0 = diffusion.q_posterior(one, 0 * one, t - 1, t)
    of_x_t = diffusion.q_posterior(0 * one, one, t - 1, t)
    return PosteriorWeights(of_x0.mean, of_x_t.mean, of_x0.beta, of_x0.beta_tilde)


@lru_cache(maxsize=8)
def curves(diffusion: Diffusion) -> dict[str, list[float | None]]:
    """Return ᾱ, the SNR, and the posterior's weights and variances at about a hundred times; None
    where one is infinite."""
    T, device = diffusion.T, diffusion.device
    times = sorted({*range(1, T + 1, max(1, T // 100)), T})
    t = torch.tensor(times, device=device)
    weights = posterior_weights(diffusion, t)
    values = {
        "t": t.float(), "alpha_bar": diffusion.schedule.at(t), "snr": diffusion.schedule.snr(t),
        "weight_x0": weights.x0, "weight_x_t": weights.x_t,
        "beta": weights.beta, "beta_tilde": weights.beta_tilde,
    }  # fmt: skip
    finite = {k: v.isfinite().tolist() for k, v in values.items()}
    return {
        k: [float(f"{y:.5g}") if ok else None for y, ok in zip(v.tolist(), finite[k], strict=True)]
        for k, v in values.items()
    }
