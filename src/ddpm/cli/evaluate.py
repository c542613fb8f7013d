"""`ddpm evaluate`: what is scored, against what, and what is said of it."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from ..config import Count, option
from ..utils.errors import UserError
from .common import (
    Overwrite,
    SamplingOptions,
    Size,
    check_file,
    device_for,
    note_of_average,
    sampling_setup,
    steps_bar,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..data.dataset import ImageDataset
    from ..evaluation.reference import Reference
    from ..evaluation.report import Report
    from ..generation.generate import Samples
    from ..utils.distributed import Processes


@dataclass(frozen=True)
class EvaluateOptions(SamplingOptions):
    """Report images: the Fréchet distance between their features and those of real images.

    Digits are seen by a classifier of digits that comes with the package, all else by the Inception
    network of the published scores, with which the distance is the FID; KID, Inception score,
    precision and recall then stand beside it. Every score says how it was made, and has its floor:
    the distance of as many other real images. A distance falls with the number of images: compare
    only those of the same number.
    """

    what: Annotated[Positional[str], option("[WHAT]")] = "mnist"
    """A run's folder, a .safetensors file or the name of weights that come with the package (mnist,
    the default); or images: an npz, a zip or a folder."""
    n: Annotated[Count | None, option("N", "-n")] = None
    """How many images to make: 10,000 if not said."""
    data: Annotated[str | None, option("DATA")] = None
    """The real images, as in training, never mirrored. By default those the network was trained on;
    for a file of 28x28 digits, mnist."""
    root: Annotated[str | None, option("FOLDER")] = None
    """Where the named sets lie, or are downloaded to: by default as in training, or data."""
    split: Annotated[Literal["train", "test"] | None, option()] = None
    """Of a named set: which part to hold the images against, train if not said. The other part
    makes the floor."""
    held_out: Annotated[str | None, option("DATA")] = None
    """Other real images, to make the floor (of a named set its test split): by default the other
    part of a named set, and where there is none some of the real images against the rest."""
    size: Size = ()
    """Crop and resize the real images to this; by default as in training, or not at all."""
    features: Annotated[str | None, option("FEATURES", "-f")] = None
    """inception, digit-net or cifar-net; or a file: a copy of the Inception network (.pth), a
    classifier of ours (.safetensors), or TorchScript from uint8 (B, 3, H, W) to features (B, D)."""
    likelihood: Annotated[Count | None, option("N")] = None
    """Bound the bits/dim of so many held-out images too, with as many network evaluations each as
    the network was trained with: 1,000, as a rule."""
    memorization: Annotated[str | None, option("PATH")] = None
    """A .png for the samples that are nearest to training images, beside these; and how near they
    are, beside how near other real images are."""
    against: Annotated[str | None, option("PATH")] = None
    """The .json of another score, made in the same way: how do they compare?"""
    out: Annotated[str | None, option("PATH", "-o")] = None
    """A .json file for the score and its protocol."""
    overwrite: Overwrite = False


def evaluate(options: EvaluateOptions) -> int:
    from ..evaluation.report import ratio, read_report

    what = options.what
    for name, ending in (("out", ".json"), ("memorization", ".png")):
        if path := getattr(options, name):
            if Path(path).suffix.lower() != ending:
                raise UserError(f"--{name} {path}: end it in {ending}")
            check_file(Path(path), options.overwrite)
    other = read_report(Path(options.against)) if options.against else None
    make = score_images if holds_images(what) else score_network
    report = make(what, options, other)
    if report is None:  # the main process has it
        return 0
    print(report.text())
    if options.out:
        report.save(Path(options.out))
    if other:
        print(f"{'against':19}{ratio(report, other):.3f} times the distance in {options.against}")
    return 0


def holds_images(what: str) -> bool:
    """Whether this is images, and not a network that makes them."""
    from ..checkpoint.checkpoint import PRETRAINED

    path = Path(what)
    if what in PRETRAINED or path.suffix.lower() == ".safetensors":
        return False
    run = any((path / name).exists() for name in ("model.safetensors", "config.toml"))
    return path.exists() and not run


def score_images(what: str, options: EvaluateOptions, other: "Report | None") -> "Report | None":
    """Report the images of a file or folder, which `other` is to be compared with. Of several
    processes the main one has the score."""
    from ..data.load import load_images
    from ..evaluation.digit_net import SHAPE
    from ..evaluation.report import check_alike
    from ..generation.generate import Samples
    from ..utils.distributed import join_processes

    made = ("n", "steps", "sampler", "spacing", "eta", "guidance", "likelihood")
    if given := [f"--{name}" for name in made if getattr(options, name) is not None]:
        raise UserError(f"{given[0]} is for a network, and {what} is images")
    device = device_for(options.device)
    processes = join_processes(device)
    with processes.main_process_first():
        path = Path(what).resolve()  # the path, whatever named sets there are
        images = load_images(path, keep_size=True)
    tell_notes(images, processes)
    data = options.data or ("mnist" if tuple(images.images.shape[1:]) == SHAPE else None)
    if data is None:
        raise UserError(f"which real images is {what} to be held against? Name them with --data")
    samples = Samples(images.images, images.labels, images.classes)
    reference = load_reference(
        data, options, options.root or "data", options.size, device, processes
    )
    how = {"file": images.source, "fingerprint": images.fingerprint[:16]}
    protocol = reference.protocol(len(images), how)
    if other:
        check_alike(protocol, other.protocol)
    searching = seconds_of_memorization(len(images), reference, options, flip=False)
    tell(reference.seconds(len(images)) + searching, processes)
    report = reference.score(samples, how)
    processes.finish()
    return (
        with_memorization(report, samples, reference, options, flip=False)
        if processes.is_main
        else None
    )


def score_network(what: str, options: EvaluateOptions, other: "Report | None") -> "Report | None":
    """Make images and score them, to be compared with `other`. Of several processes the main one
    has the score."""
    from ..evaluation.evaluate import (
        check_held_out,
        check_network,
        likelihood,
        made_by,
        score_samples,
        seconds_an_evaluation,
    )
    from ..evaluation.report import check_alike
    from ..generation.generate import generate, network_evaluations
    from ..utils.distributed import join_processes

    checkpoint, settings, device = sampling_setup(what, options)
    config, seed, batch = checkpoint.config, options.seed, options.batch
    processes = join_processes(device)
    if not (options.data or checkpoint.data.fingerprint):
        raise UserError(f"{what} does not say what it was trained on: name images with --data")
    reference = load_reference(
        options.data or config.data, options, options.root or config.root,
        options.size or config.size, device, processes,
    )  # fmt: skip
    check_network(checkpoint, reference)
    if options.likelihood and reference.unseen is not None:
        check_held_out(checkpoint, reference.unseen)
    if (
        options.memorization
        and reference.training.fingerprint != checkpoint.data.fingerprint
        and processes.is_main
    ):
        print(
            f"note: {what} was not trained on these very images, {reference.training.source}: "
            f"copies are looked for in these",
            file=sys.stderr,
        )
    n = options.n or 10_000
    protocol = reference.protocol(n, made_by(checkpoint, settings, seed))
    if other:
        check_alike(protocol, other.protocol)
    evaluations = n * network_evaluations(settings, checkpoint.diffusion, checkpoint.conditional)
    evaluations += (options.likelihood or 0) * checkpoint.diffusion.T
    each = seconds_an_evaluation(checkpoint, device, batch) / processes.world_size
    searching = seconds_of_memorization(n, reference, options, config.flip)
    tell(reference.seconds(n) + evaluations * each + searching, processes)
    note_of_average(checkpoint)
    with steps_bar(n, batch, settings.steps, processes) as bar:
        samples = generate(
            checkpoint, n, seed=seed, settings=settings, device=device, batch=batch,
            on_state=lambda state: bar.update(state.x0 is not None), processes=processes,
        )  # fmt: skip
    report = score_samples(checkpoint, reference, samples, seed, settings)
    if options.likelihood:
        assert reference.unseen is not None
        places = reference.places(reference.unseen, options.likelihood)
        with images_bar(len(places), processes) as bar:
            bound = likelihood(
                checkpoint, reference.unseen, places, seed=seed, device=device,
                batch=batch, on_batch=bar.update, processes=processes,
            )  # fmt: skip
        report = replace(report, likelihood=bound)
    processes.finish()
    return (
        with_memorization(report, samples, reference, options, config.flip)
        if processes.is_main
        else None
    )


def images_bar(n: int, processes: "Processes") -> "tqdm":
    from tqdm import tqdm

    hidden = None if processes.is_main else True  # None: where there is no terminal
    return tqdm(
        total=n // processes.world_size, desc="bits/dim", disable=hidden, leave=False, unit="img"
    )


def load_reference(
    data: str,
    options: EvaluateOptions,
    root: str,
    size: tuple[int, ...],
    device: str,
    processes: "Processes",
) -> "Reference":
    from ..data.sources import HUB_PREFIX, SETS_WITH_TEST
    from ..evaluation.reference import Reference

    if options.split and data not in SETS_WITH_TEST and not data.startswith(HUB_PREFIX):
        raise UserError(f"--split is for named sets, and {data} is not one: leave it out")
    with processes.main_process_first():  # who decodes the images for all
        reference = Reference(
            data, root=root, split=options.split or "train", held_out=options.held_out, size=size,
            features=options.features, device=device, processes=processes,
        )  # fmt: skip
    tell_notes(reference.real, processes)
    if reference.held_out is not None:
        tell_notes(reference.held_out, processes)
    if options.likelihood and reference.unseen is None:
        raise UserError("bits/dim are of images that were held out: name them with --held-out")
    return reference


def tell_notes(images: "ImageDataset", processes: "Processes") -> None:
    """What a person should know of how they were read."""
    for note in images.notes if processes.is_main else ():
        print(f"note: {images.source}: {note}", file=sys.stderr)


def tell(seconds: float, processes: "Processes") -> None:
    """Say how long it will take, where that is long."""
    from ..training.log import format_duration

    if seconds > 10 and processes.is_main:
        print(f"this will take about {format_duration(seconds)}", file=sys.stderr, flush=True)


def seconds_of_memorization(
    n: int, reference: "Reference", options: EvaluateOptions, flip: bool
) -> float:
    """How long it will take to look for copies of n samples, and of as many real images."""
    from ..evaluation.memorization import seconds

    return (
        2 * seconds(n, reference.training.images, flip, reference.device)
        if options.memorization
        else 0.0
    )


def with_memorization(
    report: "Report",
    samples: "Samples",
    reference: "Reference",
    options: EvaluateOptions,
    flip: bool,
) -> "Report":
    """The score and, where it is asked for, how near the samples are to the training images."""
    if options.memorization is None:
        return report
    from ..evaluation.memorization import alike, memorized_share, nearest, nearest_report, pairs
    from ..utils.files import atomic_write

    others = reference.training if reference.unseen is None else reference.unseen
    places = reference.places(others, len(samples.images))
    images, training, real_ones = alike(
        samples.images, reference.training.images, others.images[places]
    )
    made = nearest(images, training, flip=flip, device=reference.device)
    itself = places if others is reference.training else None
    real = nearest(real_ones, training, flip=flip, itself=itself, device=reference.device)
    with atomic_write(Path(options.memorization)) as beside:
        pairs(images, training, made).save(beside, "png")
    print(f"{nearest_report(made, real)}\nthe nearest are in {options.memorization}")
    return replace(report, memorization=memorized_share(made, real))
