"""Images from a checkpoint: the sampler, the guidance and the seeds put together."""

import copy
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint, load
from ..checkpoint.memory import require_memory
from ..config import DataInfo, SampleConfig, checked
from ..core.diffusion import Diffusion
from ..core.editing import inpaint, invert, slerp
from ..core.guidance import with_guidance
from ..core.sampling import Churn, State, Step, eps_scaled, named_step, sample, timesteps
from ..core.schedule import Schedule
from ..core.types import Denoiser, Net, Noise
from ..utils.device import has_bfloat16, resolve_device, to_device
from ..utils.distributed import SINGLE_PROCESS, Processes
from ..utils.errors import UserError, counted
from ..utils.images import to_float, to_uint8
from ..utils.random import ImageNoise
from .output import OnState, Samples
from .settings import (
    Labels,
    as_list,
    check_guidance,
    check_steps,
    class_indices,
    own_settings,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Edit:
    """What images come from, where not from noise alone: towards; or image, with strength or
    invert; or image and mask, with rounds.

    towards   another seed: the images lie between image 0 of the one seed and image 0 of the other
    image     uint8 (C, H, W): variations of it
    invert    begin from the noise that DDIM finds in the image, in place of fresh noise
    strength  0 … 1: how much of the way to noise the image goes before it comes back; 1: all
    mask      bool (H, W): paint the image anew where it is True, and keep it elsewhere
    rounds    how often each step of inpainting is repeated
    """

    towards: int | None = None
    image: Tensor | None = None
    strength: float = 0.6
    mask: Tensor | None = None
    rounds: int = 5
    invert: bool = False

    def as_metadata(self) -> dict[str, object]:
        """Return in words and numbers what the images come from."""
        of_image = {"strength": self.strength, "invert": self.invert} if self.mask is None else {
            "rounds": self.rounds
        }  # fmt: skip
        return {"towards": self.towards} if self.image is None else {"from": "image", **of_image}


def generate(
    checkpoint: Checkpoint | str | Path,
    n: int = 16,
    *,
    seed: int = 0,
    labels: Labels = (),
    settings: SampleConfig | None = None,
    device: torch.device | str | None = None,
    batch: int = 64,
    edit: Edit | None = None,
    guide: Checkpoint | str | Path | None = None,
    on_state: OnState | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> Samples:
    """Return n images out of noise, or out of what `edit` says.

    Image i depends on the checkpoint, its label, the settings, the seed, the edit, the guide and i
    alone, whatever n and `batch` are (to the rounding of the hardware's arithmetic).

    `labels` are names or numbers of classes, which images take in turn; without any, all classes
    take turns, and with an edit no class is asked for. `settings` default to those that the
    checkpoint holds, and `device` to the best of this machine. The `guide` is a weaker version of
    the network, such as an early checkpoint of it: images are guided away from its errors, by
    `settings.guidance`. By default it is the one that the checkpoint carries, if any. Several
    `processes` share the batches, and each returns all images.

    Raise UserError for classes that the network does not know, for more steps than it has times,
    for an edit or a guide that does not fit it, and for images that memory has no room for.
    """
    if n < 1 or batch < 1:
        raise UserError(
            f"cannot make {counted(n, 'image')}, {batch} at a time: both must be 1 or more"
        )
    device = resolve_device(device)
    checkpoint = on_device(checkpoint, device)
    settings = with_precision(settings or own_settings(checkpoint.config.sample), device)
    given = None if guide is None else on_device(guide, device)
    weaker = guide_of(checkpoint, settings, given)
    check_settings(settings, checkpoint, weaker)
    if weaker is not None and settings.guidance == 1:
        log.info("guidance is 1, at which a guide changes nothing: set a larger one")
    labels = as_list(labels)
    y = cycle_labels(n, labels, checkpoint.data)
    if (edit and not labels) or (settings.guidance == 0 and weaker is None):
        y = None
    without = y is None or settings.guidance != 1 and weaker is None
    if checkpoint.conditional and without and checkpoint.config.train.label_drop == 0:
        log.info(
            "this network was trained with label_drop 0: unless some images had no class, it has "
            "never learned one without, which this asks for"
        )
    check_memory(
        checkpoint, n, min(n, batch), settings, y is not None, weaker, say=processes.is_main
    )

    def make(index: range) -> tuple[Tensor]:
        for state in trajectories(checkpoint, n, index, seed, y, settings, edit, weaker):
            if on_state:
                on_state(state)
        return (to_uint8(state.x).cpu(),)

    batches = [range(first, min(first + batch, n)) for first in range(0, n, batch)]
    images = torch.cat([made for (made,) in processes.map_in_order(batches, make)])
    by = None if weaker is None else weaker.weights_hash()
    between = edit is not None and edit.towards is not None
    metadata = {
        "weights": checkpoint.weights_hash(), "guide": by, "step": checkpoint.step,
        "data": checkpoint.data.source, "seed": seed, "settings": asdict(settings),
        **({} if edit is None else edit.as_metadata()),
    }  # fmt: skip
    return Samples(
        images, y, checkpoint.data.classes, by, columns=n if between else None, metadata=metadata,
        background=checkpoint.config.background,
    )  # fmt: skip


def on_device(checkpoint: Checkpoint | str | Path, device: torch.device | str) -> Checkpoint:
    """Return a copy on the device, laid out as is fast there; the one given stays as it is."""
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load(checkpoint)
    net = copy.deepcopy(checkpoint.net)
    to_device(net, device)
    guide = None if checkpoint.guide is None else on_device(checkpoint.guide, device)
    return replace(checkpoint, net=net, diffusion=checkpoint.diffusion.to(device), guide=guide)


def guide_of(
    checkpoint: Checkpoint, settings: SampleConfig, given: Checkpoint | str | Path | None = None
) -> Checkpoint | None:
    """Return what guides a network: what is given, or else, if there is to be guidance, what its
    own file carries."""
    if given is None:
        return None if settings.guidance == 1 else checkpoint.guide
    return given if isinstance(given, Checkpoint) else load(given)


def trajectories(
    checkpoint: Checkpoint,
    n: int,
    index: range,
    seed: int,
    y: Tensor | None,
    settings: SampleConfig,
    edit: Edit | None = None,
    guide: Checkpoint | None = None,
) -> Iterator[State]:
    """Yield every state, from noise to images, of one batch: the images at `index`, of n.

    `y` has the labels of all n, or is None for no class. The networks run where they are; without a
    `guide`, the one that the checkpoint carries. Memory for them is the caller's to check.
    """
    guide = guide_of(checkpoint, settings, guide)
    data, shape = checkpoint.data, checkpoint.data.shape
    check_edit(edit, data)
    device = next(checkpoint.net.parameters()).device
    noise: Noise = ImageNoise(seed, index, shape, device)
    if edit and edit.towards is not None:
        a, b = (ImageNoise(s, [0] * len(index), shape, device) for s in (seed, edit.towards))
        u = torch.tensor([i / max(1, n - 1) for i in index], device=device)
        noise = lambda: slerp(a(), b(), u)  # noqa: E731
    y = None if y is None else y[index.start : index.stop].to(device)
    return denoise_trajectory(
        checkpoint.net, checkpoint.diffusion, noise, y, settings, len(data.classes), edit,
        None if guide is None else guide.net,
    )  # fmt: skip


def denoise_trajectory(
    net: Net,
    diffusion: Diffusion,
    noise: Noise,
    y: Tensor | None,
    settings: SampleConfig,
    null: int = 0,
    edit: Edit | None = None,
    guide: Net | None = None,
) -> Iterator[State]:
    """Yield every state of one batch, from noise to images, by the settings and the edit.

    `null` is the label that stands for no class.
    """
    denoise = guided_denoiser(net, diffusion, y, settings, null, guide)
    times = times_of(settings, diffusion, edit)
    if edit is None or edit.image is None:
        return run_sampler(diffusion, denoise, noise, settings, times)
    x0 = to_float(edit.image).to(diffusion.device)
    if edit.mask is not None:
        step, mask = step_of(settings), edit.mask.to(x0)
        return inpaint(diffusion, denoise, noise, times, x0, mask, step, edit.rounds)
    if edit.invert:
        images = x0.expand(len(noise()), *x0.shape)
        start = invert(diffusion, diffusion.denoiser(net), images, times)
    else:
        start = diffusion.q_sample(x0, times[0], noise())
    return run_sampler(diffusion, denoise, noise, settings, times, start)


def run_sampler(
    diffusion: Diffusion,
    denoise: Denoiser,
    noise: Noise,
    settings: SampleConfig,
    times: list[int],
    start: Tensor | None = None,
) -> Iterator[State]:
    """Yield every state of the settings' sampler over the times, from noise or from `start`."""
    churn = Churn(settings.churn) if settings.churn else None
    return sample(diffusion, denoise, noise, times, step_of(settings), start, churn)


def step_of(settings: SampleConfig) -> Step:
    """Return the step of the settings' sampler."""
    return named_step(settings.sampler, settings.eta, settings.variance)


def guided_denoiser(
    net: Net,
    diffusion: Diffusion,
    y: Tensor | None,
    settings: SampleConfig,
    null: int,
    guide: Net | None = None,
) -> Denoiser:
    """Return the network's denoiser with the guidance that the settings ask for: by the guide,
    where there is one, and else by the network itself without a class; and its ε̂ scaled. Networks
    compute in the precision of the settings, and all else in float32."""
    if with_precision(settings, diffusion.device).precision == "bf16":
        net, guide = in_bfloat16(net), None if guide is None else in_bfloat16(guide)
    interval = settings.guidance_above, settings.guidance_below
    denoise = with_guidance(diffusion, net, y, settings.guidance, null, interval, guide)
    return eps_scaled(diffusion, denoise, settings.eps_scale)


def with_precision(settings: SampleConfig, device: torch.device | str) -> SampleConfig:
    """Return the settings, in float32 where the device has no bfloat16: settings are for many
    machines."""
    if settings.precision == "bf16" and not has_bfloat16(device):
        return replace(settings, precision="no")
    return settings


def in_bfloat16(net: Net) -> Net:
    """Return the network with its products and convolutions in bfloat16, by autocast: weights,
    norms and what it returns stay in float32."""

    def forward(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return net(x, t, y).float()

    return forward


def times_of(settings: SampleConfig, diffusion: Diffusion, edit: Edit | None = None) -> list[int]:
    """Return the times of a trajectory's states, from the first down to 0.

    A variation begins on the way, with its share of the steps, spaced over what is left as they are
    over the whole. Raise UserError for more steps than the diffusion has times.
    """
    check_steps(settings, diffusion.T)
    schedule, steps = diffusion.schedule, settings.steps
    if edit and edit.image is not None and edit.mask is None:
        t = max(1, round(edit.strength * diffusion.T))
        schedule, steps = Schedule(schedule.alpha_bar[: t + 1]), ceil(steps * t / diffusion.T)
    return timesteps(schedule, steps, settings.spacing, settings.sigma_min)


def network_evaluations(
    settings: SampleConfig,
    diffusion: Diffusion,
    classes: bool,
    edit: Edit | None = None,
    guide: bool = False,
) -> int:
    """Return the NFE: how often an image passes through a network, the guide's passes included.

    `classes`: whether a class is asked for. Counted on a trajectory whose network only counts.
    """
    passes = 0

    def net(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        nonlocal passes
        passes += len(x)
        return torch.cat([x, x], dim=1) if diffusion.learned_variance else x

    y = torch.zeros(1, dtype=torch.long) if classes else None
    trajectory = denoise_trajectory(
        net, diffusion.to("cpu"), lambda: torch.zeros(1, 1, 1, 1), y, settings, edit=edit,
        guide=net if guide else None,
    )  # fmt: skip
    for _ in trajectory:
        pass
    return passes


def check_settings(
    settings: SampleConfig, checkpoint: Checkpoint, guide: Checkpoint | None
) -> None:
    """Raise UserError for settings that are out of range, and for those and a guide that the
    network cannot be sampled by."""
    checked(settings)
    check_steps(settings, checkpoint.diffusion.T)
    if guide is not None:
        check_guide(guide, checkpoint)
    check_guidance(settings, guide is not None)


def check_edit(edit: Edit | None, data: DataInfo) -> None:
    """Raise UserError for an edit that the network's images do not allow."""
    if edit is None:
        return
    if edit.image is None and edit.mask is not None:
        raise UserError("a mask needs the image that it is laid on: give the image too")
    if edit.invert and (edit.image is None or edit.mask is not None):
        raise UserError("noise is found in an image, without a mask: give the image alone")
    if edit.image is not None and edit.towards is not None:
        raise UserError("images lie between two seeds or come from an image, not both")
    shape = data.shape
    if edit.image is not None and tuple(edit.image.shape) != shape:
        raise UserError(f"the image has shape {tuple(edit.image.shape)}, and the network's {shape}")
    if edit.mask is not None and tuple(edit.mask.shape) != shape[1:]:
        raise UserError(f"the mask has shape {tuple(edit.mask.shape)}, and the image {shape[1:]}")
    if not 0 < edit.strength <= 1 or edit.rounds < 1:
        raise UserError(
            f"strength is above 0 and at most 1, not {edit.strength}, and rounds are one or more, "
            f"not {edit.rounds}"
        )


def check_memory(
    checkpoint: Checkpoint,
    n: int,
    at_once: int,
    settings: SampleConfig,
    classes: bool,
    guide: Checkpoint | None = None,
    say: bool = False,
    device: torch.device | str | None = None,
) -> None:
    """Raise UserError where memory has no room for n images, so many at once, whose `classes` are
    asked for or not, on the `device`, by default the network's; `say` how much they take where it
    is much."""
    twice = classes and guide is None and settings.guidance not in (0, 1)
    device = device or next(checkpoint.net.parameters()).device
    require_memory(
        checkpoint.config.unet, checkpoint.data.shape, at_once, device, n, 1 + twice, say
    )


def check_guide(guide: Checkpoint, checkpoint: Checkpoint) -> None:
    """Raise UserError where the one network cannot guide the other."""

    def traits(c: Checkpoint) -> dict[str, object]:
        d = c.diffusion
        return {
            "shape of images": c.data.shape,
            "classes": c.data.classes,
            "target": (d.target, d.sigma_data, d.learned_variance),
            "noise schedule": d.schedule.alpha_bar.tolist(),
        }

    for name, value in traits(checkpoint).items():
        if traits(guide)[name] != value:
            raise UserError(
                f"the guide does not have the {name} of the network: choose an earlier or smaller "
                f"version of the same network"
            )


def cycle_labels(n: int, labels: Labels, data: DataInfo) -> Tensor | None:
    """Return a label for each of n images, int64 (n,): the given classes in turn, or all of them.

    None where the network knows no classes. Raise UserError for a class that it does not know.
    """
    wanted = class_indices(labels, data.classes) or range(len(data.classes))
    if not data.classes:
        return None
    return torch.tensor([wanted[i % len(wanted)] for i in range(n)])
