"""The samples that are scored, and what a score says of how they were made."""

from dataclasses import asdict
from itertools import pairwise
from typing import Any

import torch

from ..checkpoint.checkpoint import Checkpoint
from ..config import SampleConfig
from ..core.sampling import State
from ..data.dataset import ImageDataset
from ..generation.generate import generate, network_evaluations
from ..generation.output import Samples
from ..utils.distributed import Processes
from .features import Progress
from .reference import Reference

UNEVEN = 1.5  # times as many images as in the rarest class; below that, all classes take turns


def labels_as_in(data: ImageDataset, classes: tuple[str, ...], n: int) -> list[str]:
    """Return the names of the classes of n samples, as frequent as in the images that a network
    learned, each spread over all n. Empty where these have other classes, or all about as
    frequent: the samples then have each class in turn."""
    if data.labels is None or not classes or data.classes != classes:
        return []
    counts = torch.bincount(data.labels, minlength=len(classes))[: len(classes)].tolist()
    if max(counts) <= UNEVEN * min(counts):
        return []
    ends = [round(n * sum(counts[:i]) / sum(counts)) for i in range(len(classes) + 1)]
    wanted = [b - a for a, b in pairwise(ends)]
    places = [((i + 0.5) / m, k) for k, m in enumerate(wanted) for i in range(m)]
    return [classes[k] for _, k in sorted(places)]


def sampling_protocol(
    network: Checkpoint,
    n: int,
    seed: int,
    settings: SampleConfig,
    guide: Checkpoint | None,
    reference: Reference,
) -> dict[str, Any]:
    """Return what a score says of how n samples, with classes as in the reference, were made."""
    nfe = network_evaluations(
        settings, network.diffusion, network.conditional, guide=guide is not None
    )
    how = {
        "network": network.weights_hash(), "weights": network.weights,
        "images_seen": network.images_seen, **asdict(settings), "nfe": nfe, "seed": seed,
    }  # fmt: skip
    asked = settings.guidance != 0 or guide is not None
    if asked and labels_as_in(reference.training, network.data.classes, n):
        how["classes"] = "as frequent as in the data"
    return how if guide is None else how | {"guide": guide.weights_hash()}


def make_samples(
    network: Checkpoint,
    n: int,
    seed: int,
    settings: SampleConfig | None,
    guide: Checkpoint | None,
    reference: Reference,
    device: torch.device | str,
    batch: int,
    processes: Processes,
    progress: Progress | None,
) -> Samples:
    """Return n images, with classes as in the reference, as `generate` makes them."""
    labels = labels_as_in(reference.training, network.data.classes, n)
    steps = (settings or network.config.sample).steps
    total, done = steps * -(-n // (batch * processes.world_size)), 0

    def on_state(state: State) -> None:
        nonlocal done
        done += state.x0 is not None  # not the noise, from which no step has been taken
        if progress:
            progress("sampling steps", done, total)

    return generate(
        network, n, seed=seed, labels=labels, settings=settings, device=device, batch=batch,
        guide=guide, on_state=on_state, processes=processes,
    )  # fmt: skip
