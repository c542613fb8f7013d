"""The commands `ddpm generate` and `ddpm convert`, and what they share with `ddpm evaluate`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import DataInfo, SampleConfig, preset
from ..utils.errors import UserError
from ..utils.files import free_name, is_occupied, require_writable
from .options import (
    ConvertOptions,
    DemoOptions,
    DoctorOptions,
    GenerateOptions,
    ReplayOptions,
    SamplingOptions,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..checkpoint.checkpoint import Checkpoint
    from ..generation.generate import Edit
    from ..utils.distributed import Processes

PICTURES = (".png",)
ANIMATIONS = (".gif", ".webp")


def generate_command(options: GenerateOptions) -> int:
    from ..core.sampling import State
    from ..generation.generate import AnimationRecorder, generate, times_of, write
    from ..utils.distributed import join_processes

    checkpoint, settings, device = sampling_setup(options.checkpoint or "mnist", options)
    processes = join_processes(device)
    if options.label and settings.guidance == 0:
        raise UserError("guidance 0 asks for no class: leave out --label, or --guidance 0")
    edit = read_edit(options, checkpoint.data)
    out = check_out(options.out, options.overwrite)
    steps = len(times_of(settings, checkpoint.diffusion, edit)) - 1
    animation = AnimationRecorder(steps) if out.suffix.lower() in ANIMATIONS else None
    if animation and processes.world_size > 1:
        raise UserError(
            f"an animation is made by one process, and these are {processes.world_size}"
        )
    with steps_bar(options.n, options.batch, steps, processes) as bar:

        def on_state(state: State) -> None:
            bar.update(state.x0 is not None)
            if animation is not None:
                animation.take(state)

        samples = generate(
            checkpoint, options.n, seed=options.seed, labels=options.label, settings=settings,
            device=device, batch=options.batch, edit=edit, on_state=on_state,
            processes=processes,
        )  # fmt: skip
    tell_of_average(checkpoint, processes)
    if processes.is_main:
        write(out, samples, animation)
        print(f"{options.n} images: {out}")
    processes.finish()
    return 0


def read_edit(options: GenerateOptions, data: DataInfo) -> "Edit | None":
    """What the images come from, where not from noise alone."""
    from ..data.decode import read_mask, read_picture
    from ..generation.generate import Edit, check_edit

    if options.change is not None and (options.image is None or options.mask is not None):
        raise UserError("--change is for --image without --mask: leave it out")
    if options.rounds is not None and options.mask is None:
        raise UserError("--rounds is for --image with --mask: leave it out")
    if options.towards is options.image is options.mask is None:
        return None
    image = None if options.image is None else read_picture(Path(options.image), data)
    mask = None if options.mask is None else read_mask(Path(options.mask), data)
    given = {"change": options.change, "rounds": options.rounds}
    rest = {name: value for name, value in given.items() if value is not None}
    edit = Edit(options.towards, image, mask=mask, **rest)  # type: ignore[arg-type]
    check_edit(edit, data)
    return edit


def sampling_setup(name: str, options: SamplingOptions) -> tuple["Checkpoint", SampleConfig, str]:
    """The checkpoint, how to sample from it, and on what."""
    from ..checkpoint.checkpoint import load
    from ..generation.generate import check_steps, with_options

    device = device_for(options)
    checkpoint = load(name)
    settings = with_options(
        checkpoint.config.sample, steps=options.steps, sampler=options.sampler,
        spacing=options.spacing, eta=options.eta, guidance=options.guidance,
        guidance_above=options.guidance_above, guidance_below=options.guidance_below,
    )  # fmt: skip
    if options.eta and settings.sampler != "ddim":
        raise UserError(f"--eta is for --sampler ddim, and this is {settings.sampler}")
    if options.guidance is not None and not checkpoint.data.classes:
        raise UserError("--guidance needs classes, and this network was trained without")
    check_steps(settings, checkpoint.diffusion)
    return checkpoint, settings, device


def tell_of_average(checkpoint: "Checkpoint", processes: "Processes") -> None:
    from ..data.inspect import ema_note

    note = ema_note(checkpoint.step, checkpoint.config.train.ema)
    if note and processes.is_main:
        print(f"note: {note}", file=sys.stderr)


def device_for(options: SamplingOptions) -> str:
    from ..utils.device import best_device, check_device

    device = options.device or best_device()
    check_device(device)
    return device


def images_bar(n: int, processes: "Processes") -> "tqdm":
    from tqdm import tqdm

    hidden = None if processes.is_main else True  # None: where there is no terminal
    return tqdm(
        total=n // processes.world_size, desc="bits/dim", disable=hidden, leave=False, unit="img"
    )


def steps_bar(n: int, batch: int, steps: int, processes: "Processes") -> "tqdm":
    from tqdm import tqdm

    batches = -(-n // batch)  # of which one process has every processes.world_size-th
    hidden = None if processes.is_main else True
    total = steps * -(-batches // processes.world_size)
    return tqdm(total=total, disable=hidden, leave=False, unit="step")


def check_out(name: str | None, overwrite: bool) -> Path:
    """Where the images go: a free file's path, or a folder that is there.

    Refuses, before the images are made, what could not be written after.
    """
    path = Path(name) if name else free_name(Path("generated.png"))
    if path.is_dir() or not path.suffix or (name or "").endswith("/"):
        if path.suffix.lower() in (*PICTURES, *ANIMATIONS, ".npz"):
            raise UserError(f"{path} is a folder: give another --out")
        if is_occupied(path) and not overwrite:
            raise UserError(f"{path} is there already: give another --out, or add --overwrite")
        require_writable(path)
        return path
    if path.suffix.lower() not in (*PICTURES, *ANIMATIONS, ".npz"):
        raise UserError(f"--out {path}: end it in .png, .gif, .webp or .npz, or in / for a folder")
    return check_file(path, overwrite)


def check_file(path: Path, overwrite: bool) -> Path:
    """The path of a file that can be written, without anything of somebody's being lost."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give another --out")
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already: give another --out, or add --overwrite")
    require_writable(path.parent)
    return path


