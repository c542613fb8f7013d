"""The page's requests, checked: whatever else is sent is refused in a sentence."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar

from pydantic import Field

from ..checkpoint.checkpoint import Checkpoint
from ..config import STRICT, EpsScale, SampleConfig, Share, validated
from ..core.types import SamplerName, Spacing
from ..generation.settings import check_guidance, with_options
from ..utils.errors import UserError

T = TypeVar("T")
MAX_IMAGES = 64
MAX_STEPS = 1000
MAX_SEED = 2**53 - 1  # of a number in JavaScript
MAX_FRAMES = 64  # of a film that is to be made into a file
MAX_PHOTOS = 400  # to train on
MAX_MINUTES = 10.0  # of training, begun from the page

Class = Annotated[str, Field(max_length=200)] | None
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Few = Annotated[int, Field(ge=0, le=10_000)]
Text = Annotated[str, Field(max_length=200)]


@dataclass(frozen=True)
class Picture:
    """An image to begin with: an example by its number, or a data URI of the visitor's."""

    __pydantic_config__ = STRICT

    example: Few = 0
    data: str = ""
    name: Text = "your picture"


@dataclass(frozen=True)
class Settings:
    """What of SampleConfig the visitor has chosen; None: as the network was trained to be
    sampled."""

    __pydantic_config__ = STRICT

    sampler: SamplerName | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    spacing: Spacing | None = None
    sigma_min: Annotated[float, Field(ge=0, le=1)] | None = None
    eta: Share | None = None
    eps_scale: EpsScale | None = None
    guidance: Annotated[float, Field(ge=0, le=20)] | None = None
    guidance_above: Share | None = None
    guidance_below: Share | None = None


@dataclass(frozen=True)
class Fork:
    """Until step `step` another class and another guidance were asked for."""

    __pydantic_config__ = STRICT

    step: Annotated[int, Field(ge=0, le=MAX_STEPS)]
    label: Class = ""
    guidance: Annotated[float, Field(ge=0, le=20)] | None = None


@dataclass(frozen=True)
class Between:
    """Images between the noises of four seeds, which are the corners of a square: each at (u, v),
    from (0, 0), the first, over (1, 0) and (0, 1) to (1, 1), the last."""

    __pydantic_config__ = STRICT

    seeds: tuple[Seed, Seed, Seed, Seed]
    at: Annotated[tuple[tuple[Share, Share], ...], Field(min_length=1, max_length=MAX_IMAGES)]


@dataclass(frozen=True)
class SampleRequest:
    """Images out of noise, or out of what is given.

    label    a class; "": all in turn; None: no class is asked for
    picture  to make variations of, by `strength`; or to be painted anew where `mask` is opaque
    """

    __pydantic_config__ = STRICT

    model: Text
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    seed: Seed = 0
    label: Class = ""
    settings: Settings = field(default_factory=Settings)
    fork: Fork | None = None
    between: Between | None = None
    picture: Picture | None = None
    strength: Annotated[float, Field(gt=0, le=1)] = 0.6
    mask: str | None = None
    rounds: Annotated[int, Field(ge=1, le=20)] = 5


@dataclass(frozen=True)
class WhiteboardRequest:
    """An image at time t, and its noise by `seed`; of pixel (x, y) all numbers, where one is
    asked."""

    __pydantic_config__ = STRICT

    model: Text
    picture: Picture = field(default_factory=Picture)
    t: Annotated[int, Field(ge=0, le=10**6)] = 1
    seed: Seed = 0
    pixel: tuple[Few, Few] | None = None


@dataclass(frozen=True)
class PictureRequest:
    """A picture as a network takes it."""

    __pydantic_config__ = STRICT

    model: Text
    picture: Picture = field(default_factory=Picture)


@dataclass(frozen=True)
class FramesRequest:
    """The frames of a film, each the data URI of a PNG, for a file or for the classifier."""

    __pydantic_config__ = STRICT

    frames: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_FRAMES)]
    kind: Annotated[str, Field(pattern="^(gif|webp)$")] = "gif"
    model: Text = ""


@dataclass(frozen=True)
class RunRequest:
    """A run in the folder of runs; `seen` is the version of it that the page shows."""

    __pydantic_config__ = STRICT

    name: Text = ""
    seen: Text = ""


@dataclass(frozen=True)
class StartRequest:
    """A run to be begun: of a set by name, or of the visitor's photos, PNGs as data URIs, each
    with the name of its class, or of none."""

    __pydantic_config__ = STRICT

    minutes: Annotated[float, Field(gt=0, le=MAX_MINUTES)]
    data: Text = "mnist5k"
    photos: Annotated[tuple[str, ...], Field(max_length=MAX_PHOTOS)] = ()
    labels: Annotated[tuple[Text, ...], Field(max_length=MAX_PHOTOS)] = ()


def sample_config(checkpoint: Checkpoint, request: SampleRequest) -> SampleConfig:
    """Return the checkpoint's settings with the visitor's choices, steps limited to T.

    Raise UserError for a choice out of range.
    """
    chosen = with_options(checkpoint.config.sample, **vars(request.settings))
    if request.label is None and checkpoint.guide is None:
        chosen = replace(chosen, guidance=0.0)
    steps = min(chosen.steps, MAX_STEPS, checkpoint.diffusion.T)
    check_guidance(chosen, guide=checkpoint.guide is not None)
    return validated(SampleConfig, vars(replace(chosen, steps=steps)))


def read(kind: type[T], value: Any) -> T:
    """Return what was sent as a dataclass of that kind. Raise UserError for anything else."""
    if not isinstance(value, dict):
        raise UserError("this request could not be understood: load the page anew")
    return validated(kind, value)
