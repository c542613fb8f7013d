"""`ddpm train`: a run, from the settings of a preset or of the run itself."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from ..checkpoint.header import PRETRAINED
from ..checkpoint.run_dir import RunContents, find_checkpoint
from ..config import Config, option, preset, presets, read_toml
from ..data.names import require_data
from ..utils.errors import UserError
from ..utils.files import free_name
from .common import Device, parse, say

FIRST = "first-run"

log = logging.getLogger(__name__)


def unbounded(config: Config) -> Config:
    """Return the settings without their budget."""
    return replace(config, steps=None, images=None, minutes=None)


@dataclass(frozen=True)
class TrainOptions:
    """Train a diffusion model on images, and leave everything in a run's folder.

    The preset sets all options below; give any of them to change it. Of --minutes, --steps and
    --images give one. Ctrl-C saves and ends; --resume with --out goes on.
    """

    config: Annotated[Config, arg(name="")] = field(
        default_factory=lambda: unbounded(preset(FIRST))
    )
    preset: Annotated[
        Positional[str | None],
        option("[PRESET]", help=f"Where the settings begin: {', '.join(presets())}; {FIRST} if "
               f"none is named."),
    ] = None  # fmt: skip
    out: Annotated[str | None, option("FOLDER", "-o")] = None
    """Folder of the run. By default runs/PRESET, with a number where that is taken."""
    resume: Annotated[FlagCreatePairsOff[bool], option()] = False
    """Go on with the run in --out, with the settings it has."""
    device: Device = None


def starting_from(config: Config) -> TrainOptions:
    """Return the options that change nothing of these settings."""
    return TrainOptions(config=unbounded(config))


def first_settings(argv: Sequence[str]) -> Config:
    """Return the preset that the first word names; first-run if it names none."""
    return preset(argv[0] if argv and not argv[0].startswith("-") else FIRST)


def read_train_options(argv: Sequence[str]) -> TrainOptions:
    """Parse twice: first to learn the preset, or the run, whose settings are the second's defaults.

    A budget on the command line takes the place of the preset's, whatever its unit.
    """

    def over(base: Config) -> TrainOptions:
        return parse(TrainOptions, argv, "ddpm train", default=starting_from(base))

    base = first_settings(argv)
    options = over(base)
    if options.resume:
        if not options.out:
            raise UserError("--resume needs the folder of the run: --out RUN")
        from ..checkpoint.run_dir import check_trainable

        run = check_trainable(options.out, resume=True)
        if options.preset and run.is_run:
            raise UserError("--resume goes on with the run's own settings: leave out the preset")
        if run.is_run:  # else one was stopped there before it had written its settings
            base = settings_of(run)
            options = over(base)
    if options.preset and options.preset != argv[0]:
        base = preset(options.preset)
        options = over(base)
    config = options.config
    if config.steps is config.images is config.minutes is None:
        config = replace(config, steps=base.steps, images=base.images, minutes=base.minutes)
    return replace(options, config=config)


def settings_of(run: RunContents) -> Config:
    """Return the settings of a run: of its config.toml or, where that is gone, of a state."""
    if run.dir.config.is_file():
        return read_toml(run.dir.config)
    from ..training.state import read_state_header

    whole = [path for path in run.states if path not in run.damaged]
    path = whole[0] if whole else run.dir.state
    config = read_state_header(path).config
    log.info("%s is missing: going on with the settings in %s", run.dir.config, path)
    return config


def larger(config: Config) -> str:
    """Return what to type for a budget half as large again."""
    for name in ("minutes", "steps", "images"):
        if value := getattr(config, name):
            return f"give it a larger one, such as --{name} {1.5 * value:g}"
    return "give it a larger one"


def train(options: TrainOptions) -> int:
    require_data(options.config.data)
    if options.config.init and not options.resume:
        find_checkpoint(options.config.init)

    from ..training.train import train as train_run

    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not options.out:
        raise UserError("several processes need one folder: name it with --out RUN")
    out = Path(options.out or free_name(Path("runs", options.preset or FIRST)))
    result = train_run(options.config, out, device=options.device, resume=options.resume)
    if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
        return 0 if result.finished else 130
    if result.finished and math.isnan(result.loss):  # no step was taken
        say(f"{out} had come to the end of its budget: to go on, {larger(options.config)}")
        return 0
    minutes = result.seconds / 60
    say(f"{result.images_seen:,} images in {minutes:.1f} minutes, loss {result.loss:.4f}: {out}")
    if not result.finished:
        say(f"stopped at step {result.step:,}; go on with: ddpm train --out {out} --resume")
        return 130
    name = f"./{out}" if str(out) in PRETRAINED else out  # not the weights of that name
    say(f"samples are in {out / 'samples'}; for more: ddpm generate {name}")
    return 0
