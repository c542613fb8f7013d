"""The command `ddpm`: what a person types becomes a call of one of its commands.

torch is imported only once there is something to do, so that help is there at once.
"""

import inspect
import sys
import traceback
from typing import Annotated, Any, Union

from tyro.conf import subcommand

from .. import __version__
from ..utils.errors import explained
from ..utils.streams import safe_streams
from .common import notes_shown, parse
from .convert import ConvertOptions, convert
from .demo import DemoOptions, demo
from .doctor import DoctorOptions, doctor
from .evaluate import EvaluateOptions, evaluate
from .generate import GenerateOptions, generate
from .publish import PublishOptions, publish
from .replay import ReplayOptions, replay
from .train import TrainOptions, read_train_options, train

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
  ddpm generate --n 64 --out digits.png    digits at once, from weights that come along
  ddpm train                               digits of your own in minutes on two CPU cores
  ddpm train --data FOLDER --minutes 60    your own images; sub-folders are classes
  ddpm generate runs/first-run             a grid from that run

`ddpm COMMAND --help` lists the options of a command; `ddpm --version` its version; --debug, with
any command, shows where in the code an error arose."""
DEBUG = "--debug"


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns its exit code: 0; 1 for something wrong that the message names; 130
    when it was stopped. Options that cannot be understood end the program with 2.

    What is wrong is a sentence on stderr; --debug, anywhere among the words, adds the traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG in words
    with safe_streams():
        try:
            with notes_shown():
                return run([word for word in words if word != DEBUG])
        except KeyboardInterrupt:
            print("\nddpm: stopped", file=sys.stderr)
            return 130
        except Exception as error:
            if debug:
                traceback.print_exc()
            print(f"ddpm: {explained(error)}", file=sys.stderr)
            return 1


def run(argv: list[str]) -> int:
    if argv == ["--version"]:
        print(f"ddpm {__version__}")
        return 0
    if argv[:1] == ["train"]:  # parsed over the settings of a preset, or of a run
        return train(read_train_options(argv[1:]))
    kinds = tuple(
        Annotated[kind, subcommand(name, description=description(kind, argv[:1] == [name]))]
        for name, (kind, _) in COMMANDS.items()
    )
    options = parse(Union[kinds], argv or ["--help"], "ddpm", description=ABOUT)  # noqa: UP007
    command = next(command for kind, command in COMMANDS.values() if kind is type(options))
    return command(options)


def description(kind: type, whole: bool) -> str:
    """The docstring of a command's options: its first paragraph in the list of all commands."""
    text = inspect.getdoc(kind) or ""
    return text if whole else text.split("\n\n")[0]
