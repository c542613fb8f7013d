"""Diffusion of points in the plane: a tiny network is trained while one looks, by the code that
trains on images, and then shows every path from noise to data, and the field that they follow.

A point is an image of two numbers, so that what is below has no process, loss or step of its own.
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import STRICT, Seed, validated
from ..core.diffusion import Diffusion
from ..core.ema import EMA
from ..core.guidance import drop_labels, guided
from ..core.layers import timestep_embedding
from ..core.loss import Loss
from ..core.sampling import ddim_step, named_step, sample, timesteps
from ..core.schedule import named_schedule
from ..core.types import Net, Noise, SamplerName, ScheduleName, Target
from ..generation.output import evenly_spaced
from ..utils.errors import UserError, did_you_mean, printable, shorten
from .shapes import SHAPES

T = 1000
SCALE = 2.0  # the plane's [-1, 1] is the network's [-2, 2]: data as wide as the noise
EXTENT = 1.5  # how far the plane is seen, and the field drawn
LAPSE = 20  # of T: the step whose direction the field shows
GRID, FIELD_TIMES = 17, 11
MAX_POINTS, MAX_CLASSES, MAX_KEPT = 4000, 5, 8
MIN_POINTS = 2
SHOWN, SAMPLES, MAX_FRAMES = 1000, 300, 32  # points of the data, samples, frames after the first
STEPS, BATCH, LR, EMA_DECAY, DROP = 1500, 512, 1e-2, 0.995, 0.3  # of training
WIDTH, DEPTH, EMBEDDING = 64, 3, 32  # of the network, which has 26,000 weights
FREQUENCIES = (1.0, 2.0, 4.0)
INTERVAL = 0.2  # seconds of training between two frames
PREVIEW_STEPS = 10


@dataclass(frozen=True)
class PlaneRequest:
    """What the page asks for. What a network is trained on is points, schedule, target and seconds;
    the rest is how it is sampled."""

    __pydantic_config__ = STRICT

    points: Any = "moons"
    """A name of SHAPES, or [[x, y], …] or [[x, y, class], …]."""
    schedule: ScheduleName = "cosine"
    target: Target = "eps"
    sampler: SamplerName = "ddim"
    steps: Annotated[int, Field(ge=1, le=200)] = 30
    guidance: Annotated[float, Field(ge=0, le=6)] = 1.0
    label: Annotated[int, Field(ge=0, lt=MAX_CLASSES)] | None = None
    """The class of every sample; None for all of them in turn."""
    seconds: Annotated[float, Field(ge=0.1, le=8)] = 4.0
    """Of training at most, which ends after STEPS steps too."""
    seed: Seed = 0
    """Of the samples."""


class MLP(nn.Module):
    """net(x_t, t, y) for x_t of shape (B, 2): residual layers, with time and class as FiLM. What
    enters is x and its sines and cosines at FREQUENCIES, by which fine shapes are learned soon
    [Tancik et al. 2020]. Label `num_classes` is ∅, no class.
    """

    def __init__(self, num_classes: int, seed: int = 0):
        super().__init__()
        self.num_classes = num_classes
        self.label = nn.Embedding(num_classes + 1, EMBEDDING)
        self.film = nn.Linear(EMBEDDING, DEPTH * 2 * WIDTH)
        self.first = nn.Linear(2 + 4 * len(FREQUENCIES), WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.last = nn.Linear(WIDTH, 2)
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if name.endswith("bias") or name == "last.weight":
                nn.init.zeros_(p)
            else:
                nn.init.xavier_uniform_(p, generator=generator)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        y = torch.full((len(x),), self.num_classes) if y is None else y
        film = self.film(timestep_embedding(t, EMBEDDING) + self.label(y))
        angles = torch.cat([f * x for f in FREQUENCIES], dim=1)
        h = self.first(torch.cat([x, angles.sin(), angles.cos()], dim=1))
        for layer, gamma_beta in zip(self.layers, film.chunk(DEPTH, dim=1), strict=True):
            gamma, beta = gamma_beta.chunk(2, dim=1)
            h = h + layer(F.silu((1 + gamma) * h + beta))
        return self.last(F.silu(h))


class Points(NamedTuple):
    """x (N, 2) within [-1, 1], their classes y (N,), and a name that no others have."""

    x: Tensor
    y: Tensor
    name: str

    @property
    def classes(self) -> int:
        return int(self.y.max()) + 1


class Trained(NamedTuple):
    """A network that is trained, and how well: the loss of its last steps, and their number."""

    net: nn.Module
    loss: float
    step: int


class Networks:
    """The networks that were trained last, MAX_KEPT of them, so that a change of how they are
    sampled is seen at once. For many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[tuple[Any, ...], Trained] = OrderedDict()

    def get(self, key: tuple[Any, ...]) -> Trained | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[Any, ...], trained: Trained) -> None:
        with self._lock:
            self._kept[key] = trained
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)


