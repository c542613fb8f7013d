"""`ddpm train`: a run, from the settings of a preset or of the run itself."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from ..checkpoint.header import PRETRAINED, Header, header_of
from ..checkpoint.run_dir import RunContents, RunDir, check_trainable, find_checkpoint
from ..config import Config, option, preset, presets, read_toml
from ..data.names import require_data
from ..utils.errors import UserError, counted
from ..utils.files import free_name
from .common import Device, check_effective, device_for, parse, say

DEFAULT_PRESET = "first-run"
OPTIMIZER = ("optimizer", "lr", "momentum", "betas", "weight_decay")

log = logging.getLogger(__name__)


def without_budget(config: Config) -> Config:
    """Return the settings without their budget."""
    return replace(config, steps=None, images=None, minutes=None)


@dataclass(frozen=True)
class TrainOptions:
    """Train a diffusion model on images, and leave everything in a run's folder.

    The preset sets all options below; give any of them to change it. Of --minutes, --steps and
    --images give one. Ctrl-C saves and ends; --resume with --out goes on.
    """

    config: Annotated[Config, arg(name="")] = field(
        default_factory=lambda: without_budget(preset(DEFAULT_PRESET))
    )
    preset: Annotated[
        Positional[str | None],
        option("[PRESET]", help=f"The settings to start from: {', '.join(presets())}, or a run's "
               f"folder. By default {DEFAULT_PRESET}, or for --data what suits the images."),
    ] = None  # fmt: skip
    file: Annotated[str | None, arg(name="config", metavar="FILE", help_behavior_hint="")] = None
    """Start from the settings in this config.toml: a run's repeats that run."""
    out: Annotated[str | None, option("FOLDER", "-o")] = None
    """Folder of the run. By default runs/PRESET, with a number where that is taken."""
    resume: Annotated[FlagCreatePairsOff[bool], option()] = False
    """Resume the run in --out, with its own settings."""
    device: Device = None


def starting_from(config: Config) -> TrainOptions:
    """Return the options that change nothing of these settings."""
    return TrainOptions(config=without_budget(config))


def first_settings(argv: Sequence[str]) -> Config:
    """Return the settings that the first word names; first-run if it names none."""
    return settings_named(argv[0] if argv and not argv[0].startswith("-") else DEFAULT_PRESET)


def settings_named(name: str) -> Config:
    """Return the settings of a preset, of a run's folder, or in a .toml file. Raise UserError
    where there is none such."""
    config = RunDir(Path(name)).config
    if name in presets():
        return preset(name)
    if os.path.isfile(config):  # False even for names that no file can have
        return read_toml(config)
    return read_toml(Path(name)) if name.endswith(".toml") else preset(name)


def settings_of_weights(name: str) -> Config:
    """Return what the checkpoint of that name says of its settings: one of ours is told without
    torch. Raise UserError where there is none."""
    try:
        return header_of(find_checkpoint(name), Header).config
    except UserError:
        if not Path(name).exists():
            raise
    from ..checkpoint.foreign import load_any  # of another program, or damaged

    return load_any(name).config


def with_schedule_of(chosen: Config, weights: Config) -> Config:
    """Return the settings of weights with the batches, the warm-up, the precision and the dropout
    that were chosen for other images and this device; the optimizer and its rate suit the network.
    """
    own = {name: getattr(weights.train, name) for name in OPTIMIZER}
    dropout = max(weights.unet.dropout, chosen.unet.dropout)
    return replace(
        weights, train=replace(chosen.train, **own), unet=replace(weights.unet, dropout=dropout)
    )


