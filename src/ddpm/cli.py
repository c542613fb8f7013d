"""The command `ddpm`: what a person types becomes a call of `train` or `generate`.

torch is imported only once there is something to do, so that help is there at once.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tyro

from . import __version__
from .config import Config, SampleConfig, checked, preset, presets, read_toml
from .errors import UserError
from .folders import free_name, require_writable, taken
from .options import (
    ConvertOptions,
    EvaluateOptions,
    GenerateOptions,
    SamplingOptions,
    TrainOptions,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from .checkpoint import Checkpoint
    from .evaluate import Judge, Score

HELP = f"""\
usage: ddpm COMMAND [OPTIONS]

Denoising diffusion from scratch.

commands:
  train [PRESET]             train on images, and leave everything in a run's folder
  generate [CHECKPOINT]      images out of static, from a run or the weights in the box
  evaluate [CHECKPOINT]      how good they are: a distance from real images, and its floor
  convert FROM TO            to a folder of diffusers', or from one

examples:
  ddpm generate --n 64 --out digits.png    digits at once, from weights that come along
  ddpm train                               digits of your own in minutes on two CPU cores
  ddpm train --data FOLDER --minutes 60    your own images; sub-folders are classes
  ddpm generate runs/first-run             a grid from that run

presets: {", ".join(presets())}
`ddpm COMMAND --help` lists the options of a command; `ddpm --version` its version.
"""

PICTURES = (".png",)
ANIMATIONS = (".gif", ".webp")

T = TypeVar("T")


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns its exit code: 0; 1 for something wrong that the message names; 2 for
    options that cannot be understood; 130 when it was stopped."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return dispatch(argv)
    except UserError as error:
        print(f"ddpm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nddpm: stopped", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk, a folder that went away
        print(f"ddpm: {error}", file=sys.stderr)
        return 1


def dispatch(argv: list[str]) -> int:
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if command == "--version":
        print(f"ddpm {__version__}")
        return 0
    if command == "train":
        return train_command(rest)
    if command == "generate":
        return generate_command(parse(GenerateOptions, "generate", rest))
    if command == "evaluate":
        return evaluate_command(parse(EvaluateOptions, "evaluate", rest))
    if command == "convert":
        return convert_command(parse(ConvertOptions, "convert", rest))
    print(
        f"ddpm: there is no command {command!r}: use train, generate, evaluate or convert",
        file=sys.stderr,
    )
    return 2


def parse(kind: type[T], command: str, argv: list[str], **options: Any) -> T:
    """The options on the command line; tyro itself prints and ends for --help and for misuse."""
    return checked(tyro.cli(kind, prog=f"ddpm {command}", args=argv, **options))


# ---- train -----------------------------------------------------------------------------------


def train_command(argv: list[str]) -> int:
    options = read_train_options(argv)
    out = Path(options.out or free_name(Path("runs", options.preset or "first-run")))
    from .checkpoint import SHIPPED
    from .train import train

    result = train(options.config, out, device=options.device, resume=options.resume)
    if math.isnan(result.loss):  # no step was taken
        print(f"{out} had come to the end of its budget: to go on, give it a larger one")
        return 0
    minutes = result.seconds / 60
    print(f"{result.images:,} images in {minutes:.1f} minutes, loss {result.loss:.4f}: {out}")
    if not result.finished:
        print(f"stopped at step {result.step:,}; go on with: ddpm train --out {out} --resume")
        return 130
    name = f"./{out}" if str(out) in SHIPPED else out  # not the weights of that name
    print(f"samples are in {out / 'samples'}; for more: ddpm generate {name}")
    return 0


def read_train_options(argv: list[str]) -> TrainOptions:
    """Parse twice: first to learn the preset, or the run, whose settings are the second's defaults.

    A budget on the command line takes the place of the preset's, whatever its unit.
    """

    def over(base: Config) -> TrainOptions:
        unbounded = replace(base, steps=None, images=None, minutes=None)
        return parse(TrainOptions, "train", argv, default=TrainOptions(config=unbounded))

    base = preset(argv[0] if argv and not argv[0].startswith("-") else "first-run")
    options = over(base)
    if options.resume:
        if not options.out:
            raise UserError("--resume needs the folder of the run: --out RUN")
        if options.preset:
            raise UserError("--resume goes on with the run's own settings: leave out the preset")
        base = read_toml(Path(options.out, "config.toml"))
        options = over(base)
    elif options.preset and options.preset != argv[0]:
        base = preset(options.preset)
        options = over(base)
    config = options.config
    if config.steps is config.images is config.minutes is None:
        config = replace(config, steps=base.steps, images=base.images, minutes=base.minutes)
    return replace(options, config=config)


# ---- generate --------------------------------------------------------------------------------


def generate_command(options: GenerateOptions) -> int:
    from .generate import Film, generate, write
    from .sampling import State

    checkpoint, settings, device = sampling_setup(options.checkpoint or "mnist", options)
    if options.label and settings.guidance == 0:
        raise UserError("guidance 0 asks for no class: leave out --label, or --guidance 0")
    out = check_out(options.out, options.overwrite)
    film = Film(settings.steps) if out.suffix.lower() in ANIMATIONS else None
    with steps_bar(options.n, options.batch, settings) as bar:

        def on_state(state: State) -> None:
            bar.update(state.x0 is not None)
            if film is not None:
                film.take(state)

        samples = generate(
            checkpoint, options.n, seed=options.seed, labels=options.label, settings=settings,
            device=device, batch=options.batch, on_state=on_state,
        )  # fmt: skip
    write(out, samples, film)
    print(f"{options.n} images: {out}")
    return 0


def sampling_setup(name: str, options: SamplingOptions) -> tuple["Checkpoint", SampleConfig, str]:
    """The checkpoint, how to sample from it, and on what."""
    from .checkpoint import load
    from .generate import check_steps, with_options

    device = device_for(options)
    checkpoint = load(name)
    settings = with_options(
        checkpoint.config.sample, steps=options.steps, sampler=options.sampler,
        spacing=options.spacing, eta=options.eta, guidance=options.guidance,
    )  # fmt: skip
    if options.eta and settings.sampler != "ddim":
        raise UserError(f"--eta is for --sampler ddim, and this is {settings.sampler}")
    if options.guidance is not None and not checkpoint.data.classes:
        raise UserError("--guidance needs classes, and this network was trained without")
    check_steps(settings, checkpoint.diffusion)
    return checkpoint, settings, device


def device_for(options: SamplingOptions) -> str:
    from .device import best_device, check_device

    device = options.device or best_device()
    check_device(device)
    return device


def steps_bar(n: int, batch: int, settings: SampleConfig) -> "tqdm":
    from tqdm import tqdm

    return tqdm(total=settings.steps * -(-n // batch), disable=None, leave=False, unit="step")


def check_out(name: str | None, overwrite: bool) -> Path:
    """Where the images go: a free file's path, or a folder that is there.

    Refuses, before the images are made, what could not be written after.
    """
    path = Path(name) if name else free_name(Path("generated.png"))
    if path.is_dir() or not path.suffix or (name or "").endswith("/"):
        if path.suffix.lower() in (*PICTURES, *ANIMATIONS, ".npz"):
            raise UserError(f"{path} is a folder: give another --out")
        if taken(path) and not overwrite:
            raise UserError(f"{path} is there already: give another --out, or add --overwrite")
        require_writable(path)
        return path
    if path.suffix.lower() not in (*PICTURES, *ANIMATIONS, ".npz"):
        raise UserError(f"--out {path}: end it in .png, .gif, .webp or .npz, or in / for a folder")
    return check_file(path, overwrite)


def check_file(path: Path, overwrite: bool) -> Path:
    """The path of a file that can be written, without anything of somebody's being lost."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give another --out")
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already: give another --out, or add --overwrite")
    require_writable(path.parent)
    return path


