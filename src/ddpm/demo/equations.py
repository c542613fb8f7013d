"""The whiteboard: one image at one time, each number beside its equation and the code for it."""

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
from .html import Line, chart, pane, png


@dataclass(frozen=True)
class Equation:
    """As it is typeset, and the function that computes it."""

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


MADE = ", which this network made: its data set is not here"


def source(equation: Equation) -> str:
    """The very lines that compute it, without the docstring, which says it again."""
    lines = textwrap.dedent(inspect.getsource(equation.code))
    head, quote, rest = lines.partition('"""')
    if not quote:
        return lines.rstrip()
    return head.rstrip() + rest.partition('"""')[2].rstrip()


@torch.inference_mode()
def board(checkpoint: Checkpoint, image: Tensor, t: int, seed: int = 0, made: bool = False) -> str:
    """x_0, ε, x_t, the posterior's mean and x̂_0 at time t, the curves, and the numbers. `made`: the
    image came out of the network, as no real one is at hand."""
    diffusion, T = checkpoint.diffusion, checkpoint.diffusion.T
    t = min(max(1, int(t)), T)
    device = diffusion.schedule.alpha_bar.device
    x0 = to_float(image)[None].to(device)
    eps = ImageNoise(seed, [0], tuple(image.shape), device)()
    x_t = diffusion.q_sample(x0, t, eps)
    seen = diffusion.predict(checkpoint.net, x_t, t)
    posterior = diffusion.q_posterior(x0, x_t, t - 1, t)
    weights = weights_of(diffusion, t)
    error = (seen.x0 - x0).square().mean()
    panes = [
        pane("x<sub>0</sub>" + MADE * made, picture(x0), "the clean image"),
        pane("ε", picture(eps / 2), "the noise"),
        pane(f"x<sub>{t}</sub>", picture(x_t), f"the image at time {t}"),
        pane("x̂<sub>0</sub>, seen by the network", picture(seen.x0), "the predicted clean image"),
        pane(f"μ̃<sub>{t}</sub>, one step back", picture(posterior.mean), "the posterior's mean"),
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
        f'<div class="stage five">{"".join(panes)}</div><div class="stage">'
        f'<table class="numbers"><caption>At this time</caption>{table}</table>'
        f"{curves(diffusion, t)}</div>"
    )


class Weights(NamedTuple):
    """The posterior at a time, or at many: μ̃ = x0 · x_0 + x_t · x_t, and its variances."""

    x0: Tensor
    x_t: Tensor
    beta: Tensor
    beta_tilde: Tensor


def weights_of(diffusion: Diffusion, t: Time) -> Weights:
    """What q_posterior, one step back, makes of 1 and 0: its mean is linear in x_0 and x_t."""
    one = torch.ones_like(diffusion.schedule.at(t))
    of_x0 = diffusion.q_posterior(one, 0 * one, t - 1, t)
    of_x_t = diffusion.q_posterior(0 * one, one, t - 1, t)
    return Weights(of_x0.mean, of_x_t.mean, of_x0.beta, of_x0.beta_tilde)


def curves(diffusion: Diffusion, t: int) -> str:
    """ᾱ, SNR, and the posterior's weights and variances over all times, with this one marked."""
    alpha_bar, snr, x0, x_t, beta, tilde = over_time(diffusion)
    return (
        chart("ᾱ<sub>t</sub>", [alpha_bar], mark=t)
        + chart("SNR(t), logarithmic", [snr], log=True, mark=t)
        + chart("Weights in the posterior's mean:", [x0, x_t], mark=t)
        + chart("Variances of a step, logarithmic:", [beta, tilde], log=True, mark=t)
    )


@lru_cache(maxsize=8)
def over_time(diffusion: Diffusion) -> tuple[Line, ...]:
    """The lines of all charts, of about a hundred points each."""
    T, device = diffusion.T, diffusion.schedule.alpha_bar.device
    times = sorted({*range(1, T + 1, max(1, T // 100)), T})
    t = torch.tensor(times, device=device)
    weights = weights_of(diffusion, t)
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


def picture(x: Tensor) -> str:
    return png(to_uint8(x).cpu())
