"""The likelihood of held-out images under a network."""

import copy

import torch
from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint
from ..config import SampleConfig
from ..core.likelihood import variational_bound
from ..utils.device import to_device
from ..utils.distributed import SINGLE_PROCESS, Processes
from ..utils.images import to_float
from ..utils.random import ImageNoise
from .features import Progress
from .reference import Reference, subset
from .report import Likelihood


def held_out_likelihood(
    network: Checkpoint,
    reference: Reference,
    n: int,
    settings: SampleConfig | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch: int = 64,
    processes: Processes = SINGLE_PROCESS,
    progress: Progress | None = None,
) -> Likelihood:
    """Bound the bits/dim of n held-out images over all T steps, given their classes where the
    network knows these, with the variance of the settings, by default the network's own."""
    images, data = reference.unseen, network.data
    assert images is not None
    n = min(n, len(images))
    diffusion = network.diffusion.to(device)
    variance = (settings or network.config.sample).variance
    net = to_device(copy.deepcopy(network.net), device)  # the caller's stays where it is
    shape = data.shape
    times = list(range(diffusion.T, -1, -1))
    parts, done = subset(images, n).split(batch), 0

    def bound(index: Tensor) -> tuple[Tensor]:
        nonlocal done
        x0 = to_float(images.images[index]).to(device)
        y = images.labels[index].to(device) if data.classes and images.labels is not None else None
        noise = ImageNoise(seed, index.tolist(), shape, device)
        denoise = diffusion.denoiser(net, y)
        bits = variational_bound(diffusion, denoise, x0, noise, times, variance).total
        done += len(index)
        if progress:
            progress("bits/dim", done, -(-n // processes.world_size))
        return (bits.cpu(),)

    total = torch.cat([bits for (bits,) in processes.map_in_order(parts, bound)])
    error = total.std().item() / len(total) ** 0.5 if len(total) > 1 else None
    used = "learned" if diffusion.learned_variance else variance
    return Likelihood(total.mean().item(), error, len(total), used)
