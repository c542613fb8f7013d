"""The settings of a run: frozen dataclasses, checked by pydantic, written as TOML.

A preset is a TOML file in `presets/` with the settings that differ from the defaults here, or from
those of the preset that it is `like`. A run writes its whole config to `config.toml`.
"""

import os
import reprlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
import tyro
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from .core.types import (
    Conventions,
    SamplerName,
    ScheduleName,
    Spacing,
    Target,
    TimeSampling,
    Variance,
    Weight,
)
from .utils.errors import UserError, did_you_mean, printable
from .utils.files import atomic_write, read_text
from .utils.numbers import read_minutes

NAMED_SETS = ("mnist5k", "mnist", "fashion-mnist", "cifar10", "celeba")
ClassesFrom = Literal["auto", "folders", "names"]
STRICT = ConfigDict(extra="forbid")
MAX_BYTES = 16_000  # of a config's file, which has about a thousand
MAX_ERRORS = 20  # that a message lists one by one


def option(metavar: str | None = None, *short: str, help: str | None = None) -> Any:
    """Return how a field is shown as an option of the command line; its docstring is the help.

    `metavar` says what is wanted, `short` are other names such as -n. Defaults that are None, empty
    or False are not shown: the help says what they mean.
    """

    def hint(default: str) -> str:
        return "" if default in ("None", "", "''", "False") else f"(default: {default})"

    return tyro.conf.arg(metavar=metavar, aliases=short or None, help=help, help_behavior_hint=hint)


READ_MINUTES = tyro.constructors.PrimitiveConstructorSpec[Any](
    nargs=1, metavar="X", instance_from_str=lambda words: read_minutes(words[0]),
    is_instance=lambda value: isinstance(value, int | float),
    str_from_instance=lambda value: [str(value)],
)  # fmt: skip

