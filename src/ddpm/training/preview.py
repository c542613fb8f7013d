"""What a person looks at while a run trains: grids of samples, and the loss on held-out images."""

from collections.abc import Sequence
from dataclasses import replace

from PIL.Image import Image
from torch import nn

from ..checkpoint.run_dir import RunDir
from ..config import Config, DataInfo
from ..core.diffusion import Diffusion
from ..generation.generate import cycle_labels, denoise_trajectory
from ..utils.files import atomic_write, make_folder
from ..utils.images import grid, to_uint8, zoom_for
from ..utils.random import ImageNoise
from .state import TrainState
from .validation import Validation

SAMPLES = 40  # in a grid: four of each class, where there are ten
PREVIEW_STEPS = 50


def preview(
    run: RunDir,
    state: TrainState,
    diffusion: Diffusion,
    validation: Validation,
    stop: Sequence[int] = (),
) -> None:
    """Write grids of samples of the averaged and of the raw weights, and a line of held-out.jsonl.

    Ends early once `stop` is not empty.
    """
    for name, net in (("ema", state.ema.model), ("raw", state.net)):
        image = sample_grid(net, diffusion, state.config, state.data, stop)
        if image is None:
            return
        run.require_held()
        make_folder(run.samples)
        with atomic_write(run.samples / f"{state.step:07}-{name}.png") as beside:
            image.save(beside)
    validation.measure(state)


def sample_grid(
    net: nn.Module, diffusion: Diffusion, config: Config, info: DataInfo, stop: Sequence[int] = ()
) -> Image | None:
    """Return a grid of samples, of the same seeds and labels each time; None once told to stop.

    For a look, not a score: where the config samples in more than PREVIEW_STEPS steps, this takes
    DDIM in PREVIEW_STEPS.
    """
    settings = config.sample
    if settings.steps > PREVIEW_STEPS:
        settings = replace(settings, sampler="ddim", eta=0.0, steps=PREVIEW_STEPS)
    device = diffusion.schedule.alpha_bar.device
    y = cycle_labels(SAMPLES, (), info)
    y = None if y is None else y.to(device)
    shape = (info.channels, info.height, info.width)
    noise = ImageNoise(config.seed, range(SAMPLES), shape, device)
    training = net.training
    net.eval()
    for step in denoise_trajectory(net, diffusion, noise, y, settings, null=len(info.classes)):
        x = step.x
        if stop:
            break
    net.train(training)
    if stop:
        return None
    images = to_uint8(x).cpu()
    columns = len(info.classes) if 1 < len(info.classes) <= 12 else 8
    return grid(images, columns, zoom=zoom_for(images))
