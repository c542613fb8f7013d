"""What the commands share: their options, parsing, progress bars, and notes on stderr."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import DisallowNone, FlagCreatePairsOff, Suppress
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ..checkpoint.header import Header, header_of
from ..checkpoint.run_dir import find_checkpoint
from ..config import (
    Count,
    EpsScale,
    NonNegative,
    SampleConfig,
    Seed,
    Share,
    Width,
    checked,
    option,
)
from ..core.types import SamplerName, Spacing, Variance
from ..generation.settings import (
    ACT_WITH,
    check_guidance,
    check_steps,
    class_indices,
    ineffective_settings,
    own_settings,
    with_options,
)
from ..utils.errors import UsageError, UserError, did_you_mean, printable_lines
from ..utils.files import require_writable
from ..utils.numbers import read_number, read_whole
from .hints import unknown_option

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..checkpoint.checkpoint import Checkpoint
    from ..utils.distributed import Processes

Device = Annotated[
    str | None,
    option(
        "DEVICE", help="cpu, cuda, cuda:1, mps or xpu. By default the best that this machine has."
    ),
]
Overwrite = Annotated[FlagCreatePairsOff[bool], option(help="Replace a file that exists already.")]
Root = Annotated[str, option("FOLDER", help="Where the named sets lie, or are downloaded to.")]
Size = Annotated[tuple[Width, ...], option("N [N]")]


@dataclass(frozen=True)
class SamplingOptions:
    """What generating and scoring have in common. Of what is None the checkpoint's own is taken."""

    steps: Annotated[Count | None, option("N")] = None
    """Sampling steps. The defaults of this and of all down to --precision are the checkpoint's."""
    sampler: Annotated[SamplerName | None, option()] = None
    """Sampling method."""
    spacing: Annotated[Spacing | None, option()] = None
    """Spacing of the steps over time."""
    sigma_min: Annotated[NonNegative | None, option("X")] = None
    """Smallest σ before the last step, which leads to x_0; for the spacings rho and log-snr."""
    eta: Annotated[Share | None, option("X")] = None
    """Noise that ddim adds in each step: 0 none, 1 as much as ddpm."""
    eps_scale: Annotated[EpsScale | None, option("X")] = None
    """Divide the predicted noise by this (epsilon scaling): 1.01 keeps contrast and texture."""
    churn: Annotated[NonNegative | None, option("X")] = None
    """Noise added back before each step (EDM's S_churn), with any sampler; not with --mask."""
    variance: Annotated[Variance | None, option()] = None
    """Variance of the noise that ddpm adds."""
    guidance: Annotated[NonNegative | None, option("X")] = None
    """Guidance scale, classifier-free or by a guide: 1 is none; 0, where there is no guide, samples
    without a class."""
    guidance_above: Annotated[Share | None, option("X")] = None
    """Guide only at times above this share of T."""
    guidance_below: Annotated[Share | None, option("X")] = None
    """Guide only at times up to this share of T."""
    precision: Annotated[Literal["no", "bf16"] | None, option()] = None
    """Mixed precision: bf16 is faster where the device has it, and images differ by some levels."""
    guide: Annotated[str | None, option("WEIGHTS")] = None
    """Autoguidance: a weaker version of the network, such as an early checkpoint, whose errors are
    led away from, in place of classifier-free guidance. The weights of celeba64 carry their own."""
    seed: Annotated[Seed, option("N", "-s")] = 0
    """Random seed: each gives other images."""
    batch: Count = 64
    """Batch size."""
    device: Device = None


METAVARS = ConstructorRegistry()
READ: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("N", read_whole), float: ("X", read_number), str: ("TEXT", str),
}  # fmt: skip


