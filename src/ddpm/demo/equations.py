"""The whiteboard: one image at one time, and each equation with the code that computes it."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint
from ..core.diffusion import Diffusion
from ..core.schedule import Schedule, Time, from_betas
from ..utils.images import to_float, to_uint8
from ..utils.random import ImageNoise
from .html import Line, chart, figure, png


@dataclass(frozen=True)
class Equation:
    """An equation in TeX, and the function that computes it."""

    title: str
    tex: str
    code: Callable[..., object]


EQUATIONS = (
    Equation(
        "The schedule: how much of the image is left",
        r"\bar\alpha_t = \prod_{i=1}^{t} \alpha_i \qquad \alpha_i = 1 - \beta_i"
        r"\qquad \bar\alpha_0 = 1",
        from_betas,
    ),
    Equation(
        "The forward process: noise is added in one leap",
        r"q(x_t \mid x_0) = \mathcal{N}(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t)\,I)"
        r"\qquad x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\varepsilon",
        Diffusion.q_sample,
    ),
    Equation(
        "The signal-to-noise ratio",
        r"\mathrm{SNR}(t) = \frac{\bar\alpha_t}{1-\bar\alpha_t}",
        Schedule.snr,
    ),
    Equation(
        "What the network sees in it",
        r"\hat x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}}"
        r"\quad\text{or}\quad \hat x_0 = \sqrt{\bar\alpha_t}\,x_t - \sqrt{1-\bar\alpha_t}\,\hat v",
        Diffusion.predict,
    ),
    Equation(
        "The posterior: one step back, if the clean image were known",
        r"\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0 + "
        r"\frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t"
        r"\qquad \tilde\beta_t = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t",
        Diffusion.q_posterior,
    ),
)

GENERATED = ", which this network made: its data set is not here"


def source(equation: Equation) -> str:
    """Return the source of its function, without the docstring, which states the equation too."""
    lines = textwrap.dedent(inspect.getsource(equation.code))
    head, quote, rest = lines.partition('"""')
    if not quote:
        return lines.rstrip()
    return head.rstrip() + rest.partition('"""')[2].rstrip()


@torch.inference_mode()
def whiteboard(
    checkpoint: Checkpoint, image: Tensor, t: int, seed: int = 0, generated: bool = False
) -> str:
    """Return x_0, ε, x_t, x̂_0 and the posterior's mean at time t, limited to 1 … T, with the
    numbers and the curves.

    `image` is x_0, uint8 (C, H, W); `generated` says that the network made it. ε follows from
    `seed`.
    """
    diffusion, T = checkpoint.diffusion, checkpoint.diffusion.T
    t = min(max(1, int(t)), T)
    device = diffusion.schedule.alpha_bar.device
    x0 = to_float(image)[None].to(device)
    eps = ImageNoise(seed, [0], tuple(image.shape), device)()
    x_t = diffusion.q_sample(x0, t, eps)
    predicted = diffusion.predict(checkpoint.net, x_t, t)
    posterior = diffusion.q_posterior(x0, x_t, t - 1, t)
    weights = posterior_weights(diffusion, t)
    error = (predicted.x0 - x0).square().mean()
    figures = [
        figure("x<sub>0</sub>" + GENERATED * generated, image_uri(x0), "the clean image"),
        figure("ε", image_uri(eps / 2), "the noise"),
        figure(f"x<sub>{t}</sub>", image_uri(x_t), f"the image at time {t}"),
        figure(
            "x̂<sub>0</sub>, seen by the network",
            image_uri(predicted.x0),
            "the predicted clean image",
        ),
        figure(
            f"μ̃<sub>{t}</sub>, one step back", image_uri(posterior.mean), "the posterior's mean"
        ),
    ]
    rows = {
        "t": f"{t} of {T}",
        "ᾱ<sub>t</sub>": f"{diffusion.schedule.at(t):.5f}",
        "√ᾱ<sub>t</sub>, how much is image": f"{diffusion.schedule.at(t).sqrt():.4f}",
        "√(1 − ᾱ<sub>t</sub>), how much is noise": f"{(1 - diffusion.schedule.at(t)).sqrt():.4f}",
        "SNR(t)": f"{diffusion.schedule.snr(t):.4g}",
        "β<sub>t</sub>": f"{posterior.beta:.3g}",
        "β̃<sub>t</sub>": f"{posterior.beta_tilde:.3g}",
        "μ̃<sub>t</sub>: weight of x<sub>0</sub>": f"{weights.x0:.4f}",
        "μ̃<sub>t</sub>: weight of x<sub>t</sub>": f"{weights.x_t:.4f}",
        "‖x̂<sub>0</sub> − x<sub>0</sub>‖², mean over pixels": f"{error:.4f}",
    }
    table = "".join(f"<tr><th scope='row'>{k}</th><td>{v}</td></tr>" for k, v in rows.items())
    return (
        f'<div class="stage five">{"".join(figures)}</div><div class="stage">'
        f'<table class="numbers"><caption>At this time</caption>{table}</table>'
        f"{curves(diffusion, t)}</div>"
    )


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


def curves(diffusion: Diffusion, t: int) -> str:
    """Return charts of ᾱ, the SNR, and the posterior's weights and variances, with t marked."""
    alpha_bar, snr, x0, x_t, beta, tilde = curve_lines(diffusion)
    return (
        chart("ᾱ<sub>t</sub>", [alpha_bar], mark=t)
        + chart("SNR(t), logarithmic", [snr], log=True, mark=t)
        + chart("Weights in the posterior's mean:", [x0, x_t], mark=t)
        + chart("Variances of a step, logarithmic:", [beta, tilde], log=True, mark=t)
    )


@lru_cache(maxsize=8)
def curve_lines(diffusion: Diffusion) -> tuple[Line, ...]:
    """Return the lines of all charts over t, of about a hundred points each."""
    T, device = diffusion.T, diffusion.schedule.alpha_bar.device
    times = sorted({*range(1, T + 1, max(1, T // 100)), T})
    t = torch.tensor(times, device=device)
    weights = posterior_weights(diffusion, t)
    values = {
        "ᾱ": diffusion.schedule.at(t),
        "SNR": diffusion.schedule.snr(t),
        "of x<sub>0</sub>": weights.x0,
        "of x<sub>t</sub>": weights.x_t,
        "β<sub>t</sub>": weights.beta,
        "β̃<sub>t</sub>": weights.beta_tilde,
    }
    return tuple(
        Line(name, list(zip(times, y.tolist(), strict=True))) for name, y in values.items()
    )


def image_uri(x: Tensor) -> str:
    """Return images in [−1, 1], (N, C, H, W), as the data URI of a PNG."""
    return png(to_uint8(x).cpu())