Count = Annotated[int, Field(ge=1, lt=2**63)]
Few = Annotated[int, Field(ge=1, le=64)]
Width = Annotated[int, Field(ge=1, le=8192)]
Steps = Annotated[int, Field(ge=1, le=100_000)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
EpsScale = Annotated[float, Field(ge=0.5, le=2, allow_inf_nan=False)]
Below1 = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
Minutes = Annotated[Positive, READ_MINUTES]


@dataclass(frozen=True)
class UNetConfig:
    __pydantic_config__ = STRICT

    channels: Width = 128
    """Width of the first level."""
    mults: Annotated[tuple[Few, ...], Field(max_length=16)] = (1, 2, 2, 2)
    """Width of each level, as a multiple of `channels`; each level halves the resolution."""
    blocks: Few = 2
    """Residual blocks for each level."""
    attention: Annotated[tuple[Width, ...], Field(max_length=16)] = (2,)
    """Downsampling factors with self-attention: 2 is half of the image's resolution."""
    heads: Width = 1
    """Attention heads."""
    groups: Width = 32
    """Groups of the group norms."""
    patch: Few = 1
    """Fold patches of this side into channels (pixel unshuffle): faster, a little coarser."""
    fine: Annotated[int, Field(ge=0, le=8192)] = 0
    """Channels of an extra branch at full resolution, beside folded pixels; 0 for none."""
    dropout: Below1 = 0.0
    """Dropout in the residual blocks."""
    film: bool = True
    """Scale and shift by the embedding (adaptive group norm); off: add it, as DDPM does."""
    conventions: Conventions = "ddpm"
    """Whose padding, norm epsilon and timestep frequencies to follow, for imported weights."""


@dataclass(frozen=True)
class DiffusionConfig:
    __pydantic_config__ = STRICT

    schedule: ScheduleName = "cosine"
    """Noise schedule. Use the target F with edm, and u with flow."""
    T: Steps = 1000
    """Timesteps of the forward process."""
    target: Target = "v"
    """What the network predicts."""
    weight: Weight = "simple"
    """Weight of the loss over time."""
    gamma: Positive = 5.0
    """γ of min-snr."""
    min_weight: NonNegative = 0.0
    """Lower bound on min-snr's weight of errors of x_0: 0.5 keeps the noisiest times."""
    time_sampling: TimeSampling = "uniform"
    """How training samples its timesteps."""
    zero_snr: bool = False
    """Rescale to zero terminal SNR, so that x_T is pure noise; for the targets v, x0 and u."""
    sigma_data: Positive = 0.5
    """Standard deviation of the data (EDM's σ_data), for the target F."""
    learned_variance: bool = False
    """Also learn the variance of the reverse steps (Improved DDPM)."""


@dataclass(frozen=True)
class TrainConfig:
    __pydantic_config__ = STRICT

    batch: Count = 128
    """Images per optimizer step, over all processes and accumulated parts."""
    accumulate: Count = 1
    """Gradient accumulation: split each batch into this many parts, to save memory."""
    lr: Positive = 2e-4
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw; or muon for the hidden convolutions, and adamw for the rest."""
    momentum: Below1 = 0.95
    """Muon's momentum."""
    betas: tuple[Below1, Below1] = (0.9, 0.999)
    """AdamW's betas."""
    weight_decay: NonNegative = 0.0
    """AdamW's weight decay."""
    warmup: Whole = 0
    """Steps over which the learning rate rises from 0 to `lr`."""
    decay: Share = 0.0
    """Last share of the budget, over which the learning rate falls linearly."""
    final_lr: Share = 0.0
    """Learning rate at the end of `decay`, as a share of `lr`."""
    grad_clip: Positive = 1.0
    """Clip the gradient to this norm."""
    ema: Below1 = 0.9999
    """Decay of the exponential moving average (EMA) of the weights, after its warm-up."""
    augment: Share = 0.0
    """Mirror half, and apply each other geometric augmentation of EDM's at this rate, say 0.12."""
    label_drop: Share = 0.1
    """Probability of dropping the label, for classifier-free guidance."""
    precision: Literal["no", "fp16", "bf16"] = "no"
    """Mixed precision; no is plain float32, and so is bf16 where the device has none."""
    compile: bool = False
    """Use torch.compile: the first step takes minutes on a GPU, later ones are faster."""
    log_every: Count = 10
    """Steps between lines of metrics.jsonl."""
    save_minutes: Minutes = 5.0
    """Minutes between checkpoints."""
    sample_minutes: Minutes = 10.0
    """Minutes between grids of samples."""
    score_minutes: Annotated[NonNegative, READ_MINUTES, option(None, "--score-every")] = 0.0
    """Minutes between scores of 500 samples, whose best is in best.safetensors; 0 for none."""


@dataclass(frozen=True)
class SampleConfig:
    __pydantic_config__ = STRICT

    sampler: SamplerName = "ddim"
    """Sampling method."""
    steps: Count = 50
    """Sampling steps."""
    spacing: Spacing = "even"
    """Spacing of the steps over time."""
    sigma_min: NonNegative = 0.0
    """Smallest σ before the last step, which leads to x_0; for the spacings rho and log-snr."""
    eta: Share = 0.0
    """Noise that ddim adds in each step: 0 none, 1 as much as ddpm."""
    variance: Variance = "beta-tilde"
    """Variance of the noise that ddpm adds."""
    eps_scale: EpsScale = 1.0
    """Divide the predicted noise by this (epsilon scaling): 1.01 keeps contrast and texture."""
    churn: NonNegative = 0.0
    """Noise added back before each step (EDM's S_churn); not in inpainting."""
    guidance: NonNegative = 1.0
    """Guidance scale, classifier-free or by a guide (autoguidance): 1 is none."""
    guidance_above: Share = 0.0
    """Guide only at times above this share of T: below, it costs time and helps little."""
    guidance_below: Share = 1.0
    """Guide only at times up to this share of T: above, it makes images of a class alike."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision; no is plain float32, and so is bf16 where the device has none."""


@dataclass(frozen=True)
class Config:
    __pydantic_config__ = STRICT

    data: Annotated[str, option("DATA")] = "mnist5k"
    """mnist5k, mnist, fashion-mnist, cifar10, celeba; a folder, zip or npz of images; or
    hf:OWNER/NAME, from the Hugging Face hub."""
    size: Annotated[tuple[Width, ...], option("N [N]")] = ()
    """Crop and resize to this: one number, or height and width. By default arrays, and files of one
    size up to 128, keep theirs; other files become 64x64."""
    minutes: Annotated[Minutes | None, option("TIME", "-m")] = None
    """Budget: minutes of this machine, or 30s, 1.5h."""
    steps: Annotated[Count | None, option("N")] = None
    """Budget: optimizer steps."""
    images: Annotated[Count | None, option("N")] = None
    """Budget: training images, counted each time they are seen."""
    flip: bool = False
    """Mirror half of the images, left to right. Never for digits."""
    init: Annotated[str, option("WEIGHTS")] = ""
    """Start from the weights and the network of a run, a file, bundled weights or diffusers."""
    seed: Annotated[Seed, option("N", "-s")] = 0
    """Seed of everything random in the run."""
    root: Annotated[str, option("FOLDER")] = "data"
    """Folder of the named data sets; they are downloaded to it."""
    channels: Annotated[Literal[1, 3, 4] | None, option()] = None
    """1 gray, 3 colour, 4 with transparency. By default those of the images, on the background."""
    background: Annotated[str, option("COLOUR")] = "white"
    """Background of transparent images: the name of a colour, or #rrggbb."""
    labels: bool = True
    """Learn the classes, where the data have them."""
    classes_from: Annotated[ClassesFrom, option()] = "auto"
    """Where classes of image files come from: auto is a table beside them (dataset.json,
    labels.csv) or else folders; names is the start of a file's name, cat of cat_001.png."""
    held_out: Whole = 256
    """Images held out of training, one in 20 at most, for the loss in held-out.jsonl."""
    track: Annotated[Literal["tensorboard", "wandb", "mlflow"] | None, option()] = None
    """Send curves, scores and grids there too; its package has to be installed."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    @property
    def budget(self) -> "Budget":
        """Raise UserError where there is not exactly one budget."""
        return Budget(self.steps, self.images, self.minutes, self.train.batch)


@dataclass(frozen=True)
class Budget:
    """How long a run trains: so many steps, images or minutes. Exactly one of them is given."""

    steps: int | None
    images: int | None
    minutes: float | None
    batch: int

    def __post_init__(self) -> None:
        if sum(b is not None for b in (self.steps, self.images, self.minutes)) != 1:
            raise UserError("a run needs one budget: --minutes, --steps or --images")

    def progress(self, step: int, seconds: float, last: float = 0.0) -> float:
        """Return the share of the budget that is spent; 1 and more is all of it. Of minutes, up to
        half may be kept for the `last` seconds, which belong to what comes after training."""
        if self.steps:
            return step / self.steps
        if self.images:
            return step * self.batch / self.images
        assert self.minutes
        return seconds / (60 * self.minutes - min(last, 30 * self.minutes))

    def time_left(self, images_seen: int, seconds: float, rate: float) -> float:
        """Return the seconds to the end of the budget at `rate` images a second."""
        if self.minutes:
            return max(0.0, 60 * self.minutes - seconds)
        total = self.images or (self.steps or 0) * self.batch
        return max(0, total - images_seen) / rate


@dataclass(frozen=True)
class DataInfo:
    """What a checkpoint must know of the images it was trained on."""

    source: str
    count: Count
    channels: Width
    height: Width
    width: Width
    classes: tuple[str, ...]
    fingerprint: str
    scale: tuple[float, float] | None = None  # the numbers of the files that are black and white
    preprocessing: str = "uint8 u -> u / 127.5 - 1"

    def __post_init__(self) -> None:  # they are shown in messages and pages
        object.__setattr__(self, "source", printable(self.source))
        object.__setattr__(self, "classes", tuple(map(printable, self.classes)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.channels, self.height, self.width


T = TypeVar("T")


def validated(kind: type[T], value: Any, where: str = "") -> T:
    """Return `value`, nested tables, as a dataclass of that kind.

    Raise UserError for an unknown name or an invalid value; its text begins with `where`.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}" if where else explain(error)) from None


