"""What a person looks at while a run trains: grids of samples, and the loss on held-out images."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from PIL.Image import Image
from torch import Tensor, nn

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
    n, columns = grid_size(info)
    y, batch = cycle_labels(n, (), info), config.train.batch // config.train.accumulate
    training = net.training
    net.eval()
    images = sample_images(
        net, diffusion, config.seed, info, n, y, preview_settings(config), batch, stop,
        lambda text: show(about + text),
    )  # fmt: skip
    net.train(training)
    return None if images is None else grid(images, columns, zoom=zoom_for(images))


def sample_images(
    net: nn.Module,
    diffusion: Diffusion,
    seed: int,
    info: DataInfo,
    n: int,
    y: Tensor | None,
    settings: SampleConfig,
    batch: int,
    stop: Sequence[int] = (),
    show: Callable[[str], None] = lambda text: None,
) -> Tensor | None:
    """Return n samples of the labels y, uint8 (n, C, H, W), of the same noise at each call; None
    once told to stop. `show` is told how far it has come."""
    made: list[Tensor] = []
    for index in torch.arange(n).split(batch):
        noise = ImageNoise(seed, index.tolist(), info.shape, diffusion.device)
        labels = None if y is None else y[index].to(diffusion.device)
        states = denoise_trajectory(net, diffusion, noise, labels, settings, len(info.classes))
        for i, state in enumerate(states):
            x = state.x
            show(f"{len(made) * batch} of {n} made, step {i} of {settings.steps} of the next")
            if stop:
                return None
        made.append(to_uint8(x).cpu())
    return torch.cat(made)
