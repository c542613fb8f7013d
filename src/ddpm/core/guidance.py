"""Guidance: classifier-free, or by a weaker network (autoguidance); at all times or in an interval.

For classifier-free guidance one network knows the class and the absence of one.
"""

import torch
from torch import Tensor

from .diffusion import Diffusion
from .types import Denoiser, Net, Prediction


def drop_labels(y: Tensor, p: float, null: int, generator: torch.Generator | None = None) -> Tensor:
    """c ← ∅ with probability p   [Ho and Salimans 2022, Algorithm 1]

    `y`: labels of shape (B,). `null`: the label that stands for ∅.
    """
    dropped = torch.rand(y.shape, generator=generator, device=y.device) < p
    return torch.where(dropped, null, y)


def guided(net: Net, scale: float, null: int) -> Net:
    """ε̃ = (1 + w) ε(x, c) − w ε(x, ∅) = ε(x, ∅) + scale (ε(x, c) − ε(x, ∅)),  scale = 1 + w
    [Ho and Salimans 2022, Eq. 6]

    A network that is used like the one it wraps; the same holds for targets x_0 and v, which are
    linear in ε. A learned variance stays that of ε(x, c). Scale 0 ignores the class and 1 is the
    plain conditional network: one evaluation a step. Any other takes two, in one batch of 2B.
    """

    def guided_net(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None or scale == 1:
            return net(x, t, y)
        if scale == 0:
            return net(x, t, torch.full_like(y, null))
        labels = torch.cat([y, torch.full_like(y, null)])
        conditional, unconditional = net(torch.cat([x, x]), torch.cat([t, t]), labels).chunk(2)
        return extrapolate(unconditional, conditional, scale, x.shape[1])

    return guided_net


def autoguided(net: Net, guide: Net, scale: float) -> Net:
    """D_w(x, c) = D_0(x, c) + w (D_1(x, c) − D_0(x, c))   [Karras et al. 2024, Eq. 3]

    `net` is D_1 and `guide` D_0, a weaker version of it for the same target: an early snapshot, or
    a smaller network. It makes the same errors, but larger, so that extrapolating past `net`
    reduces them. It needs no classes, and costs no diversity. Scale w = 1 is `net` alone; any other
    takes two evaluations a step.
    """

    def guided_net(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if scale == 1:
            return net(x, t, y)
        return extrapolate(guide(x, t, y), net(x, t, y), scale, x.shape[1])

    return guided_net


def extrapolate(weak: Tensor, strong: Tensor, scale: float, channels: int) -> Tensor:
    """Return weak + scale (strong − weak); of channels beyond those of the image, which tell of a
    learned variance, `strong` as it is."""
    out = weak + scale * (strong - weak)
    return (
        out if out.shape[1] == channels else torch.cat([out[:, :channels], strong[:, channels:]], 1)
    )


def with_guidance(
    diffusion: Diffusion,
    net: Net,
    y: Tensor | None,
    scale: float,
    null: int,
    interval: tuple[float, float] = (0.0, 1.0),
    guide: Net | None = None,
) -> Denoiser:
    """The denoiser of `net`, guided at times within the `interval`, in shares of T: by the `guide`,
    or where there is none by itself without the class."""
    if guide is None:
        strong, plain = guided(net, scale, null), guided(net, 0 if scale == 0 else 1, null)
    else:
        strong, plain = autoguided(net, guide, scale), net
    low, high = (share * diffusion.T for share in interval)
    return guidance_interval(diffusion.denoiser(strong, y), diffusion.denoiser(plain, y), low, high)


def guidance_interval(strong: Denoiser, plain: Denoiser, low: float, high: float) -> Denoiser:
    """D_w(x_t) if low < t ≤ high, else D(x_t)   [Kynkäänniemi et al. 2024, Sec. 3.1]

    `strong` is the guided denoiser D_w and `plain` is D. At higher times guidance makes images of
    a class alike, and at lower ones what is left of the noise decides details, not the class.
    """

    def denoise(x_t: Tensor, t: int) -> Prediction:
        return strong(x_t, t) if low < t <= high else plain(x_t, t)

    return denoise