def convert_command(options: ConvertOptions) -> int:
    from ..checkpoint.checkpoint import load, save
    from ..checkpoint.diffusers import is_diffusers, read_diffusers, write_diffusers

    source, out = Path(options.source), Path(options.out)
    if is_diffusers(source):
        if out.suffix != ".safetensors":
            raise UserError(f"{out} will be a checkpoint of ours: end it in .safetensors")
        check_file(out, overwrite=False)
        c = read_diffusers(source)
        save(out, c.net, c.config, c.data, c.step, c.images_seen, weights=c.weights)
        print(f"{out}: try ddpm generate {out}")
    else:
        checkpoint = load(options.source)
        write_diffusers(checkpoint, out)
        print(f"{out}: try diffusers.DDPMPipeline.from_pretrained({str(out)!r})")
        if classes := checkpoint.data.classes:
            print(
                f"the pipeline gives its network no classes: call its .unet with class_labels, "
                f"{len(classes)} for no class"
            )
    return 0


def demo_command(options: DemoOptions) -> int:
    from ..demo.server import serve
    from ..utils.device import check_device

    if options.device:
        check_device(options.device)
    serve(
        list(options.checkpoints), host=options.host, port=options.port,
        password=options.password, runs=options.runs, device=options.device,
    )  # fmt: skip
    return 0


def replay_command(options: ReplayOptions) -> int:
    from ..training.replay import replay
    from ..utils.device import best_device, check_device

    device = options.device or best_device()
    check_device(device)
    print(replay(Path(options.batch), device).text())
    return 0


def doctor_command(options: DoctorOptions) -> int:
    from ..data.load import load_images
    from ..training.benchmark import examine

    if options.sheet:
        if Path(options.sheet).suffix.lower() != ".png":
            raise UserError(f"--sheet {options.sheet}: end it in .png")
        check_file(Path(options.sheet), overwrite=False)
    config = replace(
        preset(options.preset), data=options.data, root=options.root, size=options.size,
        flip=options.flip,
    )  # fmt: skip
    images = load_images(config.data, config.size, config.root)
    images = images if config.labels else images.without_labels()
    sheet = Path(options.sheet) if options.sheet else None
    for line in examine(config, images, device=options.device, sheet=sheet):
        print(line)
    return 0
