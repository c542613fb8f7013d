"""Before hours are spent: what is in the data, what will become of it, and what it will cost."""

import hashlib
import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator
from PIL import Image, ImageDraw

from ..checkpoint.checkpoint import build, build_loss
from ..config import Config
from ..core.ema import EMA
from ..data.decode import decode, fit
from ..data.folder import ImageDataset, attempt, is_archive, list_files
from ..data.inspect import inspection_notes
from ..data.load import Batches
from ..utils.device import best_device, place
from ..utils.errors import UserError
from .optimizers import build_optimizer
from .step import train_step
from .train import start, with_precision

SHEET = 12  # images on the contact sheet


# ---- the files -------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """One image file: its mode, width and height as seen; or why it cannot be read."""

    name: str
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    digest: str = ""
    fault: str = ""

    @property
    def aspect(self) -> float:
        return self.size[0] / self.size[1]


def survey(path: Path) -> tuple[list[File], Callable[[str], bytes]]:
    """Every image of a folder or zip, decoded once; and how to read one again."""
    names, read, _ = list_files(path)

    def look(data: bytes) -> tuple[str, tuple[int, int], str]:
        image = decode(data)
        return image.mode, image.size, hashlib.sha256(image.tobytes()).hexdigest()

    with ThreadPoolExecutor() as pool:
        seen = pool.map(lambda name: (name, attempt(look, read, name)), names)
        files = [
            File(name, fault=found) if isinstance(found, str) else File(name, *found)
            for name, found in seen
        ]
    return files, read


def about_files(files: list[File], size: tuple[int, int] | None) -> list[str]:
    """Numbers, sizes, modes, shapes, and what is wrong."""
    good = [f for f in files if not f.fault]
    lines = [f"{len(files):,} image files, of which {len(good):,} can be read"]
    for fault, names in grouped([f for f in files if f.fault], lambda f: f.fault).items():
        lines.append(f"  {len(names):,} cannot: {fault} ({some(names)})")
    if not good:
        return lines
    sizes = Counter(f.size for f in good).most_common()
    shown = ", ".join(f"{w}x{h}: {n:,}" for (w, h), n in sizes[:4])
    lines.append(f"sizes: {shown}" + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""))
    modes = Counter("gray" if f.mode == "L" else "colour" for f in good)
    lines.append("modes: " + ", ".join(f"{mode} {n:,}" for mode, n in modes.most_common()))
    if len(modes) > 1:
        lines.append("  gray images will be taught as colour: if all are meant gray, convert them")
    aspects = sorted(f.aspect for f in good)
    middle = statistics.median(aspects)
    lines.append(f"width / height: {aspects[0]:.2f} … {middle:.2f} (median) … {aspects[-1]:.2f}")
    if size:
        lost = [lost_share(f, size) for f in good]
        lines.append(
            f"cropped to {size[1]}x{size[0]}: {sum(lost) / len(lost):.0%} of an image is lost on "
            f"average, {max(lost):.0%} of the worst"
        )
        small = sum(f.size[0] < size[1] or f.size[1] < size[0] for f in good)
        if small:
            lines.append(f"  {small:,} are smaller than that, and will be blurred: --size")
    again = [names for names in grouped(good, lambda f: f.digest).values() if len(names) > 1]
    if again:
        extra = sum(len(names) - 1 for names in again)
        lines.append(f"duplicates: {extra:,} images are there more than once ({some(again[0])})")
    return lines


