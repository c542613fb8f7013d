"""Images from a checkpoint: the sampler, the guidance and the seeds put together."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise
from math import ceil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoint.checkpoint import Checkpoint, load
from ..config import DataInfo, SampleConfig
from ..core.diffusion import Diffusion
from ..core.editing import inpaint, slerp
from ..core.guidance import guided
from ..core.sampling import State, named_step, sample, timesteps
from ..core.schedule import Schedule
from ..core.types import Noise, Prediction
from ..utils.device import place
from ..utils.distributed import ALONE, Processes
from ..utils.errors import UserError
from ..utils.files import atomic_write
from ..utils.images import grid, save_animation, to_float, to_pil, to_uint8, zoom_for
from ..utils.random import ImageNoise

OnState = Callable[[State], None]
"""Called with every state of every batch, as it is reached."""


@dataclass(frozen=True, eq=False)
class Samples:
    """images: uint8 (N, C, H, W) on the CPU; labels: int64 (N,), or None where no class was asked,
    because there is none or guidance is 0."""

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Edit:
    """What images come from, where not from noise alone: towards; or image, with change; or image
    and mask, with rounds.

    towards  another seed: the images lie between image 0 of the one seed and image 0 of the other
    image    uint8 (C, H, W): variations of it
    change   0 … 1: how much of the way to noise the image goes before it comes back; 1: all
    mask     bool (H, W): paint the image anew where it is True, and keep it elsewhere
    rounds   how often each step of inpainting is walked
    """

    towards: int | None = None
    image: Tensor | None = None
    change: float = 0.6
    mask: Tensor | None = None
    rounds: int = 5


def generate(
    checkpoint: Checkpoint | str | Path,
    n: int = 16,
    *,
    seed: int = 0,
    labels: Sequence[str | int] = (),
    settings: SampleConfig | None = None,
    device: torch.device | str = "cpu",
    batch: int = 64,
    edit: Edit | None = None,
    on_state: OnState | None = None,
    processes: Processes = ALONE,
) -> Samples:
    """n images out of noise, or out of what `edit` says.

    Image i depends on the checkpoint, its label, the settings, the seed, the edit and i alone,
    whatever n and `batch` are (to the rounding of the hardware's arithmetic).

    `labels` are names or numbers of classes, which images take in turn; with none, every class has
    its turn, and with an edit no class is asked. `settings` default to those the network was
    trained to be sampled with. The `processes` share out the batches, and each of them returns all
    images.
    """
    if n < 1 or batch < 1:
        raise UserError(f"cannot make {n} images, {batch} at a time")
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load(checkpoint)
    checkpoint = on_device(checkpoint, device)
    settings = settings or checkpoint.config.sample
    if edit and not labels:
        settings = replace(settings, guidance=0.0)
    y = cycle_labels(n, labels, checkpoint.data)

    def make(index: range) -> tuple[Tensor]:
        for state in trajectories(checkpoint, n, index, seed, y, settings, edit):
            if on_state:
                on_state(state)
        return (to_uint8(state.x).cpu(),)

    batches = [range(first, min(first + batch, n)) for first in range(0, n, batch)]
    images = torch.cat([made for (made,) in processes.map_in_order(batches, make)])
    return Samples(images, None if settings.guidance == 0 else y, checkpoint.data.classes)


def on_device(checkpoint: Checkpoint, device: torch.device | str) -> Checkpoint:
    """A copy on the device, laid out as is fast there; the one given stays as it is."""
    net = copy.deepcopy(checkpoint.net)
    place(net, device)
    return replace(checkpoint, net=net, diffusion=checkpoint.diffusion.to(device))


def trajectories(
    checkpoint: Checkpoint,
    n: int,
    index: range,
    seed: int,
    y: Tensor | None,
    settings: SampleConfig,
    edit: Edit | None = None,
) -> Iterator[State]:
    """Every state of those images, of n, whose places are `index`: a batch on its way. `y`: the
    labels of all n. The network runs where it is."""
    data = checkpoint.data
    check_edit(edit, data)
    device = next(checkpoint.net.parameters()).device
    shape = (data.channels, data.height, data.width)
    noise: Noise = ImageNoise(seed, index, shape, device)
    if edit and edit.towards is not None:
        a, b = (ImageNoise(s, [0] * len(index), shape, device) for s in (seed, edit.towards))
        u = torch.tensor([i / max(1, n - 1) for i in index], device=device)
        noise = lambda: slerp(a(), b(), u)  # noqa: E731
    y = None if y is None else y[index.start : index.stop].to(device)
    return denoise_trajectory(
        checkpoint.net, checkpoint.diffusion, noise, y, settings, len(data.classes), edit
    )


def denoise_trajectory(
    net: nn.Module,
    diffusion: Diffusion,
    noise: Noise,
    y: Tensor | None,
    settings: SampleConfig,
    null: int = 0,
    edit: Edit | None = None,
) -> Iterator[State]:
    """Every state of one batch on its way from noise, as the settings say and `edit` does."""
    plain = 0 if settings.guidance == 0 else 1
    strong, weak = guided(net, settings.guidance, null), guided(net, plain, null)

    def denoise(x_t: Tensor, t: int) -> Prediction:
        net_t = strong if guides(settings, t, diffusion.T) else weak
        return diffusion.predict(net_t, x_t, t, y)

    step = named_step(settings.sampler, settings.eta, settings.variance)
    times = times_of(settings, diffusion, edit)
    if edit is None or edit.image is None:
        return sample(diffusion, denoise, noise, times, step)
    x0 = to_float(edit.image).to(diffusion.schedule.alpha_bar.device)
    if edit.mask is not None:
        mask = edit.mask.to(x0)
        return inpaint(diffusion, denoise, noise, times, x0, mask, step, edit.rounds)
    start = diffusion.q_sample(x0, times[0], noise())
    return sample(diffusion, denoise, noise, times, step, start)


def times_of(settings: SampleConfig, diffusion: Diffusion, edit: Edit | None = None) -> list[int]:
    """The times of a walk's states, from the first down to 0. A variation begins on the way, with
    its share of the steps, spaced over what is left as they are over the whole."""
    check_steps(settings, diffusion)
    schedule, steps = diffusion.schedule, settings.steps
    if edit and edit.image is not None and edit.mask is None:
        t = max(1, round(edit.change * diffusion.T))
        schedule, steps = Schedule(schedule.alpha_bar[: t + 1]), ceil(steps * t / diffusion.T)
    return timesteps(schedule, steps, settings.spacing)


def check_edit(edit: Edit | None, data: DataInfo) -> None:
    """Raises UserError for an edit that the network's images do not allow."""
    if edit is None:
        return
    if edit.image is None and edit.mask is not None:
        raise UserError("a mask needs the image that it is to be laid on")
    if edit.image is not None and edit.towards is not None:
        raise UserError("images lie between two seeds or come from an image, not both")
    shape = (data.channels, data.height, data.width)
    if edit.image is not None and tuple(edit.image.shape) != shape:
        raise UserError(f"the image has shape {tuple(edit.image.shape)}, and the network's {shape}")
    if edit.mask is not None and tuple(edit.mask.shape) != shape[1:]:
        raise UserError(f"the mask has shape {tuple(edit.mask.shape)}, and the image {shape[1:]}")
    if not 0 < edit.change <= 1 or edit.rounds < 1:
        raise UserError(
            f"change is above 0 and at most 1, not {edit.change}, and rounds are one or more, "
            f"not {edit.rounds}"
        )


def check_steps(settings: SampleConfig, diffusion: Diffusion) -> None:
    """Raises UserError for more steps than the chain has."""
    if settings.steps > diffusion.T:
        raise UserError(
            f"{settings.steps} steps are more than the {diffusion.T} that this network was "
            f"trained with: choose --steps from 1 to {diffusion.T}"
        )


def guides(settings: SampleConfig, t: int, T: int) -> bool:
    """Whether a step that begins at time t is guided: while
    guidance_above · T < t ≤ guidance_below · T

    Guidance in an interval of noise [Kynkäänniemi et al. 2024, Sec. 3.1]: above it guidance makes
    images of a class alike, and below it what is left of the noise decides details, not the class.
    """
    low, high = settings.guidance_above * T, settings.guidance_below * T
    return settings.guidance not in (0, 1) and low < t <= high


def network_evaluations(
    settings: SampleConfig, diffusion: Diffusion, classes: bool, edit: Edit | None = None
) -> int:
    """NFE: how often an image passes through the network. A guided look takes two passes, Heun's
    step looks at both of its ends but at 0, and inpainting takes every step but the last `rounds`
    times."""
    rounds = edit.rounds if edit and edit.mask is not None else 1

    def passes(t: int) -> int:
        return 2 if classes and guides(settings, t, diffusion.T) else 1

    total = 0
    for t, s in pairwise(times_of(settings, diffusion, edit)):
        second = passes(s) if settings.sampler == "heun" and s > 0 else 0
        total += (rounds if s > 0 else 1) * (passes(t) + second)
    return total


def cycle_labels(n: int, labels: Sequence[str | int], data: DataInfo) -> Tensor | None:
    """A label for each of n images: the given classes in turn, or all of them."""
    if not data.classes:
        if labels:
            raise UserError("this checkpoint was trained without classes, so no label can be asked")
        return None
    wanted = [class_index(name, data.classes) for name in labels] or range(len(data.classes))
    return torch.tensor([wanted[i % len(wanted)] for i in range(n)])


def class_index(name: str | int, classes: tuple[str, ...]) -> int:
    """The number of a class, given by its name (which goes first) or by its number."""
    if str(name) in classes:
        return classes.index(str(name))
    if str(name).isdecimal() and len(str(name)) < 10 and int(name) < len(classes):
        return int(name)
    shown = ", ".join(classes[:20]) + (" …" if len(classes) > 20 else "")
    raise UserError(f"there is no class {name!r}; there are {len(classes)}: {shown}")


def with_options(settings: SampleConfig, **options: object) -> SampleConfig:
    """The settings with those options that are not None."""
    return replace(settings, **{k: v for k, v in options.items() if v is not None})  # type: ignore[arg-type]


def spread(steps: int, most: int) -> set[int]:
    """Step 0 and `most` of the others, evenly up to the last of so many `steps`; or all of them."""
    kept = min(steps, most)
    return {round(steps * i / kept) for i in range(kept + 1)}


class AnimationRecorder:
    """How images come out of noise in so many steps, in `most` of them; the last frame is always
    the images. Pass `take` as `on_state`."""

    def __init__(self, steps: int, most: int = 50):
        self.kept = spread(steps, most)
        self.batches: list[list[Tensor]] = []
        self.seen = 0

    def take(self, state: State) -> None:
        if state.x0 is None:
            self.batches.append([])
            self.seen = 0
        if self.seen in self.kept or state.t == 0:
            self.batches[-1].append(to_uint8(state.x).cpu())
        self.seen += 1

    def frames(self) -> list[Tensor]:
        """Each frame is uint8 (N, C, H, W), over all batches."""
        return [torch.cat(frame) for frame in zip(*self.batches, strict=True)]


def write(path: Path, samples: Samples, animation: AnimationRecorder | None = None) -> None:
    """Write samples in the form that the path's ending asks for:

    .png a grid, .gif or .webp the animation, .npz `arr_0` (N, H, W, C) and labels in `arr_1` (the
    classes' names where these are numbers, else their places in `classes`), and single PNGs where
    the path is a folder.
    """
    images = samples.images
    zoom = zoom_for(images)
    if path.is_dir():
        for i, image in enumerate(images):
            with atomic_write(path / f"{i:05}.png") as beside:
                to_pil(image).save(beside)
        for i in count(len(images)):  # what a longer series left there is not of this one
            if not (left := path / f"{i:05}.png").exists():
                break
            left.unlink()
        return
    with atomic_write(path) as beside:
        if path.suffix.lower() == ".npz":
            arrays = {"arr_0": images.permute(0, 2, 3, 1).contiguous().numpy()}
            if samples.labels is not None:
                numbers = all(name.isdecimal() for name in samples.classes)
                values = [int(name) if numbers else i for i, name in enumerate(samples.classes)]
                arrays["arr_1"] = np.array(values)[samples.labels.numpy()]
                if not numbers:
                    arrays["classes"] = np.array(samples.classes)
            with beside.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        elif animation is not None:
            save_animation([grid(frame, zoom=zoom) for frame in animation.frames()], beside)
        else:
            grid(images, zoom=zoom).save(beside)