def checked(options: T) -> T:
    """Return a dataclass, its types and ranges checked. Raise UserError for an invalid value."""
    return validated(type(options), asdict(options))  # type: ignore[call-overload]


def explain(error: ValidationError) -> str:
    """Return a pydantic error as a sentence: which entry, what is wrong, and what was given."""
    if error.error_count() > MAX_ERRORS:
        return f"{error.error_count():,} entries are unknown or invalid"
    parts = []
    for e in error.errors():
        where = ".".join(str(part) for part in e["loc"] if part != "config")
        given = "" if isinstance(e["input"], Mapping) else f", not {short(e['input'])}"
        text = e["msg"].removeprefix("Input ").removeprefix("Value error, ")
        parts.append(f"{where} {text}{given}" if where else text)
    return "; ".join(parts)


def short(value: Any) -> str:
    """Return the repr of a value, with long and deeply nested parts left out."""
    writer = reprlib.Repr()
    writer.maxstring = writer.maxother = 100
    try:
        return writer.repr(value)
    except ValueError:  # Python refuses to convert an int of more than 4,300 digits
        return "a number of thousands of digits"


def to_dict(config: Config) -> dict[str, Any]:
    """Return nested tables of plain values, without those that are None: TOML has no null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if v is not None}
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    return plain(asdict(config))


def renamed(table: Any) -> Any:
    """Return the table of a config with current names for earlier ones, and without settings that
    no longer exist."""
    if not isinstance(table, dict):
        return table
    table = dict(table)
    if isinstance(diffusion := table.get("diffusion"), dict):
        table["diffusion"] = {"min_weight" if k == "floor" else k: diffusion[k] for k in diffusion}
    if isinstance(train := table.get("train"), dict):
        table["train"] = {k: train[k] for k in train if k != "shard"}
    return table


def read_toml(path: Path) -> Config:
    """Return the Config in a file such as a run's. Raise UserError for none, or an invalid one."""
    try:
        table = tomllib.loads(read_text(path, MAX_BYTES))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except RecursionError:
        raise UserError(f"{path} cannot be read as TOML: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as TOML: {error}") from None
    return validated(Config, renamed(table), str(path))


