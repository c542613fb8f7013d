"""Generate images live: yield HTML, frame after frame, while they are sampled."""

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint
from ..config import DataInfo, SampleConfig, validated
from ..core.sampling import State
from ..generation.generate import (
    Edit,
    cycle_labels,
    network_evaluations,
    times_of,
    trajectories,
)
from ..generation.output import spread
from ..utils.errors import UserError, counted
from ..utils.images import to_uint8
from .html import Frame, download, gif, player, png, progress
from .turns import Turns

MAX_IMAGES = 64
MAX_STEPS = 1000
MAX_FRAMES = 40  # of a player, after the first
MAX_VALUES = 4_000_000  # pixels times channels in all frames: every open page holds them
FRAME_INTERVAL = 0.05  # least seconds between the frames that are sent
MAX_SECONDS = 300.0  # of sampling: others have less of the network meanwhile

ALL_CLASSES, NO_CLASS = "all in turn", "no class"


def sample_config(
    checkpoint: Checkpoint,
    sampler: str,
    steps: float,
    eta: float,
    guidance: float,
    label: str,
) -> SampleConfig:
    """Return the checkpoint's settings with the visitor's choices, steps limited to MAX_STEPS and
    T. Raises UserError for a choice out of range."""
    chosen = replace(
        checkpoint.config.sample,
        sampler=sampler,  # type: ignore[arg-type]
        steps=min(int(steps), MAX_STEPS, checkpoint.diffusion.T),
        eta=float(eta),
        guidance=0.0 if label == NO_CLASS else float(guidance),
    )
    return validated(SampleConfig, vars(chosen))


def stream_images(
    checkpoint: Checkpoint,
    settings: SampleConfig,
    n: int,
    seed: int,
    label: str = ALL_CLASSES,
    edit: Edit | None = None,
    turns: Turns | None = None,
    visitor: str = "",
) -> Iterator[str]:
    """Yield HTML of n images on their way from noise, or from what `edit` says; at last a player
    of the whole animation, with links to download it.

    `label` is a class, ALL_CLASSES or NO_CLASS; `turns` has the walks of all visitors. Raises
    UserError after MAX_SECONDS of its own.
    """
    n = min(max(1, int(n)), MAX_IMAGES)
    walk = walk_html(checkpoint, settings, n, seed, label, edit)
    yield from filter(None, (turns or Turns()).share(walk, visitor))


def walk_html(
    checkpoint: Checkpoint, settings: SampleConfig, n: int, seed: int, label: str, edit: Edit | None
) -> Iterator[str]:
    """Yield what `stream_images` shows after each step, empty where that is nothing."""
    labels: Sequence[str] = () if label in (ALL_CLASSES, NO_CLASS, "") else (label,)
    y = cycle_labels(n, labels, checkpoint.data)
    steps = len(times_of(settings, checkpoint.diffusion, edit)) - 1
    kept = spread(steps, max_frames(n, checkpoint.data))
    seconds, start, sent, frames, images = 0.0, time.perf_counter(), 0.0, [], []
    for step, state in enumerate(trajectories(checkpoint, n, range(n), seed, y, settings, edit)):
        send = time.perf_counter() - sent > FRAME_INTERVAL and step < steps
        if send or step in kept:
            frame = render_frame(checkpoint, state, step, steps)
        if step in kept:
            frames.append(frame)
            images.append(to_uint8(state.x).cpu())
        sent = time.perf_counter() if send else sent
        seconds += time.perf_counter() - start
        if seconds > MAX_SECONDS:
            raise UserError(
                f"This took more than {MAX_SECONDS:.0f} seconds and was stopped after {step} of "
                f"{counted(steps, 'step')}, because others may be waiting: ask for fewer images or "
                f"steps"
            )
        yield progress(frame, step / steps) if send else ""
        start = time.perf_counter()  # others had their turns meanwhile
    nfe = network_evaluations(settings, checkpoint.diffusion, checkpoint.conditional, edit)
    summary = f" · seed {seed} · {counted(nfe, 'evaluation')} of the network, {seconds:.1f} s"
    frames[-1] = frames[-1]._replace(caption=frames[-1].caption + summary)
    links = download(frames[-1].x, f"ddpm-{seed}.png", "PNG")
    links += download(gif(images), f"ddpm-{seed}.gif", "GIF")
    yield player(frames, links)


def max_frames(n: int, data: DataInfo) -> int:
    """Return how many frames a player of n images may have, after the first: fewer of many, or
    large, images."""
    values = n * data.channels * data.height * data.width
    return min(MAX_FRAMES, max(1, MAX_VALUES // values))


def render_frame(checkpoint: Checkpoint, state: State, step: int, steps: int) -> Frame:
    """Return x_t and x̂_0 as images, with a caption."""
    x = png(to_uint8(state.x).cpu())
    x0 = x if state.t == 0 else png(to_uint8(predicted_x0(state)).cpu())
    alpha_bar = float(checkpoint.diffusion.schedule.at(state.t))
    return Frame(x, x0, f"step {step} of {steps} · t = {state.t} · ᾱ<sub>t</sub> = {alpha_bar:.3f}")


def predicted_x0(state: State) -> Tensor:
    """Return x̂_0; gray before the first step, when the network has predicted nothing yet."""
    return torch.zeros_like(state.x) if state.x0 is None else state.x0


def choose_seed(number: float | None, fresh: bool) -> int:
    """Return the seed that was typed; a random one if `fresh`, or if none was typed."""
    return secrets.randbelow(10**6) if fresh or number is None else int(number) % 2**63
