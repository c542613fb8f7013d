"""Score the samples of a network, or any images, against real images."""

import copy
import logging
import shlex
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.checkpoint import Checkpoint, average_note, load
from ..checkpoint.header import FOREIGN, PRETRAINED
from ..checkpoint.run_dir import inspect_run
from ..config import NAMED_SETS, SampleConfig
from ..data.dataset import ImageDataset
from ..data.load import load_images
from ..generation.generate import (
    check_memory,
    check_settings,
    guide_of,
    with_precision,
)
from ..generation.output import Samples
from ..generation.settings import own_settings
from ..utils.device import resolve_device, to_device
from ..utils.distributed import SINGLE_PROCESS, Processes
from ..utils.errors import UserError
from ..utils.files import require_writable
from ..utils.images import flatten_alpha
from .classifiers import DigitNet
from .features import FeatureStats, Progress, extract, feature_file
from .likelihood import held_out_likelihood
from .memorization import measure_memorization, nearest_seconds, search_device
from .metrics import (
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
    precision_recall_seconds,
)
from .reference import (
    Reference,
    check_shape,
    extraction_seconds,
    floor,
    load_reference,
    make_protocol,
    note_other_classes,
    reference_stats,
)
from .report import Protocol, Report, check_comparable, read_report
from .sampling import make_samples, sampling_protocol

N = 10_000  # samples of a network, if not said otherwise

logger = logging.getLogger(__name__)


def evaluate(
    what: Checkpoint | Samples | ImageDataset | np.ndarray | Tensor | str | Path = "mnist",
    *,
    data: Reference | ImageDataset | np.ndarray | Tensor | str | Path | None = None,
    root: str | Path | None = None,
    split: str | None = None,
    held_out: ImageDataset | np.ndarray | Tensor | str | Path | None = None,
    size: tuple[int, ...] = (),
    features: str | None = None,
    n: int | None = None,
    seed: int = 0,
    settings: SampleConfig | None = None,
    guide: Checkpoint | str | Path | None = None,
    likelihood: int | None = None,
    memorization: bool | str | Path | None = None,
    against: Report | str | Path | None = None,
    device: torch.device | str | None = None,
    batch: int = 64,
    processes: Processes = SINGLE_PROCESS,
    progress: Progress | None = None,
) -> Report:
    """Return how near samples are to real images, beside how near other real images are.

    what          a network: a Checkpoint, a run's folder, a .safetensors file, the name of bundled
                  weights; or images: an npz, a zip, a folder, Samples, an array of uint8
    data          the real images: a Reference, or what `load_reference` takes with `root`, `split`,
                  `held_out`, `size` and `features`. By default those that a run, or a bundled
                  network, was trained on; for digits of 28x28, mnist
    n, seed, settings, guide, batch  make n images (10,000) with the network, as `generate` does
    likelihood    also bound the bits/dim of so many held-out images, in T evaluations each
    memorization  also compare samples with the training images; a path, x.png: draw the nearest
    against       another score: raise UserError, before the work, where it cannot be compared
    processes     share the work; each of them returns the report
    progress      called with a stage's name, how much of it is done and how much there is

    Raise UserError for what cannot be scored, wherever possible before the work.
    """
    against = read_report(against) if isinstance(against, str | Path) else against
    device = resolve_device(device)
    picture = picture_path(memorization)
    with processes.main_process_first():  # it decodes the images, the others find them cached
        subject = load_subject(what)
        weaker = None
        if isinstance(subject, Checkpoint):
            settings, weaker = sampling_of(subject, settings, guide, n or N, batch, device)
        reference = reference_for(
            subject, data, root=root, split=split, held_out=held_out, size=size, features=features,
            device=device,
        )  # fmt: skip
    if isinstance(subject, Checkpoint):
        n = N if n is None else n
        settings = with_precision(settings or subject.config.sample, device)
        check_network(subject, reference, settings, weaker, likelihood)
        how = sampling_protocol(subject, n, seed, settings, weaker, reference)
    else:
        check_images(subject, reference, n=n, settings=settings, guide=guide, likelihood=likelihood)
        n, how = len(subject), {"file": subject.source, "fingerprint": subject.fingerprint[:16]}
    protocol = make_protocol(reference, n, how)
    if against is not None:
        check_comparable(protocol, against.protocol)
    log_notes(subject, reference, protocol, likelihood, bool(memorization), batch, processes)
    real = reference_stats(reference, processes, progress)  # what can fail in it does so at once
    if isinstance(subject, Checkpoint):
        samples = make_samples(
            subject, n, seed, settings, weaker, reference, device, batch, processes, progress
        )
    else:
        samples = Samples(subject.images, subject.labels, subject.classes)
    samples = without_alpha(samples, subject)
    report = score(samples, reference, real, protocol, processes, progress)
    if isinstance(subject, Checkpoint) and likelihood:
        bound = held_out_likelihood(
            subject, reference, likelihood, settings, seed, device, batch, processes, progress
        )
        report = replace(report, likelihood=bound)
    if memorization:
        flip = isinstance(subject, Checkpoint) and subject.config.flip
        share, nearest = measure_memorization(samples.images, reference, flip, picture, processes)
        report = replace(report, memorization=share, nearest=nearest)
    return report