def read_train_options(argv: Sequence[str]) -> TrainOptions:
    """Parse once for what names the settings to begin with, a preset, a run or a file, and again
    with these as defaults; then once more where weights are named, whose network is meant, or where
    settings are chosen for the images. With both, the network is that of the weights.

    A budget on the command line takes the place of the preset's, whatever its unit.
    """

    def parse_with_defaults(base: Config) -> TrainOptions:
        return parse(TrainOptions, argv, "ddpm train", default=starting_from(base))

    base = first = first_settings(argv)
    options = parse_with_defaults(base)
    name = options.file or options.preset
    if options.file and options.preset:
        raise UserError("settings begin with a preset or with a --config: name one of them")
    resumed = options.resume and run_to_resume(options)
    if resumed:
        base = read_run_settings(resumed)
    elif options.file or name and name != argv[0]:
        base = settings_named(str(name))
    options = options if base is first else parse_with_defaults(base)
    if options.config.init not in ("", base.init) and not resumed:
        weights, chosen = settings_of_weights(options.config.init), options.preset
        if name:
            weights = replace(weights, train=base.train)
        elif options.config.data != base.data:
            chosen, base = choose_settings(options)
            weights = with_schedule_of(base, weights)
            log.info("but network, process and optimizer are those of %s", options.config.init)
        base = replace(
            base, unet=weights.unet, diffusion=weights.diffusion, sample=weights.sample,
            train=weights.train,
        )  # fmt: skip
        options = replace(parse_with_defaults(base), preset=chosen)
    elif not name and not resumed and options.config.data != base.data:
        if describes_network(options.config, base):
            log.info(f"as you describe the network, all else is as in {DEFAULT_PRESET}, or in a "
                     f"preset that you name")  # fmt: skip
        else:
            chosen, base = choose_settings(options)
            options = replace(parse_with_defaults(base), preset=chosen)
    config = options.config
    own, asked = asdict(base.sample), asdict(config.sample)
    typed = {name for name in own if asked[name] != own[name]}
    check_effective(config.sample, typed, config.diffusion.learned_variance, "--sample.")
    if config.steps is config.images is config.minutes is None:
        config = replace(config, steps=base.steps, images=base.images, minutes=base.minutes)
    return replace(options, config=config)


def describes_network(config: Config, first: Config) -> bool:
    """Return whether somebody has begun to describe a network of their own."""
    return replace(config.unet, dropout=first.unet.dropout) != first.unet


def choose_settings(options: TrainOptions) -> tuple[str, Config]:
    """Return the preset that is chosen for the images, and its settings; a note says why."""
    require_data(options.config.data)
    if options.out:
        check_trainable(options.out, options.resume)
    device = device_for(options.device)
    from ..training.choice import choose_preset
    from ..training.train import read_images

    name, config, why = choose_preset(read_images(options.config), device)
    log.info(why)
    return name, replace(config, data=options.config.data)


def read_run_settings(run: RunContents) -> Config:
    """Return the settings of a run: of its config.toml or, where that is gone, of a state."""
    if run.dir.config.is_file():
        return read_toml(run.dir.config)
    from ..training.state import StateHeader

    whole = [path for path in run.states if path not in run.damaged]
    path = whole[0] if whole else run.dir.state
    config = header_of(path, StateHeader).config
    log.info("%s is missing: going on with the settings in %s", run.dir.config, path)
    return config


def larger_budget(config: Config) -> str:
    """Return what to type for a budget half as large again."""
    if config.minutes:
        return f"give it a larger one, such as --minutes {1.5 * config.minutes:g}"
    name, value = ("steps", config.steps) if config.steps else ("images", config.images or 0)
    return f"give it a larger one, such as --{name} {math.ceil(1.5 * value)}"


def run_to_resume(options: TrainOptions) -> RunContents | None:
    """Return the run in --out; None where it was stopped before it had written its settings."""
    if not options.out:
        raise UserError("--resume needs the folder of the run: --out RUN")
    run = check_trainable(options.out, resume=True)
    if run.is_run and (options.file or options.preset):
        raise UserError("--resume goes on with the run's own settings: leave out any others")
    return run if run.is_run else None


def default_out(options: TrainOptions) -> Path:
    """Return the folder of a run that has been given none: by the name of its settings."""
    path = Path(os.path.abspath(options.file or options.preset or DEFAULT_PRESET))
    name = path.parent.name if path.name == "config.toml" else path.name.removesuffix(".toml")
    return free_name(Path("runs", name))


def train(options: TrainOptions) -> int:
    require_data(options.config.data)
    if options.config.init and not options.resume and not Path(options.config.init).exists():
        find_checkpoint(options.config.init)

    from ..training.train import train as train_run

    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not options.out:
        raise UserError("several processes need one folder: name it with --out RUN")
    out = Path(options.out or default_out(options))
    result = train_run(options.config, out, device=options.device, resume=options.resume)
    if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
        return 0 if result.finished else 130
    if result.finished and math.isnan(result.loss):  # no step was taken
        say(f"{out} has used its budget: to go on, {larger_budget(options.config)}")
        return 0
    minutes = result.seconds / 60
    seen = counted(result.images_seen, "image")
    say(f"{seen} in {minutes:.1f} minutes, loss {result.loss:.4f}: {out}")
    if not result.finished:
        say(f"stopped at step {result.step:,}; go on with: ddpm train --out {out} --resume")
        return 130
    name = f"./{out}" if str(out) in PRETRAINED else out  # not the weights of that name
    say(f"samples are in {out / 'samples'}; for more: ddpm generate {name}")
    return 0
