"""`ddpm convert`: checkpoints to the format of diffusers, and back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from ..config import option
from ..utils.errors import UserError
from .common import check_file, say


@dataclass(frozen=True)
class ConvertOptions:
    """Write a checkpoint as a folder that diffusers loads as a DDPMPipeline, or read such a folder.

    diffusers itself is not needed. The outputs of both are equal, to rounding.
    """

    source: Annotated[Positional[str], option("SOURCE")]
    """A run's folder or a .safetensors file, to be written for diffusers; or a folder of theirs."""
    out: Annotated[Positional[str], option("OUT")]
    """A new folder for diffusers; or a new .safetensors file."""


def convert(options: ConvertOptions) -> int:
    from ..checkpoint.checkpoint import load, save
    from ..checkpoint.diffusers import is_diffusers, read_diffusers, write_diffusers

    source, out = Path(options.source), Path(options.out)
    if is_diffusers(source):
        if out.suffix != ".safetensors":
            raise UserError(f"{out} will be a checkpoint of ours: end it in .safetensors")
        check_file(out, overwrite=False)
        c = read_diffusers(source)
        save(out, c.net, c.config, c.data, c.step, c.images_seen, weights=c.weights)
        say(f"{out}: try ddpm generate {out}")
        return 0
    checkpoint = load(options.source)
    write_diffusers(checkpoint, out)
    say(f"{out}: try diffusers.DDPMPipeline.from_pretrained({str(out)!r})")
    if classes := checkpoint.data.classes:
        say(
            f"the pipeline gives its network no classes: call its .unet with class_labels, "
            f"{len(classes)} for no class"
        )
    return 0
