"""The command `ddpm`: what a person types becomes a call of `train` or `generate`.

torch is imported only once there is something to do, so that help is there at once.
"""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from . import __version__
from .config import (
    Config,
    Count,
    NonNegative,
    SampleConfig,
    Sampler,
    Seed,
    Share,
    Spacing,
    checked,
    preset,
    presets,
    read_toml,
)
from .errors import UserError
from .folders import free_name, require_writable, taken

if TYPE_CHECKING:
    from tqdm import tqdm

    from .checkpoint import Checkpoint

HELP = f"""\
usage: ddpm COMMAND [OPTIONS]

Denoising diffusion from scratch.

commands:
  train [PRESET]             train on images, and leave everything in a run's folder
  generate [CHECKPOINT]      images out of static, from a run or the weights in the box
  evaluate [CHECKPOINT]      how good they are: a distance from real digits, and its floor

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


@dataclass(frozen=True)
class TrainOptions:
    """Train a diffusion model on images, and leave everything in a run's folder.

    The preset sets all options below; give any of them to change it. Of --minutes, --steps and
    --images give one. Ctrl-C saves and ends; --resume with --out goes on.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    preset: tyro.conf.Positional[str | None] = None
    """Where the settings begin: one of the presets; first-run if none is named."""
    out: str | None = None
    """Folder of the run. By default runs/PRESET, with a number where that is taken."""
    resume: bool = False
    """Go on with the run in --out, with the settings it has."""
    device: str | None = None
    """cpu, cuda or mps. By default the best that is there."""


@dataclass(frozen=True)
class SamplingOptions:
    """What generating and scoring have in common."""

    steps: Count | None = None
    """Steps from static to an image. This and the next four: by default as the checkpoint says."""
    sampler: Sampler | None = None
    """How to walk from static to images."""
    spacing: Spacing | None = None
    """How the steps lie on the way."""
    eta: Share | None = None
    """Noise that ddim adds on the way: 0 none, 1 as much as ddpm."""
    guidance: NonNegative | None = None
    """How strongly to insist on the class: 1 is plain, 0 asks for none."""
    seed: Seed = 0
    """Another seed, other images."""
    batch: Count = 64
    """Images at a time."""
    device: str | None = None
    """cpu, cuda or mps. By default the best that is there."""


