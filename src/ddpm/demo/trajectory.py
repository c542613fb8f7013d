"""Sampling, frame after frame, as the page asks for it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint
from ..config import DataInfo, SampleConfig
from ..core.editing import slerp
from ..core.sampling import State
from ..core.types import Denoiser, Noise, Prediction
from ..generation.generate import (
    Edit,
    check_edit,
    check_memory,
    cycle_labels,
    denoise_trajectory,
    guide_of,
    guided_denoiser,
    network_evaluations,
    run_sampler,
    times_of,
)
from ..generation.output import evenly_spaced
from ..utils.errors import UserError, counted
from ..utils.images import to_uint8
from ..utils.random import ImageNoise
from .pictures import page_columns, png
from .requests import SampleRequest, sample_config

MAX_FRAMES = 40  # of a film, after the first
MAX_VALUES = 4_000_000  # pixels times channels in all frames: every open page holds them
PASSING = 0.3  # seconds without a frame, after which one is shown that the film does not keep
MAX_SECONDS = 300.0  # of sampling: others have less of the network meanwhile

Frame = dict[str, Any]


def frames(
    checkpoint: Checkpoint, request: SampleRequest, edit: Edit | None = None
) -> Iterator[Frame | None]:
    """Yield frames of n images on their way from noise, or from what `edit` says; None for a step
    that is not shown. The last frame says what it took.

    A frame has the step, t, ᾱ_t, and x_t and x̂_0 as grids of images: data URIs of PNGs. `passing`
    ones are not part of the film. Raise UserError after MAX_SECONDS.
    """
    settings = sample_config(checkpoint, request)
    n = len(request.between.at) if request.between else request.n
    times = times_of(settings, checkpoint.diffusion, edit)
    steps = len(times) - 1
    kept = evenly_spaced(steps, max_frames(n, checkpoint.data))
    seconds, start, shown = 0.0, time.perf_counter(), time.perf_counter()
    for step, state in enumerate(states(checkpoint, request, settings, n, edit)):
        late = time.perf_counter() - shown > PASSING
        frame = None
        if step in kept or late:
            frame = {"step": step, "steps": steps, "n": n, **render(checkpoint, state)}
            frame["passing"] = step not in kept
            shown = time.perf_counter()
        seconds += time.perf_counter() - start
        if seconds > MAX_SECONDS:
            raise UserError(
                f"This took more than {MAX_SECONDS:.0f} seconds and was stopped after {step} of "
                f"{counted(steps, 'step')}, because others may be waiting: ask for fewer images or "
                f"steps"
            )
        if frame and step == steps:
            asked = checkpoint.conditional and request.label is not None
            guided = guide_of(checkpoint, settings) is not None
            nfe = network_evaluations(settings, checkpoint.diffusion, asked, edit, guided)
            frame |= {"nfe": nfe, "seconds": round(seconds, 2), "times": times}
        yield frame
        start = time.perf_counter()  # others had their turns meanwhile


def states(
    checkpoint: Checkpoint,
    request: SampleRequest,
    settings: SampleConfig,
    n: int,
    edit: Edit | None,
) -> Iterator[State]:
    """Yield every state, from noise to images."""
    data, diffusion, net = checkpoint.data, checkpoint.diffusion, checkpoint.net
    check_edit(edit, data)
    device = next(net.parameters()).device
    y = labels_of(request.label, n, data, device)
    check_memory(checkpoint, n, n, settings, y is not None, checkpoint.guide)
    noise = noise_of(request, n, data, device)
    null = len(data.classes)
    guide = None if checkpoint.guide is None else checkpoint.guide.net
    if edit is not None or request.fork is None:
        return denoise_trajectory(net, diffusion, noise, y, settings, null, edit, guide)
    times = times_of(settings, diffusion)
    forked = replace(request, label=request.fork.label, settings=replace(
        request.settings, guidance=request.fork.guidance))  # fmt: skip
    earlier = guided_denoiser(
        net, diffusion, labels_of(forked.label, n, data, device),
        sample_config(checkpoint, forked), null, guide,
    )  # fmt: skip
    later = guided_denoiser(net, diffusion, y, settings, null, guide)
    return forked_states(
        earlier, later, request.fork.step,
        lambda denoise: run_sampler(diffusion, denoise, noise, settings, times),
    )  # fmt: skip


def forked_states(
    earlier: Denoiser, later: Denoiser, k: int, walk: Callable[[Denoiser], Iterator[State]]
) -> Iterator[State]:
    """Yield the states of a walk whose first k steps are taken by one denoiser, and all others by
    another. A step may ask it several times, at other times than its own."""
    taken = -1

    def denoise(x: Tensor, t: int) -> Prediction:
        return (earlier if taken < k else later)(x, t)

    for state in walk(denoise):
        taken += 1
        yield state


def labels_of(label: str | None, n: int, data: DataInfo, device: torch.device) -> Tensor | None:
    """Return a label for each of n images, or None for no class."""
    if label is None:
        return None
    y = cycle_labels(n, (label,) if label else (), data)
    return None if y is None else y.to(device)


def noise_of(request: SampleRequest, n: int, data: DataInfo, device: torch.device) -> Noise:
    """Return where noise comes from: one seed, or a place between four."""
    if request.between is None:
        return ImageNoise(request.seed, range(n), data.shape, device)
    a, b, c, d = (ImageNoise(s, [0] * n, data.shape, device) for s in request.between.seeds)
    u, v = torch.tensor(request.between.at, device=device).T
    return lambda: slerp(slerp(a(), b(), u), slerp(c(), d(), u), v)


def max_frames(n: int, data: DataInfo) -> int:
    """Return how many frames a film of n images may have, after the first: fewer of many, or
    large, images."""
    values = n * data.channels * data.height * data.width
    return min(MAX_FRAMES, max(1, MAX_VALUES // values))


def render(checkpoint: Checkpoint, state: State) -> Frame:
    """Return x_t and x̂_0 as grids, with t and ᾱ_t. x̂_0 is gray before the first step, when the
    network has predicted nothing yet."""
    x0 = torch.zeros_like(state.x) if state.x0 is None else state.x0
    x = png(to_uint8(state.x).cpu())
    alpha_bar = float(checkpoint.diffusion.schedule.at(state.t))
    return {
        "t": state.t, "alpha_bar": round(alpha_bar, 6), "columns": page_columns(len(state.x)),
        "x": x, "x0": x if state.t == 0 else png(to_uint8(x0).cpu()),
    }  # fmt: skip
