"""The command `ddpm evaluate`: what is scored, against what, and what is said of it."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.errors import UserError
from .common import (
    check_file,
    device_for,
    images_bar,
    sampling_setup,
    steps_bar,
    tell_of_average,
)
from .options import EvaluateOptions

if TYPE_CHECKING:
    from ..data.folder import Images
    from ..evaluation.reference import Judge
    from ..evaluation.report import Score
    from ..generation.generate import Samples
    from ..utils.distributed import Team


def evaluate_command(options: EvaluateOptions) -> int:
    from ..evaluation.report import ratio, read_score

    what = options.what or "mnist"
    for name, ending in (("out", ".json"), ("copies", ".png")):
        if path := getattr(options, name):
            if Path(path).suffix.lower() != ending:
                raise UserError(f"--{name} {path}: end it in {ending}")
            check_file(Path(path), options.overwrite)
    other = read_score(Path(options.against)) if options.against else None
    make = score_images if holds_images(what) else score_network
    score = make(what, options, other)
    if score is None:  # the main process has it
        return 0
    print(score.text())
    if options.out:
        score.save(Path(options.out))
    if other:
        print(f"{'against':19}{ratio(score, other):.3f} times the distance in {options.against}")
    return 0


def holds_images(what: str) -> bool:
    """Whether this is images, and not a network that makes them."""
    from ..checkpoint.checkpoint import SHIPPED

    path = Path(what)
    if what in SHIPPED or path.suffix.lower() == ".safetensors":
        return False
    run = any((path / name).exists() for name in ("model.safetensors", "config.toml"))
    return path.exists() and not run


def score_images(what: str, options: EvaluateOptions, other: "Score | None") -> "Score | None":
    """Score the images of a file or folder, which `other` is to be compared with. Of several
    processes the main one has the score."""
    from ..data.load import load_images
    from ..evaluation.digit_net import SHAPE
    from ..evaluation.report import check_alike
    from ..generation.generate import Samples
    from ..utils.distributed import assemble

    made = ("n", "steps", "sampler", "spacing", "eta", "guidance", "likelihood")
    if given := [f"--{name}" for name in made if getattr(options, name) is not None]:
        raise UserError(f"{given[0]} is for a network, and {what} is images")
    device = device_for(options)
    team = assemble(device)
    with team.main_first():
        path = Path(what).resolve()  # the path, whatever named sets there are
        images = load_images(path, as_they_are=True)
    tell_notes(images, team)
    data = options.data or ("mnist" if tuple(images.images.shape[1:]) == SHAPE else None)
    if data is None:
        raise UserError(f"which real images is {what} to be held against? Name them with --data")
    samples = Samples(images.images, images.labels, images.classes)
    judge = judge_for(data, options, options.root or "data", options.size, device, team)
    how = {"file": images.source, "fingerprint": images.fingerprint[:16]}
    protocol = judge.protocol(len(images), how)
    if other:
        check_alike(protocol, other.protocol)
    copying = seconds_of_copies(len(images), judge, options, flip=False)
    tell(judge.seconds(len(images)) + copying, team)
    score = judge.score(samples, how)
    team.disband()
    return with_copies(score, samples, judge, options, flip=False) if team.main else None


def score_network(what: str, options: EvaluateOptions, other: "Score | None") -> "Score | None":
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
    from ..utils.distributed import assemble

    checkpoint, settings, device = sampling_setup(what, options)
    config, seed, batch = checkpoint.config, options.seed, options.batch
    team = assemble(device)
    if not (options.data or checkpoint.data.fingerprint):
        raise UserError(f"{what} does not say what it was trained on: name images with --data")
    judge = judge_for(
        options.data or config.data, options, options.root or config.root,
        options.size or config.size, device, team,
    )  # fmt: skip
    check_network(checkpoint, judge)
    if options.likelihood and judge.unseen is not None:
        check_held_out(checkpoint, judge.unseen)
    if options.copies and judge.training.fingerprint != checkpoint.data.fingerprint and team.main:
        print(
            f"note: {what} was not trained on these very images, {judge.training.source}: copies "
            f"are looked for in these",
            file=sys.stderr,
        )
    n = options.n or 10_000
    protocol = judge.protocol(n, made_by(checkpoint, settings, seed))
    if other:
        check_alike(protocol, other.protocol)
    evaluations = n * network_evaluations(settings, checkpoint.diffusion, checkpoint.conditional)
    evaluations += (options.likelihood or 0) * checkpoint.diffusion.T
    each = seconds_an_evaluation(checkpoint, device, batch) / team.size
    copying = seconds_of_copies(n, judge, options, config.flip)
    tell(judge.seconds(n) + evaluations * each + copying, team)
    tell_of_average(checkpoint, team)
    with steps_bar(n, batch, settings.steps, team) as bar:
        samples = generate(
            checkpoint, n, seed=seed, settings=settings, device=device, batch=batch,
            on_state=lambda state: bar.update(state.x0 is not None), team=team,
        )  # fmt: skip
    score = score_samples(checkpoint, judge, samples, seed, settings)
    if options.likelihood:
        assert judge.unseen is not None
        places = judge.places(judge.unseen, options.likelihood)
        with images_bar(len(places), team) as bar:
            bound = likelihood(
                checkpoint, judge.unseen, places, seed=seed, device=device,
                batch=batch, on_batch=bar.update, team=team,
            )  # fmt: skip
        score = replace(score, likelihood=bound)
    team.disband()
    return with_copies(score, samples, judge, options, config.flip) if team.main else None


def judge_for(
    data: str,
    options: EvaluateOptions,
    root: str,
    size: tuple[int, ...],
    device: str,
    team: "Team",
) -> "Judge":
    from ..data.load import SPLIT
    from ..data.sources import PREFIX
    from ..evaluation.reference import Judge

    if options.split and data not in SPLIT and not data.startswith(PREFIX):
        raise UserError(f"--split is for named sets, and {data} is not one: leave it out")
    with team.main_first():  # who decodes the images for all
        judge = Judge(
            data, root=root, split=options.split or "train", held_out=options.held_out, size=size,
            features=options.features, device=device, team=team,
        )  # fmt: skip
    tell_notes(judge.real, team)
    if judge.held_out is not None:
        tell_notes(judge.held_out, team)
    if options.likelihood and judge.unseen is None:
        raise UserError("bits/dim are of images that were held out: name them with --held-out")
    return judge


def tell_notes(images: "Images", team: "Team") -> None:
    """What a person should know of how they were read."""
    for note in images.notes if team.main else ():
        print(f"note: {images.source}: {note}", file=sys.stderr)


def tell(seconds: float, team: "Team") -> None:
    """Say how long it will take, where that is long."""
    from ..training.log import clock

    if seconds > 10 and team.main:
        print(f"this will take about {clock(seconds)}", file=sys.stderr, flush=True)


def seconds_of_copies(n: int, judge: "Judge", options: EvaluateOptions, flip: bool) -> float:
    """How long it will take to look for copies of n samples, and of as many real images."""
    from ..evaluation.memorization import seconds

    return 2 * seconds(n, judge.training.images, flip, judge.device) if options.copies else 0.0


def with_copies(
    score: "Score", samples: "Samples", judge: "Judge", options: EvaluateOptions, flip: bool
) -> "Score":
    """The score and, where it is asked for, how near the samples are to the training images."""
    if options.copies is None:
        return score
    from ..evaluation.memorization import alike, nearest, pairs, report, share_of_copies
    from ..utils.files import replacing

    others = judge.training if judge.unseen is None else judge.unseen
    places = judge.places(others, len(samples.images))
    images, training, real_ones = alike(
        samples.images, judge.training.images, others.images[places]
    )
    made = nearest(images, training, flip=flip, device=judge.device)
    itself = places if others is judge.training else None
    real = nearest(real_ones, training, flip=flip, itself=itself, device=judge.device)
    with replacing(Path(options.copies)) as beside:
        pairs(images, training, made).save(beside, "png")
    print(f"{report(made, real)}\nthe nearest are in {options.copies}")
    return replace(score, copies=share_of_copies(made, real))
