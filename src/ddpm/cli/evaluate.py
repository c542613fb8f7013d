"""`ddpm evaluate`: what is scored, against what, and what is printed of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from ..checkpoint.header import PRETRAINED
from ..checkpoint.run_dir import find_checkpoint
from ..config import Count, SampleConfig, option
from ..data.names import require_data
from ..utils.errors import UserError
from .common import (
    Overwrite,
    SamplingOptions,
    Size,
    check_file,
    device_for,
    require_files,
    sampling_settings,
    say,
)

if TYPE_CHECKING:
    from ..checkpoint.checkpoint import Checkpoint
    from ..evaluation.features import Progress

FOR_NETWORKS = (*(field.name for field in fields(SampleConfig)), "guide", "n", "likelihood")


@dataclass(frozen=True)
class EvaluateOptions(SamplingOptions):
    """Score images: the Fréchet distance between their features and those of real images.

    The features of gray images of 28x28, whatever they show, are those of a bundled classifier of
    digits, and of all others those of the Inception network of published scores: the distance is
    then the FID, and KID, Inception score, precision and recall are given too. Every score has its
    protocol, how it was made, and its floor, the distance of as many other real images. A distance
    falls with the number of images: compare only distances of the same number.
    """

    what: Annotated[Positional[str], option("[WHAT]")] = "mnist"
    """A run's folder, a .safetensors file or the name of bundled weights (mnist, the default); or
    images: an npz, a zip or a folder."""
    n: Annotated[Count | None, option("N", "-n")] = None
    """How many images to make: by default 10,000."""
    data: Annotated[str | None, option("DATA")] = None
    """The real images, as in training, never mirrored. By default those a run of yours, or a
    bundled network, was trained on; for a file of 28x28 digits, mnist."""
    root: Annotated[str | None, option("FOLDER")] = None
    """Where the named sets lie, or are downloaded to: by default as in training, or data."""
    split: Annotated[Literal["train", "test"] | None, option()] = None
    """Part of a named set to compare with, by default train. The other part makes the floor. Of a
    set on the hub, the part."""
    held_out: Annotated[str | None, option("DATA")] = None
    """Other real images, for the floor; of a named set, its test split. By default the other part
    of a named set, or else some of the real images against the rest of them."""
    size: Size = ()
    """Crop and resize the real images to this; by default as in training, or not at all."""
    features: Annotated[str | None, option("FEATURES", "-f")] = None
    """inception, digit-net or cifar-net; or a file: a copy of the Inception network (.pth), a
    digit-net or cifar-net (.safetensors), or TorchScript from uint8 (B, 3, H, W) to (B, D)."""
    likelihood: Annotated[Count | None, option("N")] = None
    """Also bound the bits/dim of this many held-out images, in as many network evaluations each as
    the network has times (usually 1,000)."""
    memorization: Annotated[str | None, option("PATH")] = None
    """Also compare samples with training images: a .png for the samples that are nearest to one,
    and the distances beside those of other real images."""
    against: Annotated[str | None, option("PATH")] = None
    """The .json of another score of the same protocol, to compare with."""
    out: Annotated[str | None, option("PATH", "-o")] = None
    """A .json file for the score and its protocol."""
    overwrite: Overwrite = False


def evaluate(options: EvaluateOptions) -> int:
    if options.out and Path(options.out).suffix.lower() != ".json":
        raise UserError(f"--out {options.out}: end it in .json")
    for word, path in (("--out", options.out), ("--memorization", options.memorization)):
        if path:
            check_file(Path(path), options.overwrite, word)
    if options.what in PRETRAINED or not os.path.exists(options.what):
        find_checkpoint(options.what)
    for source in (options.data, options.held_out):
        if source is not None:
            require_data(source)
    require_files(options.against)

    from ..checkpoint.checkpoint import load
    from ..evaluation.evaluate import evaluate as score
    from ..evaluation.evaluate import is_network
    from ..evaluation.report import ratio, read_report
    from ..utils.distributed import join_processes

    against = read_report(options.against) if options.against else None
    what, settings = options.what, None
    subject: Checkpoint | Path = Path(what)
    if is_network(what):
        settings = sampling_settings(what, options)
        device = device_for(options.device)
        subject = load(what)
    else:
        device = device_for(options.device)
        for name in FOR_NETWORKS:
            if getattr(options, name) is not None:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is for a network, and {what} is images")
    processes = join_processes(device)
    with progress_bars(shown=processes.is_main) as progress:
        report = score(
            subject, data=options.data, root=options.root, split=options.split,
            held_out=options.held_out, size=options.size, features=options.features, n=options.n,
            seed=options.seed, settings=settings, guide=options.guide,
            likelihood=options.likelihood, memorization=options.memorization, against=against,
            device=device, batch=options.batch, processes=processes, progress=progress,
        )  # fmt: skip
    processes.finish()
    if not processes.is_main:
        return 0
    say(report)
    if options.memorization:
        say(f"the nearest are in {options.memorization}")
    if options.out:
        report.save(options.out)
    if against:
        say(f"{'against':19}{ratio(report, against):.3f} times the distance in {options.against}")
    return 0


@contextmanager
def progress_bars(shown: bool) -> Iterator["Progress"]:
    """Yield a callback that draws a bar for each stage, one after the other, on a terminal."""
    from tqdm import tqdm

    bar, shown_stage = tqdm(disable=True), ""

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal bar, shown_stage
        if stage != shown_stage:
            bar.close()
            shown_stage = stage
            bar = tqdm(total=total, desc=stage, leave=False, disable=None if shown else True)
        bar.update(done - bar.n)

    try:
        yield progress
    finally:
        bar.close()
