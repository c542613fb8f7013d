"""What a person looks at while a run trains: grids of samples, and the loss on held-out images."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from PIL.Image import Image
from torch import nn

from ..checkpoint.run_dir import RunDir
from ..config import Config, DataInfo, SampleConfig
from ..core.diffusion import Diffusion
from ..data.dataset import ImageDataset
from ..generation.generate import cycle_labels, denoise_trajectory, network_evaluations
from ..utils.files import atomic_write, last_step, make_folder
from ..utils.images import grid, to_uint8, zoom_for
from ..utils.random import ImageNoise
from .state import TrainState
from .validation import BANDS, Validation

MAX_SAMPLES, COLUMNS = 40, 8  # of a grid, where classes do not ask for others
MAX_CLASSES = 12  # that have columns of their own
PREVIEW_STEPS = 50


def preview(
    run: RunDir,
    state: TrainState,
    diffusion: Diffusion,
    validation: Validation,
    stop: Sequence[int] = (),
    show: Callable[[str], None] = lambda text: None,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """Write grids of samples of the averaged and of the raw weights, and a line of held-out.jsonl.

    Ends early once `stop` is not empty. `show` is told what is being done, and `after` of which
    step all has been written.
    """
    for name, net in (("ema", state.ema.model), ("raw", state.net)):
        about = f"drawing samples of the {'averaged' if name == 'ema' else 'raw'} weights, "
        image = sample_grid(net, diffusion, state.config, state.data, stop, show, about)
        if image is None:
            return
        run.require_held()
        make_folder(run.samples)
        with atomic_write(run.samples / f"{state.step:07}-{name}.png") as beside:
            image.save(beside)
    show("measuring the loss on held-out images")
    validation.measure(state)
    after(state.step)


def preview_passes(config: Config, data: ImageDataset, validation: Validation) -> int:
    """Return how often an image passes through a network in a preview."""
    diffusion, classes = validation.loss.diffusion, bool(data.classes)
    nfe = network_evaluations(preview_settings(config), diffusion, classes)
    held_out = len(validation.sets["held out"][0])
    return 2 * grid_size(data.info)[0] * nfe + 2 * held_out * len(BANDS)


def grid_size(info: DataInfo) -> tuple[int, int]:
    """Return how many samples a grid has, and in how many columns: full rows, and in each column
    one class, unless there are many."""
    classes = len(info.classes) if len(info.classes) <= MAX_CLASSES else 1
    columns = max(1, classes) * max(1, COLUMNS // max(1, classes))
    return MAX_SAMPLES // columns * columns, columns


def preview_settings(config: Config) -> SampleConfig:
    """Return how a preview samples: as the config says, but where that takes more than
    PREVIEW_STEPS by DDIM in so many. It is for a look, not a score."""
    settings = config.sample
    if settings.steps > PREVIEW_STEPS:
        settings = replace(settings, sampler="ddim", eta=0.0, steps=PREVIEW_STEPS)
    return settings


def was_previewed(run: RunDir, step: int, held_out: bool) -> bool:
    """Return whether all is there that a `preview` of this step writes; `held_out`: the losses too.
    A run may be killed before its last one has come to its end."""
    grids = all((run.samples / f"{step:07}-{name}.png").is_file() for name in ("ema", "raw"))
    return grids and (not held_out or last_step(run.held_out) == step)


def sample_grid(
    net: nn.Module,
    diffusion: Diffusion,
    config: Config,
    info: DataInfo,
    stop: Sequence[int] = (),
    show: Callable[[str], None] = lambda text: None,
    about: str = "",
) -> Image | None:
    """Return a grid of samples, of the same seeds and labels each time; None once told to stop.
    `show` is told what this is `about`, and how far it has come."""
    settings = preview_settings(config)
    device = diffusion.device
    n, columns = grid_size(info)
    y = cycle_labels(n, (), info)
    y = None if y is None else y.to(device)
    training, made = net.training, []
    net.eval()
    for index in torch.arange(n).split(config.train.batch // config.train.accumulate):
        noise = ImageNoise(config.seed, index.tolist(), info.shape, device)
        own = None if y is None else y[index]
        states = denoise_trajectory(net, diffusion, noise, own, settings, null=len(info.classes))
        for i, state in enumerate(states):
            x = state.x
            show(f"{about}step {i} of {settings.steps}")
            if stop:
                break
        made.append(to_uint8(x).cpu())
    net.train(training)
    if stop:
        return None
    images = torch.cat(made)
    return grid(images, columns, zoom=zoom_for(images))