# ---- what is scored, against what ------------------------------------------------------------


def is_network(what: object) -> bool:
    """Return whether this names a network that makes images, and not images."""
    if not isinstance(what, str | Path):
        return isinstance(what, Checkpoint)
    path = Path(what)
    weights = (".safetensors", *FOREIGN)
    if what in PRETRAINED or path.suffix.lower() in weights or not path.exists():
        return True
    contents = inspect_run(path)
    return contents.is_run or contents.model is not None or (path / "model_index.json").is_file()


def load_subject(
    what: Checkpoint | Samples | ImageDataset | np.ndarray | Tensor | str | Path,
) -> Checkpoint | ImageDataset:
    """Return the network, or the images as they are. Raise UserError where there is neither."""
    if isinstance(what, Checkpoint | ImageDataset):
        return what
    if isinstance(what, Samples):
        classes = () if what.labels is None else what.classes
        return ImageDataset.from_array(what.images, what.labels, classes, "samples")
    if isinstance(what, np.ndarray | Tensor):
        return ImageDataset.from_array(what)
    if is_network(what):
        return load(what)
    images = load_images(Path(what).resolve(), keep_size=True)  # not the named set of that name
    for note in images.notes:
        logger.info("%s: %s", images.source, note)
    return images


def sampling_of(
    network: Checkpoint,
    settings: SampleConfig | None,
    guide: Checkpoint | str | Path | None,
    n: int,
    batch: int,
    device: torch.device | str,
) -> tuple[SampleConfig, Checkpoint | None]:
    """Return how a network is sampled, and what guides it. Raise UserError where memory has no room
    for its images, before others are read at their size."""
    settings = settings or own_settings(network.config.sample)
    guide = guide_of(network, settings, guide)
    check_memory(network, n, min(n, batch), settings, network.conditional, guide, device=device)
    return settings, guide


def reference_for(
    subject: Checkpoint | ImageDataset,
    data: Reference | ImageDataset | np.ndarray | Tensor | str | Path | None,
    *,
    root: str | Path | None,
    size: tuple[int, ...],
    **options: Any,
) -> Reference:
    """Return the real images that were asked for, or those that suit what is scored."""
    if isinstance(data, Reference):
        given = {"root": root, "size": size or None, **options, "device": None}
        if named := [name for name, value in given.items() if value is not None]:
            raise UserError(f"{named[0]} is a Reference's own: give it to load_reference")
        return data
    if isinstance(subject, Checkpoint):
        config, info = subject.config, subject.data
        if data is None and not info.fingerprint:
            raise UserError(
                "this network does not say what it was trained on: name real images with --data"
            )
        if data is None and not subject.trusted:
            raise UserError(
                f"this checkpoint names {config.data} as what it was trained on, which is not "
                f"opened unasked: to compare with it, say --data {shell_quoted(config.data)}"
            )
        own = data is None and config.data not in NAMED_SETS and not size
        data = config.data if data is None else data
        if config.size and not isinstance(data, ImageDataset | np.ndarray | Tensor):
            size = size or (info.height, info.width)
        root = root or (config.root if subject.trusted else "data")
        channels = 3 if info.channels == 4 else config.channels  # scores are of what is seen
        reference = load_reference(
            data, root=root, size=size, channels=channels, background=config.background,
            classes_from=config.classes_from, **options,
        )  # fmt: skip
        if options["features"] is None:
            note_other_classes(reference)
        alike = reference.training.info.channels == info.channels
        if own and alike and reference.training.fingerprint != info.fingerprint:
            logger.info(f"{data} holds other images now than those that this network learned")
        return reference
    if data is None and tuple(subject.images.shape[1:]) != DigitNet.SHAPE:
        raise UserError(
            f"which real images are those of {subject.source} to be compared with? Name them "
            f"with --data"
        )
    data = "mnist" if data is None else data
    return load_reference(data, root=root or "data", size=size, **options)


def check_network(
    network: Checkpoint,
    reference: Reference,
    settings: SampleConfig,
    guide: Checkpoint | None,
    likelihood: int | None,
) -> None:
    """Raise UserError where what the network makes cannot be scored, or its likelihood bounded."""
    data, unseen = network.data, reference.unseen
    shape = data.shape
    check_settings(settings, network, guide)
    check_shape(reference, shape_without_alpha(shape), "this network's")
    if not likelihood:
        return
    if unseen is None:
        raise UserError("bits/dim are of images that were held out: name them with --held-out")
    if tuple(unseen.images.shape[1:]) != shape:
        raise UserError(f"the held-out images are not of the network's shape, {shape}")
    if data.classes and unseen.classes != data.classes:
        raise UserError("the held-out images have other classes than the network was trained with")


def check_images(images: ImageDataset, reference: Reference, **options: object) -> None:
    """Raise UserError for images that cannot be scored, and for options of networks."""
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{name} is for a network, and {images.source} is images")
    check_shape(reference, shape_without_alpha(tuple(images.images.shape[1:])), "the samples'")