# ---- evaluate --------------------------------------------------------------------------------


def evaluate_command(options: EvaluateOptions) -> int:
    from .evaluate import ratio, read_score

    what = options.what or "mnist"
    if options.out:
        if Path(options.out).suffix.lower() != ".json":
            raise UserError(f"--out {options.out}: end it in .json")
        check_file(Path(options.out), options.overwrite)
    other = read_score(Path(options.against)) if options.against else None
    score = score_images(what, options) if holds_images(what) else score_network(what, options)
    print(score.text())
    if options.out:
        score.save(Path(options.out))
    if other:
        print(f"{'against':19}{ratio(score, other):.3f} times the distance in {options.against}")
    return 0


def holds_images(what: str) -> bool:
    """Whether this is images, and not a network that makes them."""
    from .checkpoint import SHIPPED

    path = Path(what)
    if what in SHIPPED or path.suffix.lower() == ".safetensors":
        return False
    run = any((path / name).exists() for name in ("model.safetensors", "config.toml"))
    return path.exists() and not run


def score_images(what: str, options: EvaluateOptions) -> "Score":
    from .data import load_images
    from .digit_net import SHAPE
    from .generate import Samples
    from .readers import RESIZED

    made = ("n", "steps", "sampler", "spacing", "eta", "guidance")
    if given := [f"--{name}" for name in made if getattr(options, name) is not None]:
        raise UserError(f"{given[0]} says how to make images, and {what} has them already")
    device = device_for(options)
    images = load_images(Path(what).resolve())  # the path, whatever named sets there are
    for note in images.notes:
        if note.startswith(RESIZED):
            raise UserError(f"{what}: {RESIZED}; samples are scored as they are, of one size")
        print(f"note: {note}", file=sys.stderr)
    data = options.data or ("mnist" if tuple(images.images.shape[1:]) == SHAPE else None)
    if data is None:
        raise UserError(f"which real images is {what} to be held against? Name them with --data")
    samples = Samples(images.images, images.labels, images.classes)
    judge = judge_for(data, options, device)
    return judge.score(samples, {"file": images.source, "fingerprint": images.fingerprint[:16]})


def score_network(what: str, options: EvaluateOptions) -> "Score":
    from .evaluate import evaluate

    checkpoint, settings, device = sampling_setup(what, options)
    judge = judge_for(options.data or checkpoint.config.data, options, device)
    n = options.n or 10_000
    with steps_bar(n, options.batch, settings) as bar:
        return evaluate(
            checkpoint, judge, n, seed=options.seed, settings=settings, batch=options.batch,
            on_state=lambda state: bar.update(state.x0 is not None),
        )  # fmt: skip


def judge_for(data: str, options: EvaluateOptions, device: str) -> "Judge":
    from .evaluate import Judge

    return Judge(
        data, root=options.root, split=options.split, features=options.features, device=device
    )


# ---- convert ---------------------------------------------------------------------------------


def convert_command(options: ConvertOptions) -> int:
    from .checkpoint import load, save
    from .convert import is_diffusers, read_diffusers, write_diffusers

    source, out = Path(options.source), Path(options.out)
    if is_diffusers(source):
        if out.suffix != ".safetensors":
            raise UserError(f"{out} will be a checkpoint of ours: end it in .safetensors")
        check_file(out, overwrite=False)
        c = read_diffusers(source)
        save(out, c.net, c.config, c.data, c.step, c.images)
        print(f"{out}: try ddpm generate {out}")
    else:
        write_diffusers(load(options.source), out)
        print(f"{out}: try diffusers.DDPMPipeline.from_pretrained({str(out)!r})")
    return 0
