"""A checkpoint's scores: its samples against real images, and its likelihood."""

import copy
import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint
from ..config import SampleConfig
from ..core.likelihood import variational_bound
from ..data.dataset import ImageDataset
from ..generation.generate import OnState, Samples, generate, network_evaluations
from ..utils.device import place
from ..utils.distributed import ALONE, Processes
from ..utils.errors import UserError
from ..utils.images import to_float
from ..utils.random import ImageNoise
from .reference import Reference
from .report import Likelihood, Report


def evaluate(
    checkpoint: Checkpoint,
    reference: Reference,
    n: int = 10_000,
    *,
    seed: int = 0,
    settings: SampleConfig | None = None,
    batch: int = 64,
    on_state: OnState | None = None,
) -> Report:
    """Make n images with a checkpoint, as `generate` does, and score them."""
    check_network(checkpoint, reference)
    samples = generate(
        checkpoint, n, seed=seed, settings=settings, device=reference.device, batch=batch,
        on_state=on_state, processes=reference.processes,
    )  # fmt: skip
    return score_samples(checkpoint, reference, samples, seed, settings)


def score_samples(
    checkpoint: Checkpoint,
    reference: Reference,
    samples: Samples,
    seed: int = 0,
    settings: SampleConfig | None = None,
) -> Report:
    """Report samples that `generate` made of a checkpoint with this seed and these settings."""
    settings = settings or checkpoint.config.sample
    return reference.score(samples, made_by(checkpoint, settings, seed))


def made_by(checkpoint: Checkpoint, settings: SampleConfig, seed: int) -> dict[str, Any]:
    """What a score says of how its samples were made."""
    nfe = network_evaluations(settings, checkpoint.diffusion, checkpoint.conditional)
    return {
        "network": weights_hash(checkpoint), "weights": checkpoint.weights,
        "images_seen": checkpoint.images_seen, **asdict(settings), "nfe": nfe, "seed": seed,
    }  # fmt: skip


def check_network(checkpoint: Checkpoint, reference: Reference) -> None:
    """Raises UserError where what the network makes could not be scored."""
    data = checkpoint.data
    reference.check((data.channels, data.height, data.width), "this network's")


def check_held_out(checkpoint: Checkpoint, images: ImageDataset) -> None:
    """Raises UserError for images whose likelihood the network cannot tell."""
    data = checkpoint.data
    shape = (data.channels, data.height, data.width)
    if tuple(images.images.shape[1:]) != shape:
        raise UserError(f"the held-out images are not of the network's shape, {shape}")
    if data.classes and images.classes != data.classes:
        raise UserError("the held-out images have other classes than the network was trained with")


def weights_hash(checkpoint: Checkpoint) -> str:
    """The first 16 digits of a SHA-256 of all weights, in order."""
    digest = hashlib.sha256()
    for tensor in checkpoint.net.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def likelihood(
    checkpoint: Checkpoint,
    images: ImageDataset,
    places: Tensor,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch: int = 64,
    on_batch: Callable[[int], object] | None = None,
    processes: Processes = ALONE,
) -> Likelihood:
    """Bits/dim of the images at places (N,), by the bound over all T steps, T evaluations each.

    Given their classes, where the network knows these. Raises UserError for images of another
    shape, or with other classes.
    """
    check_held_out(checkpoint, images)
    data, diffusion = checkpoint.data, checkpoint.diffusion.to(device)
    shape = (data.channels, data.height, data.width)
    net = place(copy.deepcopy(checkpoint.net), device)  # the caller's stays as it is
    variance = checkpoint.config.sample.variance

    def bits(index: Tensor) -> tuple[Tensor]:
        x0 = to_float(images.images[index]).to(device)
        y = images.labels[index].to(device) if data.classes and images.labels is not None else None
        noise = ImageNoise(seed, index.tolist(), shape, device)
        denoise, times = diffusion.denoiser(net, y), list(range(diffusion.T, -1, -1))
        bound = variational_bound(diffusion, denoise, x0, noise, times, variance)
        if on_batch:
            on_batch(len(index))
        return (bound.total.cpu(),)

    total = torch.cat([bound for (bound,) in processes.map_in_order(places.split(batch), bits)])
    error = total.std().item() / len(total) ** 0.5 if len(total) > 1 else None
    return Likelihood(total.mean().item(), error, len(total), variance)


@torch.inference_mode()
def seconds_an_evaluation(
    checkpoint: Checkpoint, device: torch.device | str = "cpu", batch: int = 64
) -> float:
    """How long one image takes to pass through the network once, in batches: one is timed."""
    net, data = place(copy.deepcopy(checkpoint.net), device), checkpoint.data
    x = torch.randn(batch, data.channels, data.height, data.width, device=device)
    t, y = torch.ones(batch, dtype=torch.long, device=device), None
    if data.classes:
        y = torch.zeros_like(t)
    net(x, t, y).sum().item()
    start = time.perf_counter()
    net(x, t, y).sum().item()  # which waits for the device
    return (time.perf_counter() - start) / batch