def plane(request: Any, networks: Networks) -> Iterator[dict[str, Any]]:
    """Yield what the page shows, as plain numbers for JSON, in units of the plane.

    {"phase": "data"}      at once: "points" [[x, y, class], …], "noise" [[x, y], …] from which the
                           samples will come, the class of each in "labels", "classes", "T", and
                           "alpha_bar" at 101 even times from 0 to T
    {"phase": "training"}  about five a second, unless the network is known: "step", "loss", "share"
                           of the training that is done, and "samples" as they would be by now
    {"phase": "done"}      "times" [T, …, 0]; "paths" and "x0", for each sample its points and
                           what the network saw in each; "field" {"t", "grid", "extent",
                           "vectors"}, rows from the bottom, for each time the speed of DDIM
                           towards less noise, per T; "loss", "step", "nfe"; and "distance", how
                           far from the data a sample is on average, with that of "fresh" data

    Raise UserError, in a sentence, for what cannot be done.
    """
    if not isinstance(request, Mapping):
        raise UserError("a request is a table of settings, such as points, schedule and steps")
    asked = validated(PlaneRequest, dict(request))
    points = read_points(asked.points)
    diffusion = diffusion_of(asked, points)
    y = labels_of(asked, points)
    generator = torch.Generator().manual_seed(asked.seed)

    def noise() -> Tensor:
        return torch.randn(SAMPLES, 2, generator=generator)

    start = noise()
    every = torch.arange(0, T + 1, T // 100)
    shown = zip(rounded(points.x[:SHOWN]), points.y[:SHOWN].tolist(), strict=True)
    yield {
        "phase": "data", "classes": points.classes, "labels": y.tolist(), "T": T,
        "points": [[*p, c] for p, c in shown],
        "noise": rounded(start / SCALE), "alpha_bar": rounded(diffusion.schedule.alpha_bar[every]),
    }  # fmt: skip
    key = (points.name, asked.schedule, asked.target, asked.seconds)
    trained = networks.get(key)
    if trained is None:
        for net, step, loss, share in train(points, diffusion, asked.seconds):
            trained = Trained(net, loss, step)
            if share < 1:
                x = preview(diffusion, net, start, y)
                yield {
                    "phase": "training", "step": step, "loss": round(loss, 4),
                    "share": round(share, 3), "samples": rounded(x / SCALE),
                }  # fmt: skip
        assert trained is not None
        networks.put(key, trained)
    yield {
        "phase": "done", "loss": round(trained.loss, 4), "step": trained.step,
        **sampled(asked, diffusion, trained.net, start, y, noise, points),
    }  # fmt: skip


# ---- what is asked ---------------------------------------------------------------------------


def read_points(points: Any) -> Points:
    """Return the points that are named or listed. Raise UserError for what is neither."""
    if isinstance(points, str):
        if points not in SHAPES:
            hint = did_you_mean(points, SHAPES)
            name = printable(shorten(points, 40))
            raise UserError(f"there are no points called {name!r}: {', '.join(SHAPES)}{hint}")
        return Points(*SHAPES[points](MAX_POINTS, torch.Generator().manual_seed(0)), points)
    if not isinstance(points, list | tuple) or not MIN_POINTS <= len(points) <= MAX_POINTS:
        n = f", not {len(points):,}" if isinstance(points, list | tuple) else ""
        raise UserError(f"draw {MIN_POINTS} to {MAX_POINTS:,} points, each [x, y, class]{n}")
    rows = [read_point(i, p) for i, p in enumerate(points, 1)]
    name = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    x = torch.tensor([row[:2] for row in rows]).clamp(-1, 1)
    return Points(x, torch.tensor([int(row[2]) for row in rows]), name)


def read_point(i: int, point: Any) -> tuple[float, float, int]:
    numbers = [*point, 0][:3] if isinstance(point, list | tuple) and len(point) in (2, 3) else []
    if not numbers or not all(type(v) in (int, float) for v in numbers):
        raise UserError(f"point {i} is not [x, y] or [x, y, class] of numbers")
    if not all(-1e9 < v < 1e9 for v in numbers):  # neither is NaN
        raise UserError(f"point {i} lies nowhere: x and y are from -1 to 1")
    x, y, c = numbers
    if c not in range(MAX_CLASSES):
        raise UserError(f"point {i} is of class {c:g}, and classes are 0 to {MAX_CLASSES - 1}")
    return float(x), float(y), int(c)


def diffusion_of(asked: PlaneRequest, points: Points) -> Diffusion:
    std = max(float(points.x.std()) * SCALE, 0.1)
    try:
        return Diffusion(
            named_schedule(asked.schedule, T), asked.target, clip=SCALE, sigma_data=std
        )
    except ValueError as error:  # a schedule that does not go with the target
        raise UserError(str(error)) from None


def labels_of(asked: PlaneRequest, points: Points) -> Tensor:
    """Return the classes of the samples, (SAMPLES,): the one that is asked, or all in turn."""
    present = points.y.unique()
    if asked.label is None:
        return present[torch.arange(SAMPLES) % len(present)]
    if asked.label not in present:
        raise UserError(f"no point is of class {asked.label}: draw some, or choose another class")
    return torch.full((SAMPLES,), asked.label)


# ---- training and sampling -------------------------------------------------------------------


def train(
    points: Points, diffusion: Diffusion, seconds: float
) -> Iterator[tuple[nn.Module, int, float, float]]:
    """Yield (averaged network, step, loss, share of the budget) every INTERVAL, and at the end.

    Algorithm 1 of DDPM, with Adam, whose rate falls to 0 as the budget is spent: STEPS, or seconds
    by Clock, without those between the yields, which are others'.
    """
    x0, labels = points.x * SCALE, points.y
    times = "log-normal" if diffusion.target == "F" else "stratified"
    loss_of = Loss(diffusion, time_sampling=times)  # type: ignore[arg-type]
    net, generator = MLP(points.classes), torch.Generator().manual_seed(0)
    ema = EMA(net, EMA_DECAY)
    optimizer = torch.optim.Adam(net.parameters(), LR, fused=True)
    spent, clock, total, since = 0.0, Clock(), torch.zeros(()), 0
    for step in range(1, STEPS + 1):
        now = clock.seconds()
        share = max(step / STEPS, (spent + now) / seconds)
        optimizer.param_groups[0]["lr"] = LR * min(step / 50, max(1 - share, 0.01))
        i = torch.randint(len(x0), (BATCH,), generator=generator)
        t = loss_of.sample_times(BATCH, generator)
        eps = torch.randn(BATCH, 2, generator=generator)
        y = drop_labels(labels[i], DROP, points.classes, generator)
        loss = loss_of(net, x0[i], t, eps, y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(net)
        total, since = total + loss.detach(), since + 1
        if share >= 1 or now > INTERVAL:
            spent += clock.seconds()
            yield ema.model, step, float(total) / since, min(share, 1.0)
            if share >= 1:
                return
            clock, total, since = Clock(), torch.zeros(()), 0


class Clock:
    """Seconds that this thread has computed since, or half of those that have passed, if more: a
    busy machine trains for longer, but not for ever."""

    def __init__(self) -> None:
        self.begun = time.thread_time(), time.perf_counter()

    def seconds(self) -> float:
        computed, passed = self.begun
        return max(time.thread_time() - computed, (time.perf_counter() - passed) / 2)


def preview(diffusion: Diffusion, net: nn.Module, start: Tensor, y: Tensor) -> Tensor:
    """Return where the samples would come to by now, (SAMPLES, 2), by few steps without noise."""
    times = timesteps(diffusion.schedule, PREVIEW_STEPS)
    *_, state = sample(diffusion, diffusion.denoiser(net, y), lambda: start, times, ddim_step)
    return state.x


def sampled(
    asked: PlaneRequest, diffusion: Diffusion, net: nn.Module, start: Tensor, y: Tensor,
    noise: Noise, points: Points,
) -> dict[str, Any]:  # fmt: skip
    """Return the part of the last frame that tells how the samples came about."""
    passes, null = 0, points.classes

    def counted(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        nonlocal passes
        passes += len(x)
        return net(x, t, y)

    guided_net = guided(counted, asked.guidance, null)
    times = timesteps(diffusion.schedule, asked.steps)
    step, denoise = named_step(asked.sampler), diffusion.denoiser(guided_net, y)
    states = list(sample(diffusion, denoise, noise, times, step, start))
    nfe = passes // len(start)
    x = torch.stack([state.x for state in states], 1)
    if not x.isfinite().all():
        raise UserError("the samples are not finite: choose another target, schedule or sampler")
    seen = [state.x0 for state in states if state.x0 is not None]  # in each x but the last
    shown = sorted(evenly_spaced(asked.steps, MAX_FRAMES))
    own = None if asked.label is None else torch.tensor(asked.label)
    return {
        "nfe": nfe,
        "times": [times[k] for k in shown],
        "paths": rounded(x[:, shown] / SCALE),
        "x0": rounded(torch.stack([*seen, states[-1].x], 1)[:, shown] / SCALE),
        "field": field(diffusion, guided_net, own),
        "distance": nearest(states[-1].x / SCALE, points.x),
        "fresh": nearest(points.x[:SAMPLES], points.x, rank=2),  # the first is the point itself
    }


def field(diffusion: Diffusion, net: Net, label: Tensor | None) -> dict[str, Any]:
    """Return how fast x moves towards less noise, by a short DDIM step, over the plane at
    FIELD_TIMES from T to LAPSE; of a class, or without one."""
    side = torch.linspace(-EXTENT, EXTENT, GRID)
    y, x = torch.meshgrid(side, side, indexing="ij")
    at = SCALE * torch.stack([x.flatten(), y.flatten()], 1)
    denoise = diffusion.denoiser(net, None if label is None else label.expand(len(at)))
    times = torch.linspace(T, LAPSE, FIELD_TIMES).long().tolist()
    with torch.inference_mode():
        moved = [
            ddim_step(diffusion, at, denoise(at, t), t - LAPSE, t, at.clone) - at for t in times
        ]
    speed = torch.stack(moved) * (T / LAPSE / SCALE)
    return {"t": times, "grid": GRID, "extent": EXTENT, "vectors": rounded(speed)}


def nearest(x: Tensor, data: Tensor, rank: int = 1) -> float:
    """Return how far from x the nearest of the data is, or the second nearest, on average."""
    distance = torch.cdist(x, data).kthvalue(rank, dim=1).values.mean()
    return round(float(distance), 4)


def rounded(x: Tensor) -> Any:
    """Return numbers of three decimals, in lists: a frame is text."""
    return x.double().round(decimals=3).tolist()
