"""The whiteboard: one image at one time, each number beside its equation and the code for it."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import Checkpoint
from ..diffusion import Diffusion
from ..images import to_float, to_uint8
from ..noise import ImageNoise
from ..schedule import Schedule
from .charts import Line, chart
from .pictures import pane, png


@dataclass(frozen=True)
class Equation:
    """As it is typeset, and the function that computes it."""

    title: str
    tex: str
    code: Callable[..., object]


EQUATIONS = (
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


def source(equation: Equation) -> str:
    """The very lines that compute it, without the docstring, which says it again."""
    lines = textwrap.dedent(inspect.getsource(equation.code))
    head, quote, rest = lines.partition('"""')
    if not quote:
        return lines.rstrip()
    return head.rstrip() + rest.partition('"""')[2].rstrip()


@torch.inference_mode()
def board(checkpoint: Checkpoint, image: Tensor, t: int, seed: int = 0) -> str:
    """x_0, ε, x_t, the posterior's mean and x̂_0 at time t, the curves, and the numbers."""
    diffusion, T = checkpoint.diffusion, checkpoint.diffusion.T
    t = min(max(1, int(t)), T)
    device = diffusion.schedule.alpha_bar.device
    x0 = to_float(image)[None].to(device)
    eps = ImageNoise(seed, [0], tuple(image.shape), device)()
    x_t = diffusion.q_sample(x0, t, eps)
    seen = diffusion.predict(checkpoint.net, x_t, t)
    posterior = diffusion.q_posterior(x0, x_t, t - 1, t)
    error = (seen.x0 - x0).square().mean()
    panes = [
        pane("x<sub>0</sub>", picture(x0), "the clean image"),
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
        "‖x̂<sub>0</sub> − x<sub>0</sub>‖², mean over pixels": f"{error:.4f}",
    }
    table = "".join(f"<tr><th scope='row'>{k}</th><td>{v}</td></tr>" for k, v in rows.items())
    return (
        f'<div class="stage five">{"".join(panes)}</div><div class="stage">'
        f'<table class="numbers"><caption>At this time</caption>{table}</table>'
        f"{curves(diffusion, t)}</div>"
    )


def curves(diffusion: Diffusion, t: int) -> str:
    """ᾱ, SNR and the two variances over all times, with this one marked."""
    schedule, T = diffusion.schedule, diffusion.T
    times = sorted({*range(1, T + 1, max(1, T // 100)), T})

    def over_time(value: Callable[[int], Tensor]) -> list[tuple[float, float]]:
        return [(u, float(value(u))) for u in times]

    def variances(u: int) -> tuple[Tensor, Tensor]:
        beta = 1 - schedule.at(u) / schedule.at(u - 1)
        return beta, (1 - schedule.at(u - 1)) / (1 - schedule.at(u)) * beta

    beta = Line("β<sub>t</sub>", over_time(lambda u: variances(u)[0]))
    tilde = Line("β̃<sub>t</sub>", over_time(lambda u: variances(u)[1]))
    return (
        chart("ᾱ<sub>t</sub>", [Line("ᾱ", over_time(schedule.at))], mark=t)
        + chart("SNR(t), logarithmic", [Line("SNR", over_time(schedule.snr))], log=True, mark=t)
        + chart("Variances of a step, logarithmic:", [beta, tilde], log=True, mark=t)
    )


def picture(x: Tensor) -> str:
    return png(to_uint8(x).cpu())
