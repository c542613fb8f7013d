"""How images are asked for, checked before torch is imported: settings, classes, endings."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias
from unicodedata import normalize

from ..config import SampleConfig
from ..utils.errors import UserError, did_you_mean, printable

ANIMATIONS = (".gif", ".webp")
ENDINGS = (".png", ".jpg", ".jpeg", ".npz", *ANIMATIONS)
MAX_OWN_STEPS = 1000  # that a checkpoint may ask for, if nobody else does

ACT_WITH = {  # settings that act beside some values of another alone
    "eta": ("sampler", "ddim"), "variance": ("sampler", "ddpm"),
    "sigma_min": ("spacing", "rho", "log-snr"),
}  # fmt: skip

Labels: TypeAlias = str | int | Sequence[str | int]
"""One class, or several, by name or number."""


def with_options(settings: SampleConfig, **options: object) -> SampleConfig:
    """Return the settings with those options that are not None."""
    return replace(settings, **{k: v for k, v in options.items() if v is not None})  # type: ignore[arg-type]


def ineffective_settings(settings: Mapping[str, object]) -> set[str]:
    """Return which settings of a sampler, of those in a table of all, change nothing beside the
    others."""
    idle = {name for name, (of, *values) in ACT_WITH.items() if settings.get(of) not in values}
    return idle | ({"guidance_above", "guidance_below"} if settings.get("guidance") == 1 else set())


def own_settings(settings: SampleConfig) -> SampleConfig:
    """Return the settings that a checkpoint holds. Raise UserError where these ask for so many
    steps that a person should."""
    if settings.steps > MAX_OWN_STEPS:
        raise UserError(
            f"this checkpoint asks for {settings.steps:,} steps an image: say how many it may "
            f"take, such as --steps 50"
        )
    return settings


def check_steps(settings: SampleConfig, T: int) -> None:
    """Raise UserError for more steps than the T times of the diffusion."""
    if settings.steps > T:
        raise UserError(
            f"{settings.steps} steps are more than the {T} that this network was "
            f"trained with: choose --steps from 1 to {T}"
        )


def check_guidance(settings: SampleConfig, guide: bool) -> None:
    """Raise UserError for guidance at no time at all and, where there is a guide, towards it."""
    above, below, scale = settings.guidance_above, settings.guidance_below, settings.guidance
    if scale == 1 or scale == 0 and not guide:  # plain, and without a class, at all times
        return
    if above >= below:
        raise UserError(
            f"guidance at times above {above:g} and up to {below:g} of T is at none: let it begin "
            f"lower (guidance_above) or end higher (guidance_below), or leave it out (guidance 1)"
        )
    if guide and scale < 1:
        raise UserError(
            f"guidance {scale:g} would be towards the weaker network, the guide: give more than 1, "
            f"or 1 to leave it out"
        )


def as_list(labels: Labels) -> list[str | int]:
    """Return the labels as a list, one alone too."""
    return [labels] if isinstance(labels, str | int) else list(labels)


def class_indices(labels: Labels, classes: tuple[str, ...]) -> list[int]:
    """Return the numbers of the classes, given by names or numbers. Raise UserError for one that
    there is not."""
    names = as_list(labels)
    if names and not classes:
        raise UserError("this checkpoint was trained without classes, so no label can be asked")
    return [class_index(name, classes) for name in names]


def class_index(name: str | int, classes: tuple[str, ...]) -> int:
    """Return the number of a class, given by its name (which goes first) or by its number; where
    all names are numbers, such as 01, by these alone.

    Raise UserError where there is none such.
    """
    wanted = printable(str(name))
    if wanted in classes:
        return classes.index(wanted)
    same = normalize("NFC", wanted)
    if alike := [i for i, c in enumerate(classes) if normalize("NFC", c) == same]:
        return alike[0]
    if wanted.isdecimal() and len(wanted) < 10:
        if not all(re.fullmatch(r"-?\d{1,20}", c) for c in classes):
            places = [int(wanted)] * (int(wanted) < len(classes))
        else:
            places = [i for i, c in enumerate(classes) if int(c) == int(wanted)]
        if len(places) == 1:
            return places[0]
    shown = ", ".join(classes[:20]) + (" …" if len(classes) > 20 else "")
    raise UserError(
        f"there is no class {name!r}; there are {len(classes)}: {shown}"
        f"{did_you_mean(str(name), classes)}"
    )


def images_in_grid(path: Path) -> int:
    """Return of how many images a picture of ours is a grid; 1 for any other file."""
    if not path.is_file():  # opening a pipe would wait for whoever writes to it
        return 1
    with path.open("rb") as file:
        found = re.search(rb'"images": (\d{1,9}), "columns": ', file.read(100_000))
    return int(found[1]) if found else 1