def shell_quoted(word: str) -> str:
    """Return the word as it is typed in the shell of this system."""
    return subprocess.list2cmdline([word]) if sys.platform == "win32" else shlex.quote(word)


def without_alpha(samples: Samples, subject: Checkpoint | ImageDataset) -> Samples:
    """Return the samples over the network's background, or white, if they are transparent."""
    background = subject.config.background if isinstance(subject, Checkpoint) else "white"
    return replace(samples, images=flatten_alpha(samples.images, background))


def shape_without_alpha(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape (C, H, W) in which images are scored: over a background if transparent."""
    return (3, *shape[1:]) if shape[0] == 4 else shape


def picture_path(memorization: bool | str | Path | None) -> Path | None:
    """Return where the picture of the nearest goes, if anywhere. Raise UserError where it could not
    be written."""
    if not isinstance(memorization, str | Path):
        return None
    path = Path(memorization)
    if path.suffix.lower() != ".png":
        raise UserError(f"--memorization {path}: end it in .png")
    require_writable(path.parent)
    return path


# ---- the work --------------------------------------------------------------------------------


def score(
    samples: Samples,
    reference: Reference,
    real: FeatureStats,
    protocol: Protocol,
    processes: Processes = SINGLE_PROCESS,
    progress: Progress | None = None,
) -> Report:
    """Return the distance of samples, and of other real images, from the reference, whose features
    are `real`."""
    extractor = reference.extractor
    with feature_file() if extractor.is_inception else nullcontext() as file:
        found = extract(
            extractor, samples.images, "samples", file=file, logits=True, processes=processes,
            progress=progress,
        )  # fmt: skip
    n, d = protocol.n, len(found.moments.sum)
    if n <= d:
        logger.info(
            f"{n:,} samples are few for {d:,} features, so the distance is mostly an error of "
            f"estimation: compare it with the floor alone"
        )
    distance = frechet_distance(found.moments.gaussian(), real.moments.gaussian())
    accuracy = class_accuracy(samples, extractor.classes, found.logits)
    of_real, floor_n = floor(reference, n, real, processes, progress)
    report = Report(distance, of_real, floor_n, accuracy, protocol)
    if found.features is None or real.features is None or found.logits is None:
        return report
    kid, kid_95 = kernel_distance(found.features, real.features)
    precision, recall = precision_recall(found.features, real.features)
    return replace(
        report, kid=kid, kid_95=kid_95, inception_score=inception_score(found.logits),
        precision=precision, recall=recall,
    )  # fmt: skip


def class_accuracy(samples: Samples, known: tuple[str, ...], logits: Tensor | None) -> float | None:
    """Return the share of samples whose label is the class with the highest of logits (N, K); None
    where the samples have no labels, or other classes than the `known`."""
    if samples.labels is None or logits is None or not set(samples.classes) <= set(known):
        return None
    index = torch.tensor([known.index(name) for name in samples.classes])
    asked = samples.labels < len(index)  # others have no class
    right = logits.argmax(1)[asked] == index[samples.labels[asked]]
    return right.float().mean().item() if len(right) else None


# ---- notes before the work -------------------------------------------------------------------


def log_notes(
    subject: Checkpoint | ImageDataset,
    reference: Reference,
    protocol: Protocol,
    likelihood: int | None,
    memorization: bool,
    batch: int,
    processes: Processes,
) -> None:
    """Log what a person should know beforehand, and the time that the work will take."""
    training, n, device = reference.training, protocol.n, reference.extractor.device
    seconds, flip = extraction_seconds(reference, n), False
    if isinstance(subject, Checkpoint):
        flip = subject.config.flip
        evaluations = n * protocol.sampling["nfe"] + (likelihood or 0) * subject.diffusion.T
        seconds += evaluations * seconds_per_evaluation(subject, device, min(batch, n))
        alike = training.info.channels == subject.data.channels
        if memorization and alike and training.fingerprint != subject.data.fingerprint:
            logger.info(
                f"the network was not trained on {training.source}, which the samples are compared "
                f"with for --memorization"
            )
        if note := average_note(subject.step, subject.config.train.ema):
            logger.info(note)
    if memorization:
        seconds += 2 * nearest_seconds(n, training.images, flip, search_device(device))
    seconds /= processes.world_size
    if reference.extractor.is_inception:
        seconds += precision_recall_seconds(n + len(reference.images), 2048)
    if seconds > 10:
        logger.info("this will take about %s", timedelta(seconds=round(seconds)))


@torch.inference_mode()
def seconds_per_evaluation(
    network: Checkpoint, device: torch.device | str = "cpu", batch: int = 64
) -> float:
    """Estimate the time that one image takes to pass through the network, by timing a batch."""
    net, data = to_device(copy.deepcopy(network.net), device), network.data
    x = torch.randn(batch, *data.shape, device=device)
    t = torch.ones(batch, dtype=torch.long, device=device)
    y = torch.zeros_like(t) if data.classes else None
    net(x, t, y).sum().item()
    start = time.perf_counter()
    net(x, t, y).sum().item()  # waits for the device
    return (time.perf_counter() - start) / batch
