"""`ddpm doctor`: a look at the images, and what learning them costs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from ..config import ClassesFrom, Config, option, preset
from ..data.names import require_data
from ..utils.errors import UserError
from .common import Device, Root, Size, check_file, device_for, say
from .train import DEFAULT_PRESET


@dataclass(frozen=True)
class DoctorOptions:
    """Look at images before hours are spent on them.

    Says what there is, what is wrong with it, what will become of it, and what learning it costs on
    this machine.
    """

    data: Annotated[Positional[str], option("DATA")]
    """As in training: a named set; a folder, zip or npz of images; or hf:OWNER/NAME."""
    preset: Annotated[str | None, option("PRESET")] = None
    """Whose network and budget are meant: by default, as in training, what suits the images."""
    root: Root = "data"
    size: Size = ()
    """As in training: crop and resize to this."""
    channels: Annotated[Literal[1, 3, 4] | None, option()] = None
    """As in training: 1 gray, 3 colour, 4 colour and transparency."""
    background: Annotated[str, option("COLOUR")] = "white"
    """As in training: what transparent images are laid on."""
    classes_from: Annotated[ClassesFrom, option()] = "auto"
    """As in training: what names the classes of image files."""
    flip: bool = False
    """As in training: mirror half of the images, as some presets do too."""
    sheet: Annotated[str | None, option("PATH")] = None
    """A .png for the images that lose most by cropping."""
    device: Device = None


def doctor(options: DoctorOptions) -> int:
    require_data(options.data)

    from ..data.inspect import inspect_images
    from ..training.benchmark import describe_cost
    from ..training.choice import choose_preset
    from ..training.train import read_images

    sheet = Path(options.sheet) if options.sheet else None
    if sheet:
        if sheet.suffix.lower() != ".png":
            raise UserError(f"--sheet {sheet}: end it in .png")
        check_file(sheet)
    chosen = preset(options.preset) if options.preset else Config()
    asked = ("data", "root", "channels", "background", "classes_from")
    config = replace(chosen, **{name: getattr(options, name) for name in asked})
    data, why = read_images(replace(config, size=options.size or chosen.size)), ""
    if not options.preset and options.data == preset(DEFAULT_PRESET).data:
        config = preset(DEFAULT_PRESET)
    elif not options.preset:
        _, config, why = choose_preset(data, device_for(options.device))
    config = replace(config, flip=config.flip or options.flip)
    data = data if config.labels else data.without_labels()
    for line in inspect_images(
        data, options.data, config.flip, sheet, options.classes_from, options.background
    ):
        say(line)
    if why:
        say(why)
    for line in describe_cost(config, data, options.device):
        say(line)
    return 0