def write_toml(config: Config, path: Path) -> None:
    """Write a config. A file that has the same settings is left as it is, with its comments."""
    try:
        if path.exists() and read_toml(path) == config:
            return
        with atomic_write(path) as beside:
            beside.write_text(tomli_w.dumps(to_dict(config)), encoding="utf-8")
    except UnicodeEncodeError:
        names = f"{config.data!r} or {config.root!r}"
        raise UserError(f"{names} is not valid text: rename it") from None


def presets() -> list[str]:
    """Return the names of the presets, sorted."""
    files = resources.files(__package__).joinpath("presets").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def preset(name: str) -> Config:
    """Return the preset of that name. Raise UserError where there is none."""
    if name not in presets():
        if os.path.exists(name) or name in NAMED_SETS:
            raise UserError(f"{name} is not a preset: images are given by --data {name}")
        there_are = f"there is no preset {name!r}; there are {', '.join(presets())}"
        raise UserError(there_are + did_you_mean(name, presets()))
    return validated(Config, preset_table(name), f"preset {name}")


def preset_table(name: str) -> dict[str, Any]:
    """Return what the file of a preset says, over what the one says that it is `like`."""
    text = resources.files(__package__).joinpath("presets", f"{name}.toml").read_text("utf-8")
    own = tomllib.loads(text)
    table = preset_table(own.pop("like")) if "like" in own else {}
    parts = {k: table.get(k, {}) | v for k, v in own.items() if isinstance(v, dict)}
    return table | own | parts
