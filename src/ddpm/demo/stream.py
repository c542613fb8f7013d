"""Images live: every function here yields the page's HTML, frame after frame, as they come."""

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
from ..utils.errors import UserError
from ..utils.images import to_uint8
from .html import download, film, gif, png, side_by_side

MAX_IMAGES = 64
MAX_STEPS = 1000
FRAMES = 40  # of a film at most, after the first
FILM = 4_000_000  # pixels of all its frames, in every channel: it is kept for each open page
PAUSE = 0.05  # seconds between frames that are sent while images are made
LONGEST = 300.0  # seconds of one walk: others wait for it

ALL, NONE = "all in turn", "no class"


def settings_of(
    checkpoint: Checkpoint,
    sampler: str,
    steps: float,
    eta: float,
    guidance: float,
    label: str,
) -> SampleConfig:
    """The sampler's settings as they were chosen in the page. Raises UserError where they are not
    to be had."""
    chosen = replace(
        checkpoint.config.sample,
        sampler=sampler,  # type: ignore[arg-type]
        steps=min(int(steps), MAX_STEPS, checkpoint.diffusion.T),
        eta=float(eta),
        guidance=0.0 if label == NONE else float(guidance),
    )
    return validated(SampleConfig, vars(chosen))


def make(
    checkpoint: Checkpoint,
    settings: SampleConfig,
    n: int,
    seed: int,
    label: str = ALL,
    edit: Edit | None = None,
) -> Iterator[str]:
    """n images out of noise, or out of what `edit` says; the last page has the whole film."""
    n = min(max(1, int(n)), MAX_IMAGES)
    labels: Sequence[str] = () if label in (ALL, NONE, "") else (label,)
    y = cycle_labels(n, labels, checkpoint.data)
    steps = len(times_of(settings, checkpoint.diffusion, edit)) - 1
    kept = spread(steps, most_frames(n, checkpoint.data))
    start, sent, frames, states = time.perf_counter(), 0.0, [], []
    for step, state in enumerate(trajectories(checkpoint, n, range(n), seed, y, settings, edit)):
        if (seconds := time.perf_counter() - start) > LONGEST:
            raise UserError(
                f"This took more than {LONGEST:.0f} seconds, and was ended {steps - step} steps of "
                f"{steps} before its end, as others may wait: ask for fewer images or steps"
            )
        send = time.perf_counter() - sent > PAUSE and step < steps
        if not send and step not in kept:
            continue
        frame = drawn(checkpoint, state, step, steps)
        if step in kept:
            frames.append(frame)
            states.append(to_uint8(state.x).cpu())
        if send:
            sent = time.perf_counter()
            yield side_by_side(*frame, step / steps)
    nfe = network_evaluations(settings, checkpoint.diffusion, checkpoint.conditional, edit)
    x, x0, caption = frames[-1]
    caption += f" · seed {seed} · {nfe} evaluations of the network, {seconds:.1f} s"
    frames[-1] = (x, x0, caption)
    links = download(x, f"ddpm-{seed}.png", "PNG") + download(
        gif(states), f"ddpm-{seed}.gif", "GIF"
    )
    yield film(frames, links)


def most_frames(n: int, data: DataInfo) -> int:
    """Of a film of n images, after the first: fewer of many, or large, images."""
    return min(FRAMES, max(1, FILM // (n * data.channels * data.height * data.width)))


def drawn(checkpoint: Checkpoint, state: State, step: int, steps: int) -> tuple[str, str, str]:
    """x_t and x̂_0 as pictures, and what is to be said of them."""
    x = png(to_uint8(state.x).cpu())
    x0 = x if state.t == 0 else png(to_uint8(seen(state)).cpu())
    alpha_bar = float(checkpoint.diffusion.schedule.at(state.t))
    return x, x0, f"step {step} of {steps} · t = {state.t} · ᾱ<sub>t</sub> = {alpha_bar:.3f}"


def seen(state: State) -> Tensor:
    """x̂_0; before the first step the network has seen nothing: gray."""
    return torch.zeros_like(state.x) if state.x0 is None else state.x0


def seed_of(number: float | None, fresh: bool) -> int:
    """The seed that was typed, or one that nobody has seen."""
    return secrets.randbelow(10**6) if fresh or number is None else int(number) % 2**63