def grouped(files: list[File], key: Callable[[File], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for file in files:
        groups.setdefault(key(file), []).append(file.name)
    return groups


def some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def lost_share(file: File, size: tuple[int, int]) -> float:
    """The part of an image that is cut off to bring it to the aspect of `size`."""
    wanted = size[1] / size[0]
    return 1 - min(file.aspect / wanted, wanted / file.aspect)


def contact_sheet(
    files: list[File], read: Callable[[str], bytes], size: tuple[int, int]
) -> Image.Image:
    """The images that lose most, with the frame that is kept, each above what comes of it."""
    worst = sorted((f for f in files if not f.fault), key=lambda f: -lost_share(f, size))[:SHEET]
    sheet = Image.new("RGB", (170 * min(6, len(worst)), 340 * -(-len(worst) // 6)), "white")
    for i, file in enumerate(worst):
        image = decode(read(file.name)).convert("RGB")
        cut = Image.fromarray(fit(image, size)).resize((160, 160 * size[0] // size[1]))
        w, h = image.size
        keep_w, keep_h = min(w, h * size[1] / size[0]), min(h, w * size[0] / size[1])
        left, top = (w - keep_w) / 2, (h - keep_h) / 2
        pen = ImageDraw.Draw(image)
        pen.rectangle(
            (left, top, left + keep_w - 1, top + keep_h - 1), outline="red", width=max(1, w // 80)
        )
        image.thumbnail((160, 160))
        x, y = i % 6 * 170, i // 6 * 340
        sheet.paste(image, (x, y))
        sheet.paste(cut, (x, y + 170))
    return sheet


# ---- the cost --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What training costs on this machine, from a few steps: images a second, and memory in MB of
    the whole process (CPU) or of the device."""

    rate: float
    memory: float
    parameters: int


def cost(config: Config, images: ImageDataset, device: str | None = None, steps: int = 6) -> Cost:
    """Take a few steps of the real training and time them."""
    config = with_precision(config, device or best_device())
    accelerator: Accelerator = start(config, device)
    raw, diffusion = build(config, images.info)
    place(raw, accelerator.device)
    diffusion = diffusion.to(accelerator.device)
    ema = EMA(raw, config.train.ema)
    net, optimizer = accelerator.prepare(raw, build_optimizer(raw, config.train))
    loss = build_loss(config, diffusion)
    batches = Batches(images, config.train.batch, config.seed, config.flip, accelerator.device)
    process = psutil.Process()
    seconds, memory = [], []
    for k in range(steps + 2):
        begun = time.perf_counter()
        x0, y = batches(k)
        value, _ = train_step(accelerator, net, loss, optimizer, x0, y, 0.0, config.train)
        ema.update(raw)
        value.item()  # wait for the device
        seconds.append(time.perf_counter() - begun)
        memory.append(process.memory_info().rss)
    most = max(memory)
    if accelerator.device.type == "cuda":
        most = torch.cuda.max_memory_allocated()
    rate = config.train.batch / statistics.median(seconds[2:])
    return Cost(rate, most / 2**20, sum(p.numel() for p in raw.parameters()))


def about_cost(config: Config, images: ImageDataset, device: str | None = None) -> list[str]:
    """Memory, speed, and what the preset's budget comes to."""
    found = cost(config, images, device)
    n, seconds = len(images), config.budget.time_left(0, 0.0, found.rate)
    total = round(seconds * found.rate)
    return [
        f"network: {found.parameters / 1e6:.1f} M parameters; {found.rate:,.0f} images/s and "
        f"{found.memory:,.0f} MB on {device or best_device()}",
        f"its budget: {seconds / 60:,.0f} minutes, {total:,} images, each {total / n:,.1f} times",
    ]


def examine(
    config: Config, images: ImageDataset, *, device: str | None = None, sheet: Path | None = None
) -> list[str]:
    """All of it, for a set that can be read. Raises UserError where there is nothing to see."""
    lines, path = [], Path(config.data)
    size = (images.info.height, images.info.width)
    if path.exists() and (path.is_dir() or is_archive(path)):
        files, read = survey(path)
        lines += about_files(files, size)
        if sheet:
            contact_sheet(files, read, size).save(sheet, "png")
            lines.append(f"what is cropped most: {sheet}")
    elif sheet:
        raise UserError(f"a contact sheet is of files, and {config.data} is none")
    info = images.info
    megabytes = images.images.nbytes / 1e6
    classes = f", {len(info.classes)} classes" if info.classes else ""
    lines.append(
        f"to be learned: {len(images):,} images of {info.width}x{info.height} in {info.channels} "
        f"channel{'s' * (info.channels > 1)}{classes}, {megabytes:,.0f} MB"
    )
    lines += [f"note: {note}" for note in inspection_notes(images, config.flip)]
    small = replace(config, train=replace(config.train, compile=False))
    return lines + about_cost(small, images, device)
