"""Which preset suits images that nobody has named one for."""

from dataclasses import replace

import torch

from ..config import Config, preset
from ..data.dataset import ImageDataset
from ..data.inspect import MIRROR_ALIKE, mirror_accuracy
from ..utils.errors import counted

FEW = 2000  # images, of which a network of these sizes soon knows each
FEW_DROPOUT = 0.1
FEW_BATCH, FEW_LR = 16, 2e-3  # by Muon, on a CPU: where runs are short, steps are what they lack
FEW_SIGMA = 0.2  # below it, little noise is what short runs have not learned to take away
MIN_TO_FLIP = 500  # images that tell whether mirroring changes them


def choose_preset(data: ImageDataset, device: str) -> tuple[str, Config, str]:
    """Return the name of the preset for these images on this device, its settings with what few
    images need, and a sentence on both.

    Large networks are for GPUs. Few images have dropout, a shorter warm-up and, on a CPU, small
    batches, Muon and a last step from some noise, as their runs are short, and are mirrored where a
    classifier cannot tell them from their mirror images.
    """
    n, channels, height, width = data.images.shape
    side, large = max(height, width), torch.device(device).type in ("cuda", "xpu")
    if not large and channels == 1 and side <= 32:
        name = "small-28"
    else:
        name = f"{'large' if large else 'small'}-{32 if side <= 48 else 64}"
    config, more = preset(name), ""
    if n < FEW:
        dropout = max(FEW_DROPOUT, config.unet.dropout)
        unet, sample = replace(config.unet, dropout=dropout), config.sample
        train = replace(config.train, warmup=min(100, config.train.warmup))
        flip = n >= MIN_TO_FLIP and mirror_accuracy(data.images) < MIRROR_ALIKE
        what = [f"dropout {dropout:g}"] + ["mirror images"] * flip
        if not large:
            train = replace(train, batch=FEW_BATCH, lr=FEW_LR, optimizer="muon")
            sample = replace(
                sample, sampler="dpm++sde", steps=12, spacing="rho", sigma_min=FEW_SIGMA
            )
            what = [f"batches of {FEW_BATCH}", "Muon", *what]
        config = replace(config, unet=unet, train=train, sample=sample, flip=flip)
        more = f"; as they are few, with {', '.join(what)}"
    return (
        name,
        config,
        f"the preset {name} was chosen for {counted(n, 'image')} of {width}x{height} in "
        f"{counted(channels, 'channel')} on {device}{more}; {config.minutes:g} minutes, unless "
        f"another budget is given",
    )
