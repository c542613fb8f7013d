"""The command `ddpm`: what a person types becomes a call of `train` or `generate`.

torch is imported only once there is something to do, so that help is there at once.
"""

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import tyro

from .. import __version__
from ..config import Config, checked, preset, presets, read_toml
from ..utils.errors import UserError, explained
from ..utils.files import free_name
from .common import (
    convert_command,
    demo_command,
    doctor_command,
    generate_command,
    replay_command,
)
from .evaluate import evaluate_command
from .options import (
    ConvertOptions,
    DemoOptions,
    DoctorOptions,
    EvaluateOptions,
    GenerateOptions,
    ReplayOptions,
    TrainOptions,
)

HELP = f"""\
usage: ddpm COMMAND [OPTIONS]

Denoising diffusion from scratch.

commands:
  train [PRESET]             train on images, and leave everything in a run's folder
  generate [CHECKPOINT]      images out of noise, from a run or the bundled weights
  evaluate [CHECKPOINT]      how good they are: a distance from real images, and its floor
  demo [CHECKPOINT ...]      images out of noise, live in the browser
  convert FROM TO            to a folder of diffusers', or from one
  doctor DATA                what is in your images, and what learning them costs
  replay BATCH               a step that gave no number, taken again

examples:
  ddpm generate --n 64 --out digits.png    digits at once, from weights that come along
  ddpm train                               digits of your own in minutes on two CPU cores
  ddpm train --data FOLDER --minutes 60    your own images; sub-folders are classes
  ddpm generate runs/first-run             a grid from that run

presets: {", ".join(presets())}
`ddpm COMMAND --help` lists the options of a command; `ddpm --version` its version.
"""

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
    except BrokenPipeError:  # whoever read what we print has read enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (nor complain at the end)
        return 1
    except OSError as error:  # a full disk, a folder that went away
        print(f"ddpm: {explained(error)}", file=sys.stderr)
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
    if command == "demo":
        return demo_command(parse(DemoOptions, "demo", rest))
    if command == "doctor":
        return doctor_command(parse(DoctorOptions, "doctor", rest))
    if command == "replay":
        return replay_command(parse(ReplayOptions, "replay", rest))
    if command == "convert":
        return convert_command(parse(ConvertOptions, "convert", rest))
    print(
        f"ddpm: there is no command {command!r}: `ddpm --help` lists those there are",
        file=sys.stderr,
    )
    return 2


def parse(kind: type[T], command: str, argv: list[str], **options: Any) -> T:
    """The options on the command line; tyro itself prints and ends for --help and for misuse."""
    return checked(tyro.cli(kind, prog=f"ddpm {command}", args=argv, **options))


def train_command(argv: list[str]) -> int:
    options = read_train_options(argv)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not options.out:
        raise UserError("several processes need one folder: name it with --out RUN")
    out = Path(options.out or free_name(Path("runs", options.preset or "first-run")))
    from ..checkpoint.checkpoint import PRETRAINED
    from ..training.train import train

    result = train(options.config, out, device=options.device, resume=options.resume)
    if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
        return 0 if result.finished else 130
    if result.finished and math.isnan(result.loss):  # no step was taken
        print(f"{out} had come to the end of its budget: to go on, give it a larger one")
        return 0
    minutes = result.seconds / 60
    print(f"{result.images_seen:,} images in {minutes:.1f} minutes, loss {result.loss:.4f}: {out}")
    if not result.finished:
        print(f"stopped at step {result.step:,}; go on with: ddpm train --out {out} --resume")
        return 130
    name = f"./{out}" if str(out) in PRETRAINED else out  # not the weights of that name
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
        if not Path(options.out, "config.toml").exists():
            raise UserError(f"there is no run to go on with in {options.out}")
        base = read_toml(Path(options.out, "config.toml"))
        options = over(base)
    elif options.preset and options.preset != argv[0]:
        base = preset(options.preset)
        options = over(base)
    config = options.config
    if config.steps is config.images is config.minutes is None:
        config = replace(config, steps=base.steps, images=base.images, minutes=base.minutes)
    return replace(options, config=config)
