"""`ddpm generate`: images out of noise."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction

from ..config import Count, DataInfo, Few, Seed, option
from ..generation.settings import ANIMATIONS, ENDINGS, images_in_grid
from ..utils.errors import UserError, counted
from ..utils.files import free_name, is_occupied, require_writable
from .common import (
    Overwrite,
    SamplingOptions,
    check_file,
    device_for,
    note_of_average,
    require_files,
    sampling_settings,
    say,
    steps_bar,
)

if TYPE_CHECKING:
    from ..generation.generate import Edit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerateOptions(SamplingOptions):
    """Generate images from noise, with a run's weights or with bundled ones.

    Image number i follows from the checkpoint, its label, these settings, the seed and i.
    """

    checkpoint: Annotated[Positional[str], option("[CHECKPOINT]")] = "mnist"
    """A run's folder, a .safetensors file, or the name of bundled weights: mnist, cifar10 or
    celeba64."""
    n: Annotated[Count, option("N", "-n")] = 16
    """How many images."""
    out: Annotated[str | None, option("PATH", "-o")] = None
    """x.png or x.jpg: a grid. x.gif or x.webp: an animation of the sampling. x.npz: an array, with
    labels. x, without an ending: a folder of single PNGs by class, and a manifest.json of how they
    were made. By default generated.png, numbered."""
    overwrite: Overwrite = False
    label: Annotated[UseAppendAction[tuple[str, ...]], option("CLASS", "-l")] = ()
    """A class, by name or number; may be repeated. Without it, all classes in turn. A name that
    begins with a dash is given as --label=-NAME."""
    towards: Annotated[Seed | None, option("SEED")] = None
    """Another seed: interpolate between the first image of --seed and the first of this one."""
    image: Annotated[str | None, option("PATH")] = None
    """An image of yours, cropped and resized: make variations of it. With it, and with --towards, a
    class is used only if you give a --label."""
    strength: Annotated[float | None, Field(gt=0, le=1), option("X")] = None
    """How far a variation goes: 1 leaves nothing of the image. By default 0.6."""
    invert: FlagCreatePairsOff[bool] = False
    """Vary --image from the noise that DDIM inversion finds in it. --sampler ddim --eta 0, with
    --guidance 1 where there is a guide, leads back to the image; a --label re-generates it as
    another class. --strength is then 1 by default."""
    mask: Annotated[str | None, option("PATH")] = None
    """A picture, white where --image is to be painted anew, and black or transparent where it is
    kept."""
    rounds: Annotated[Few | None, option("N")] = None
    """How often each inpainting step is repeated (RePaint's resampling): more blends better. By
    default 5."""


def generate(options: GenerateOptions) -> int:
    settings = sampling_settings(options.checkpoint, options, options.label)
    if options.label and settings.guidance == 0 and not options.guide:
        raise UserError("guidance 0 uses no class: leave out --label, or --guidance 0")
    check_edit_options(options)
    out = check_out(options.out, options.overwrite)

    from ..checkpoint.checkpoint import load
    from ..core.sampling import State
    from ..generation.generate import generate as generate_images
    from ..generation.generate import times_of
    from ..generation.output import AnimationRecorder, check_folder, check_grid, write
    from ..utils.distributed import join_processes

    device = device_for(options.device)
    checkpoint = load(options.checkpoint)
    processes = join_processes(device)
    edit = read_edit(options, checkpoint.data, checkpoint.config.background)
    guide = options.guide or checkpoint.guide
    if edit and not options.label and not guide and options.guidance not in (None, 0, 1):
        raise UserError("--guidance is towards a class, and none is asked for: add --label")
    steps = len(times_of(settings, checkpoint.diffusion, edit)) - 1
    animation = AnimationRecorder(steps) if out.suffix.lower() in ANIMATIONS else None
    if animation and processes.world_size > 1:
        raise UserError(
            f"an animation is made by one process, and these are {processes.world_size}"
        )
    columns = options.n if edit and edit.towards is not None else None
    check_grid(out, options.n, checkpoint.data.shape, columns)
    if out.is_dir():
        check_folder(out, options.n, checkpoint.data.classes)
    with steps_bar(options.n, options.batch, steps, processes) as bar:

        def on_state(state: State) -> None:
            bar.update(state.x0 is not None)
            if animation is not None:
                animation.take(state)

        samples = generate_images(
            checkpoint, options.n, seed=options.seed, labels=options.label, settings=settings,
            device=device, batch=options.batch, edit=edit, guide=options.guide, on_state=on_state,
            processes=processes,
        )  # fmt: skip
    note_of_average(checkpoint)
    if processes.is_main:
        write(out, samples, animation)
        say(f"{counted(options.n, 'image')}: {out}")
    processes.finish()
    return 0


def check_edit_options(options: GenerateOptions) -> None:
    """Raise UserError for files that are missing, and for options that do not go together."""
    alone = options.image is not None and options.mask is None
    if options.strength is not None and not alone:
        raise UserError("--strength is for --image without --mask: leave it out")
    if options.rounds is not None and options.mask is None:
        raise UserError("--rounds is for --image with --mask: leave it out")
    if options.invert and not alone:
        raise UserError("--invert is for --image without --mask: leave it out")
    require_files(options.image, options.mask, what="image")
    if options.image is not None and (n := images_in_grid(Path(options.image))) > 1:
        logger.info(
            "%s is a grid of %d images, and is taken for one: --out FOLDER/ makes them single",
            options.image, n,
        )  # fmt: skip


def read_edit(options: GenerateOptions, data: DataInfo, background: str = "white") -> "Edit | None":
    """Return what the images come from, or None where that is noise alone."""
    from ..data.decode import aspect, read_image, read_mask
    from ..generation.generate import Edit, check_edit

    if options.towards is options.image is options.mask is None:
        return None
    image = None if options.image is None else read_image(Path(options.image), data, background)
    mask = None if options.mask is None else read_mask(Path(options.mask), data)
    if mask is not None and not mask.any():
        raise UserError(f"{options.mask} is black: paint white what is to be painted anew")
    if mask is not None and mask.all():
        logger.info("%s is white: nothing of the image is kept", options.mask)
    if options.image and options.mask:
        a, b = aspect(Path(options.image)), aspect(Path(options.mask))
        if abs(a / b - 1) > 0.02:
            logger.info(
                "%s and %s have different shapes: each is cropped about its own middle",
                options.image, options.mask,
            )  # fmt: skip
    strength = 1.0 if options.invert and options.strength is None else options.strength
    given = {"strength": strength, "rounds": options.rounds}
    rest = {name: value for name, value in given.items() if value is not None}
    edit = Edit(options.towards, image, mask=mask, invert=options.invert, **rest)  # type: ignore[arg-type]
    check_edit(edit, data)
    return edit


def check_out(name: str | None, overwrite: bool) -> Path:
    """Return where the images go: a free file's path, or a folder that is there.

    Raise UserError, before the images are made, for what could not be written after.
    """
    path = Path(name) if name else free_name(Path("generated.png"))
    if path.is_dir() or not path.suffix or (name or "").endswith(("/", os.sep)):
        if path.suffix.lower() in ENDINGS:
            raise UserError(f"{path} is a folder: give another --out")
        if is_occupied(path) and not overwrite:
            raise UserError(f"{path} is there already: give another --out, or add --overwrite")
        require_writable(path)
        return path
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {path}: end it in {', '.join(ENDINGS)}, or in / for a folder")
    return check_file(path, overwrite)