@METAVARS.primitive_rule
def plain_value(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A number, a text, or one of some choices; or None, which nobody types.

    What cannot be read raises UsageError, to which `parse` adds the option's name.
    """
    read: Callable[[str], Any]
    kind, optional = info.type, NoneType in get_args(info.type)
    if optional:
        (kind, *_) = get_args(info.type)
        if get_origin(kind) is Annotated:
            kind, *marks = get_args(kind)
            if own := next((m for m in marks if isinstance(m, PrimitiveConstructorSpec)), None):
                return replace(own, is_instance=lambda value: True)
    if get_origin(kind) is Literal:
        choices = {str(choice): choice for choice in get_args(kind)}
        metavar, read = f"{{{','.join(choices)}}}", partial(one_of, choices)
    elif kind in READ:
        metavar, read = READ[kind]
    else:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


def one_of(choices: Mapping[str, Any], word: str) -> Any:
    if word not in choices:
        there_are = f"{word!r} is none of {', '.join(choices)}"
        raise UsageError(there_are + did_you_mean(word, choices))
    return choices[word]


def parse(kind: Any, argv: Sequence[str], prog: str, **more: Any) -> Any:
    """Return the options in `argv`, their types and ranges checked.

    tyro itself prints and ends for --help. Raise UsageError for what cannot be understood, and
    UserError for an unfit value.
    """
    said = StringIO()
    try:
        with redirect_stderr(said):
            options = tyro.cli(
                kind, prog=prog, args=argv, registry=METAVARS, config=(DisallowNone,), **more
            )
    except UsageError as error:
        raise UsageError(f"{option_of(str(error), argv)}{error}") from None
    except SystemExit as end:
        if end.code:
            from .main import COMMANDS

            kinds = {name: options for name, (options, _) in COMMANDS.items()}
            if unknown := unknown_option(argv, prog.split()[-1], kinds):
                raise UsageError(unknown) from None
            print(said.getvalue(), end="", file=sys.stderr)
        raise
    return checked(options)


def option_of(text: str, argv: Sequence[str]) -> str:
    """Return the option before the value that a message begins with, and a colon; "" for none."""
    name = ""
    for word in argv:
        if option := re.match(r"--?[^\W\d][^=]*", word):
            name, word = option[0], word[option.end() + 1 :]
        if name and text.startswith(f"{word!r} is "):
            return f"{name}: "
    return ""


def brief(options: Any, shown: Container[str]) -> Any:
    """Return the same options, of a class whose help shows those of these names alone."""
    kind = type(options)
    hints, made = get_type_hints(kind, include_extras=True), []
    for f in fields(kind):
        hint: Any = hints[f.name]
        value = getattr(options, f.name)
        if f.name in shown:
            pass
        elif get_origin(hint) is Annotated and is_dataclass(get_args(hint)[0]):  # a part of these
            value = brief(value, shown)
            hint = Annotated[(type(value), *get_args(hint)[1:])]
        else:
            hint = Suppress[hint]  # type: ignore[misc]
        made.append((f.name, hint, field(default=value)))
    return make_dataclass(
        kind.__name__, made, bases=(kind,), frozen=True, namespace={"__doc__": kind.__doc__}
    )()


def say(text: object) -> None:
    """Print to stdout, without the control characters that names in the text may have."""
    print(printable_lines(str(text)))


class NoteHandler(logging.Handler):
    """Writes to stderr as it is at the moment, above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(printable_lines(self.format(record)), file=sys.stderr)


@contextmanager
def notes_shown() -> Iterator[None]:
    """Show what the library logs at INFO and above as "note: …"; of several processes the main
    one does. What Pillow finds odd in a file is not shown: its files are named where they matter.
    """
    logger, handler = logging.getLogger("ddpm"), NoteHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    before, pillow = logger.level, logging.getLogger("PIL")
    pillow_before = pillow.level
    pillow.setLevel(logging.CRITICAL)
    if os.environ.get("RANK", "0") == "0":
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        pillow.setLevel(pillow_before)


def sampling_settings(
    name: str, options: SamplingOptions, labels: Sequence[str] = ()
) -> SampleConfig:
    """Return how to sample from a checkpoint. Raise UserError, before torch is imported, for what
    is missing and what it cannot be asked for."""
    header = header_of(find_checkpoint(name), Header)
    if options.guide:
        find_checkpoint(options.guide)
    given = {field.name: getattr(options, field.name) for field in fields(SampleConfig)}
    own = header.config.sample
    settings = with_options(own if options.steps else own_settings(own), **given)
    typed = {name for name, value in given.items() if value is not None}
    check_effective(settings, typed, header.config.diffusion.learned_variance)
    guidable = bool(header.data.classes or options.guide or header.guide)
    if options.guidance is not None and not guidable:
        raise UserError(
            "--guidance needs classes, and this network was trained without: give a --guide too"
        )
    if (bounds := typed & {"guidance_above", "guidance_below"}) and (
        settings.guidance == 1 or not guidable
    ):
        name = min(bounds).replace("_", "-")
        raise UserError(f"--{name} has no effect: guidance is off")
    check_steps(settings, header.config.diffusion.T)
    check_guidance(settings, guide=bool(options.guide or header.guide))
    class_indices(labels, header.data.classes)
    return settings


def check_effective(
    settings: SampleConfig, typed: set[str], learned_variance: bool, before: str = "--"
) -> None:
    """Raise UserError for a setting, of those that were typed, that changes nothing beside the
    others. `before`: what a setting's option begins with."""
    all_of_them = asdict(settings)
    idle = ineffective_settings(all_of_them)
    for name, (of, *values) in ACT_WITH.items():
        nothing = name == "sigma_min" and not settings.sigma_min  # 0 is to leave it out
        if name in typed & idle and not nothing:
            raise UserError(
                f"{before}{name.replace('_', '-')} is for {before}{of} {' and '.join(values)}, and "
                f"this is {all_of_them[of]}"
            )
    if "variance" in typed and learned_variance:
        raise UserError(f"{before}variance has no effect: this network learns its own")


def note_of_average(checkpoint: "Checkpoint") -> None:
    """Log a note where the average of the weights is still short."""
    from ..checkpoint.checkpoint import average_note

    if note := average_note(checkpoint.step, checkpoint.config.train.ema):
        logging.getLogger(__name__).info(note)


def device_for(name: str | None) -> str:
    """Return the device of that name, or the best. Raise UserError where there is none such."""
    from ..utils.device import resolve_device

    return resolve_device(name)


def steps_bar(n: int, batch: int, steps: int, processes: "Processes") -> "tqdm":
    """Return a bar that counts the sampling steps of n images, shown by the main process."""
    from tqdm import tqdm

    batches = -(-n // batch)  # of which one process has every processes.world_size-th
    hidden = None if processes.is_main else True  # None: where there is no terminal
    total = steps * -(-batches // processes.world_size)
    return tqdm(total=total, disable=hidden, leave=False, unit="step")


def require_files(*paths: str | None, what: str = "file") -> None:
    """Raise UserError for a file that is asked for, not None, and is missing."""
    for path in paths:
        if path is not None and not os.path.exists(path):
            raise UserError(f"there is no {what} at {path}")


def check_file(path: Path, overwrite: bool | None = None, option: str = "--out") -> Path:
    """Return the path of a file that can be written. Raise UserError where it exists already, and
    is not to be replaced; None: the command has no --overwrite."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file")
    if path.exists() and not overwrite:
        advice = "name" if overwrite is None else f"{option}, or add --overwrite"
        raise UserError(f"{path} is there already: give another {advice}")
    require_writable(path.parent)
    return path
