"""`ddpm convert`: checkpoints to the formats of other libraries, and from them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from ..checkpoint.header import FOREIGN, PRETRAINED
from ..checkpoint.run_dir import find_checkpoint
from ..config import Steps, Width, option
from ..core.types import ScheduleName, Target
from ..utils.errors import UserError
from .common import check_file, say

if TYPE_CHECKING:
    from ..checkpoint.checkpoint import Checkpoint


@dataclass(frozen=True)
class ConvertOptions:
    """Write a checkpoint for other programs, or read one of theirs.

    What is written: for OUT, a folder that diffusers loads; for OUT.onnx, the network alone as ONNX
    (pip install "ddpm-from-scratch[onnx]"). What is read, into OUT.safetensors: a folder of
    diffusers, and a .pt file of improved-diffusion or pytorch-ddpm. Outputs are equal, to rounding.
    """

    source: Annotated[Positional[str], option("SOURCE")]
    """A run's folder, a .safetensors file or bundled weights; or what is to be read."""
    out: Annotated[Positional[str], option("OUT")]
    """A new folder, a new .onnx file, or a new .safetensors file."""
    size: Annotated[tuple[Width, ...], option("N [N]")] = ()
    """Of a .pt file, which does not say it: the size of its images, or height and width."""
    heads: Annotated[Width | None, option("N")] = None
    """Of a .pt file: its attention heads. By default 4, as of improved-diffusion's."""
    schedule: Annotated[ScheduleName | None, option()] = None
    """Of a .pt file: its noise schedule. By default linear."""
    T: Annotated[Steps | None, option("N")] = None
    """Of a .pt file: its diffusion steps. By default 1000; others for cosine alone."""
    target: Annotated[Target | None, option()] = None
    """Of a .pt file: what its network predicts. By default eps."""


def convert(options: ConvertOptions) -> int:
    if not os.path.exists(options.source):
        find_checkpoint(options.source)

    from ..checkpoint.checkpoint import load
    from ..checkpoint.diffusers import read_diffusers
    from ..checkpoint.foreign import Recipe, holds_diffusers_alone, is_foreign, read_foreign

    source, out = Path(options.source), Path(options.out)
    ours = options.source in PRETRAINED  # whatever lies here by that name
    recipe = {name: getattr(options, name) for name in ("heads", "schedule", "T", "target")}
    if not ours and is_foreign(source):
        check_checkpoint(out)
        keep(read_foreign(source, Recipe(options.size, **recipe)), out)
        return 0
    for name, value in {"size": options.size or None, **recipe}.items():
        if value is not None:
            raise UserError(f"--{name} is for a .pt file, and {source} is none: leave it out")
    if not ours and holds_diffusers_alone(source):
        check_checkpoint(out)
        keep(read_diffusers(source), out)
    else:
        give(load(options.source), out)
    return 0


def check_checkpoint(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise UserError(f"{out} will be a checkpoint of ours: end it in .safetensors")
    check_file(out)


def keep(c: "Checkpoint", out: Path) -> None:
    """Write a checkpoint that was read from elsewhere as one of ours."""
    from ..checkpoint.checkpoint import save

    save(out, c.net, c.config, c.data, c.step, c.images_seen, weights=c.weights)
    say(f"{out}: try ddpm generate {out}")


def give(checkpoint: "Checkpoint", out: Path) -> None:
    """Write a checkpoint of ours for elsewhere."""
    from ..checkpoint.diffusers import write_diffusers

    if out.suffix.lower() in (".safetensors", *FOREIGN):
        raise UserError(
            f"{out} would be a file of weights, which a checkpoint of ours is already: give a "
            f"folder, for diffusers, or a file that ends in .onnx"
        )
    if out.suffix.lower() == ".onnx":
        from ..checkpoint.onnx import write_onnx

        write_onnx(checkpoint, check_file(out))
        say(f"{out}: try onnxruntime.InferenceSession({str(out)!r})")
        return
    trust = ", trust_remote_code=True" if write_diffusers(checkpoint, out) else ""
    say(f"{out}: try diffusers.DiffusionPipeline.from_pretrained({str(out)!r}{trust})")
    if trust:
        say(
            "its network, classes or process are not among those of diffusers: the folder has "
            "code of its own, pipeline.py, with its sampler's settings"
        )
