"""The command `ddpm`: what a person types becomes a call of one of its commands.

torch is imported only once there is something to do, so that help is there at once.
"""

import inspect
import os
import re
import shutil
import sys
import textwrap
import traceback
from contextlib import suppress
from typing import Annotated, Any, Union

from tyro.conf import subcommand

from .. import __version__
from ..utils.errors import UsageError, explained
from ..utils.streams import safe_streams
from .common import brief, notes_shown, parse
from .convert import ConvertOptions, convert
from .demo import DemoOptions, demo
from .doctor import DoctorOptions, doctor
from .evaluate import EvaluateOptions, evaluate
from .generate import GenerateOptions, generate
from .hints import options_of, unknown_command
from .publish import PublishOptions, publish
from .replay import ReplayOptions, replay
from .train import TrainOptions, first_settings, read_train_options, starting_from, train

COMMANDS: dict[str, tuple[type, Any]] = {
    "train": (TrainOptions, train),
    "generate": (GenerateOptions, generate),
    "evaluate": (EvaluateOptions, evaluate),
    "demo": (DemoOptions, demo),
    "convert": (ConvertOptions, convert),
    "publish": (PublishOptions, publish),
    "doctor": (DoctorOptions, doctor),
    "replay": (ReplayOptions, replay),
}
ABOUT = """Denoising diffusion from scratch.

examples:
  ddpm generate --n 64 --out digits.png    digits at once, from bundled weights
  ddpm train                               digits of your own in minutes on two CPU cores
  ddpm train --data FOLDER --minutes 60    your own images; sub-folders are classes
  ddpm generate runs/first-run             a grid from that run

`ddpm COMMAND --help` lists the options of a command; `ddpm --version` its version; --debug, with
any command, shows the traceback of an error."""
DEBUG, ALL = "--debug", "--help-all"
SHOWN = (  # of training's options: what its help explains at first
    "preset", "out", "resume", "data", "size", "minutes", "steps", "images", "flip", "init",
    "device",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns its exit code: 0; 1 for something wrong that the message names; 130
    when it was stopped. Options that cannot be understood end the program with 2.

    What is wrong is a sentence on stderr; --debug, anywhere among the words, adds the traceback.
    """
    words = [in_home(word) for word in (sys.argv[1:] if argv is None else argv)]
    debug = DEBUG in words
    with safe_streams():
        try:
            with notes_shown():
                return run([word for word in words if word != DEBUG])
        except KeyboardInterrupt:
            print("\nddpm: stopped", file=sys.stderr)
            return 130
        except UsageError as error:
            print(f"ddpm: {error}", file=sys.stderr)
            sys.exit(2)
        except Exception as error:
            if debug:
                traceback.print_exc()
            print(f"ddpm: {explained(error)}", file=sys.stderr)
            return 1


def in_home(word: str) -> str:
    """Return a word with the home folder for ~ where a path begins by it, as in --out=~/runs, which
    no shell has done."""
    found = re.fullmatch(r"(--?[\w.-]+=)?(~[/\\].*|~)", word, re.S)
    return (found[1] or "") + os.path.expanduser(found[2]) if found else word


def run(argv: list[str]) -> int:
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    if argv == ["--version"]:
        print(f"ddpm {__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        kinds = tuple(
            Annotated[kind, subcommand(name, description=first_paragraph(kind))]
            for name, (kind, _) in COMMANDS.items()
        )
        parse(Union[kinds], ["--help"], "ddpm", description=ABOUT)  # noqa: UP007
    name, *words = argv
    if name not in COMMANDS:
        raise UsageError(unknown_command(argv, list(COMMANDS)))
    if name == "train" and {"-h", "--help"} & set(words):
        show_train_help(words)
        sys.exit(0)
    if name == "train":  # parsed over the settings of a preset, or of a run
        return train(read_train_options(["--help" if word == ALL else word for word in words]))
    kind, command = COMMANDS[name]
    # OpenMP's threads give way while they wait: where others need the cores, those that do not
    # make sampling two to three times slower. Training is faster without, on cores of its own.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return command(parse(kind, words, f"ddpm {name}"))


def show_train_help(words: list[str]) -> None:
    """Print the first of training's options, and the names of all; --help-all explains all."""
    options = brief(starting_from(first_settings(words)), SHOWN)
    with suppress(SystemExit):
        parse(type(options), ["--help"], "ddpm train", default=options)
    names = [name.rpartition(".") for name in options_of(TrainOptions) if name.startswith("--")]
    print("all settings:")
    for group in dict.fromkeys(group for group, _, _ in names):
        listed = " ".join(
            name for in_group, _, name in names if in_group == group and "no-" not in name
        )
        begin = f"  {group}.".ljust(15) if group else " " * 15
        width = shutil.get_terminal_size().columns
        print(textwrap.fill(
            listed, min(80, width), initial_indent=begin, subsequent_indent=" " * 15,
            break_on_hyphens=False,
        ))  # fmt: skip
    print(f"What each of them does: ddpm train {ALL}")


def first_paragraph(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0]
