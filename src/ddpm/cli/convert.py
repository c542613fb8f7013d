"""`ddpm convert`: checkpoints to the formats of other libraries, and from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from ..config import option
from ..utils.errors import UserError
from .common import check_file, say

if TYPE_CHECKING:
    from ..checkpoint.checkpoint import Checkpoint


@dataclass(frozen=True)
class ConvertOptions:
    """Write a checkpoint as a folder that diffusers loads, or read such a folder.

    diffusers itself is not needed. The outputs of both are equal, to rounding.
    """

    source: Annotated[Positional[str], option("SOURCE")]
    """A run's folder or a .safetensors file, to be written for diffusers; or a folder of theirs."""
    out: Annotated[Positional[str], option("OUT")]
    """A new folder for diffusers; or a new .safetensors file."""


def convert(options: ConvertOptions) -> int:
    from ..checkpoint.checkpoint import load
    from ..checkpoint.diffusers import is_diffusers, read_diffusers

    source, out = Path(options.source), Path(options.out)
    if is_diffusers(source):
        check_checkpoint(out)
        keep(read_diffusers(source), out)
    else:
        give(load(options.source), out)
    return 0


def check_checkpoint(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise UserError(f"{out} will be a checkpoint of ours: end it in .safetensors")
    check_file(out, overwrite=False)


def keep(c: "Checkpoint", out: Path) -> None:
    """Write a checkpoint that was read from elsewhere as one of ours."""
    from ..checkpoint.checkpoint import save

    save(out, c.net, c.config, c.data, c.step, c.images_seen, weights=c.weights)
    say(f"{out}: try ddpm generate {out}")


def give(checkpoint: "Checkpoint", out: Path) -> None:
    """Write a checkpoint of ours for elsewhere."""
    from ..checkpoint.diffusers import write_diffusers

    trust = ", trust_remote_code=True" if write_diffusers(checkpoint, out) else ""
    say(f"{out}: try diffusers.DiffusionPipeline.from_pretrained({str(out)!r}{trust})")
    if trust:
        say(
            "its network or its classes are not among those of diffusers, so that the folder has "
            "code of its own, pipeline.py, with its sampler's settings"
        )