@dataclass(frozen=True)
class GenerateOptions(SamplingOptions):
    """Generate images out of static.

    Image number i follows from the checkpoint, its label, these settings, the seed and i.
    """

    checkpoint: tyro.conf.Positional[str | None] = None
    """A run's folder, a .safetensors file, or the name of weights that come with the package:
    mnist, the default."""
    n: Count = 16
    """How many images."""
    out: str | None = None
    """x.png: a grid. x.gif or x.webp: how they came out of the static. x.npz: an array, with the
    labels. x, without an ending: a folder of single PNGs. By default generated.png, numbered."""
    overwrite: bool = False
    """Write over what --out names."""
    label: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A class, by name or number; may be repeated. Without it, all classes in turn. A name that
    begins with a dash is given as --label=-NAME."""


@dataclass(frozen=True)
class EvaluateOptions(SamplingOptions):
    """Score digits: the Fréchet distance between their features and the training set's.

    The features are those of a classifier that comes with the package. Beside the distance stands
    its floor, that of as many real test digits, and the share of digits that are what was asked.
    """

    what: tyro.conf.Positional[str | None] = None
    """A run's folder, a .safetensors file or the name of weights that come with the package (mnist,
    the default); or digits: an npz, a zip or a folder of images."""
    n: Count = 10_000
    """How many digits to make."""
    root: str = "data"
    """Where MNIST lies, or is downloaded to."""
    out: str | None = None
    """A .json file for the score and its protocol."""
    overwrite: bool = False
    """Write over what --out names."""


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
    print(
        f"ddpm: there is no command {command!r}: use train, generate or evaluate", file=sys.stderr
    )
    return 2


def parse(kind: type[T], command: str, argv: list[str], **options: Any) -> T:
    """The options on the command line; tyro itself prints and ends for --help and for misuse."""
    return checked(tyro.cli(kind, prog=f"ddpm {command}", args=argv, **options))


# ---- train -----------------------------------------------------------------------------------


def train_command(argv: list[str]) -> int:
    options = read_train_options(argv)
    out = Path(options.out or free_name(Path("runs", options.preset or "first-run")))
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
    print(f"samples are in {out / 'samples'}; for more: ddpm generate {out}")
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
    out = check_out(options.out, options.overwrite)
    film = Film(settings.steps) if out.suffix.lower() in ANIMATIONS else None
    with steps_bar(options, settings) as bar:

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
    from .device import best_device, check_device
    from .generate import with_options

    device = options.device or best_device()
    check_device(device)
    checkpoint = load(name)
    settings = with_options(
        checkpoint.config.sample, steps=options.steps, sampler=options.sampler,
        spacing=options.spacing, eta=options.eta, guidance=options.guidance,
    )  # fmt: skip
    if options.eta and settings.sampler != "ddim":
        raise UserError(f"--eta is for --sampler ddim, and this is {settings.sampler}")
    if options.guidance is not None and not checkpoint.data.classes:
        raise UserError("--guidance needs classes, and this network was trained without")
    return checkpoint, settings, device


def steps_bar(options: "GenerateOptions | EvaluateOptions", settings: SampleConfig) -> "tqdm":
    from tqdm import tqdm

    steps = settings.steps * -(-options.n // options.batch)
    return tqdm(total=steps, disable=None, leave=False, unit="step")


def check_out(name: str | None, overwrite: bool) -> Path:
    """Where the images go: a free file's path, or a folder that is there.

    Refuses, before the images are made, what could not be written after.
    """
    path = Path(name) if name else free_name(Path("generated.png"))
    folder = path.is_dir() or not path.suffix or (name or "").endswith("/")
    if not folder and path.suffix.lower() not in (*PICTURES, *ANIMATIONS, ".npz"):
        raise UserError(f"--out {path}: end it in .png, .gif, .webp or .npz, or in / for a folder")
    if taken(path) and not overwrite:
        raise UserError(f"{path} is there already: give another --out, or add --overwrite")
    if path.is_dir() and path.suffix.lower() in (*PICTURES, *ANIMATIONS, ".npz"):
        raise UserError(f"{path} is a folder: give another --out")
    require_writable(path if folder else path.parent)
    return path


# ---- evaluate --------------------------------------------------------------------------------


def evaluate_command(options: EvaluateOptions) -> int:
    from .evaluate import DigitJudge, evaluate
    from .generate import Samples

    what = options.what or "mnist"
    out = check_json(options.out, options.overwrite)
    path = Path(what)
    if (
        path.suffix.lower() in (".npz", ".zip")
        or path.is_dir()
        and not (path / "model.safetensors").exists()
    ):
        from .data import load_images
        from .device import best_device, check_device

        device = options.device or best_device()
        check_device(device)
        images = load_images(what)
        samples = Samples(images.images, images.labels, images.classes)
        score = DigitJudge(options.root, device).score(samples, {"file": path.name})
    else:
        checkpoint, settings, device = sampling_setup(what, options)
        judge = DigitJudge(options.root, device)
        with steps_bar(options, settings) as bar:
            score = evaluate(
                checkpoint, judge, options.n, seed=options.seed, settings=settings,
                batch=options.batch, on_state=lambda state: bar.update(state.x0 is not None),
            )  # fmt: skip
    print(score.text())
    if out:
        score.save(out)
    return 0


def check_json(name: str | None, overwrite: bool) -> Path | None:
    """Where a score goes. Refuses, before it is made, what could not be written after."""
    if name is None:
        return None
    path = Path(name)
    if path.suffix.lower() != ".json":
        raise UserError(f"--out {path}: end it in .json")
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already: give another --out, or add --overwrite")
    require_writable(path.parent)
    return path
