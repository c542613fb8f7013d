"""What a person should know of images before a network is trained on them."""

import hashlib
import logging
import statistics
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from ..config import NAMED_SETS, ClassesFrom
from ..utils.errors import UserError, counted, first_line
from ..utils.files import atomic_write
from ..utils.images import to_float
from .dataset import ImageDataset
from .decode import cropped_share, decode, decoded, fit, read_header
from .limits import MAX_THREADS
from .listing import ImageFiles, holds_files, in_order, list_files

logger = logging.getLogger(__name__)

FEW_IMAGES = 1000  # a network memorizes fewer
ENOUGH_TO_TELL = 200  # images, whether mirroring changes them
MIRROR_ALIKE = 0.56  # how often a classifier may be right about mirror images of which none is odd
FEW_LEVELS, NARROW = 32, 64  # of 256 that may be used, or lie between darkest and brightest
IMBALANCE = 10  # how many times larger than the smallest the largest class may be
MAX_CLASSES = 20  # that a note names
MAX_SHOWN = 12  # images on the contact sheet
COLUMNS = 6
MAX_PIXELS_AT_ONCE = 2**24  # that a note looks at
THUMBNAIL = 160  # pixels
LOOKED_AT = 512  # pixels a side by which duplicates are known, of a JPEG; of others all are


def inspect_images(
    data: ImageDataset,
    path: str | Path,
    flip: bool = False,
    sheet: Path | None = None,
    classes_from: ClassesFrom = "auto",
    background: str = "white",
) -> list[str]:
    """Return lines on the images that were read from `path`: on their files, where it is a folder
    or a zip, on what will be learned, and on what was noted while they were read.

    `sheet` is the PNG file to write a contact sheet to. Raise UserError where there are no files
    to show on it.
    """
    named = isinstance(path, str) and path in NAMED_SETS
    lines, path = [], Path(path)
    info = data.info
    if holds_files(path) and not named:
        files = list_files(path, classes_from=classes_from)
        reports = inspect_files(files)
        lines += [*describe_files(reports, (info.height, info.width)), *files.others]
        if sheet:
            with atomic_write(sheet) as beside:
                size = (info.height, info.width)
                contact_sheet(files, reports, size, background).save(beside, "png")
            lines.append(f"what is cropped most: {sheet}")
    elif sheet:
        raise UserError(f"a contact sheet is of files in a folder or a zip, and {path} is neither")
    classes = counted(len(info.classes), "class", "classes") if info.classes else "no classes"
    lines.append(
        f"to be learned: {counted(len(data), 'image')} of {info.width}x{info.height} in "
        f"{counted(info.channels, 'channel')}, {classes}, {data.images.nbytes / 1e6:,.0f} MB"
    )
    low, high, used = byte_levels(data.images)
    lines.append(f"values of pixels: {used} of 256 levels, from {low} to {high}")
    return lines + [f"note: {note}" for note in (*data.notes, *inspection_notes(data, flip))]


# ---- the images as they will be learned ------------------------------------------------------


def inspection_notes(data: ImageDataset, flip: bool) -> list[str]:
    """Return notes on the balance of classes, on mirroring, and on the number of images.

    They take a second at most: every training gives them. Advice that cannot be given is left out:
    whatever goes wrong here, the images can be learned.
    """
    lines = []
    for advice in (class_notes, balance_notes, value_notes, mirror_notes, number_notes):
        try:
            lines += advice(data, flip)
        except Exception as error:
            logger.debug("%s could not be given: %s", advice.__name__, first_line(error))
    return lines


def class_notes(data: ImageDataset, flip: bool) -> list[str]:
    """Return a note on what was taken for classes, with the number of images of each."""
    if data.labels is None:
        return []
    counts = data.labels.bincount(minlength=len(data.classes) + 1).tolist()
    each = [f"{name} ({n:,})" for name, n in zip(data.classes, counts, strict=False)]
    more = f" and {len(each) - MAX_CLASSES:,} more" if len(each) > MAX_CLASSES else ""
    none = f"; without a class: {counts[-1]:,}" if counts[-1] else ""
    return [
        f"{counted(len(each), 'class', 'classes')}: {', '.join(each[:MAX_CLASSES])}{more}{none}"
    ]


def balance_notes(data: ImageDataset, flip: bool) -> list[str]:
    """Return a note where the classes are uneven."""
    lines = []
    if data.labels is not None:
        counts = data.labels.bincount(minlength=len(data.classes))[: len(data.classes)]
        few, many = int(counts.min()), int(counts.max())
        if many > IMBALANCE * max(few, 1):
            rare, common = data.classes[counts.argmin()], data.classes[counts.argmax()]
            lines.append(
                f"classes are uneven: {few:,} of {rare}, {many:,} of {common}; the rare ones will "
                f"be learned badly"
            )
    return lines


def value_notes(data: ImageDataset, flip: bool) -> list[str]:
    """Return notes where the pixels have few values, and where images are of one colour."""
    lines, (low, high, used) = [], byte_levels(data.images)
    if used <= FEW_LEVELS or high - low <= NARROW:
        dark = " 12 or 14 bits stored in 16, for one, come out dark" if high <= NARROW else ""
        lines.append(
            f"the pixels have {used} of 256 levels, from {low} to {high}: is this so in the "
            f"files?{dark}"
        )
    looked = sample(data.images)
    flat = sum(int((p.amax((2, 3)) == p.amin((2, 3))).all(1).sum()) for p in looked)
    if flat:
        n = sum(map(len, looked))
        lines.append(
            f"{flat:,} of {counted(n, 'image')} that were looked at are of one colour; transparent "
            f"ones can be laid on another --background, or learned with --channels 4"
        )
    return lines


def byte_levels(images: Tensor) -> tuple[int, int, int]:
    """Return the least and the greatest value in some of the images, and how many there are."""
    counts = sum(part.flatten().int().bincount(minlength=256) for part in sample(images))
    used = torch.as_tensor(counts).nonzero().flatten()
    return int(used[0]), int(used[-1]), len(used)


def sample(images: Tensor, limit: int = 4000) -> list[Tensor]:
    """Return some of the images, as many as can be looked at in a part of a second, in parts."""
    few = max(1, MAX_PIXELS_AT_ONCE // images[0].numel())
    limit = min(limit, 4 * few)
    stride = max(1, len(images) // limit)
    return list(images[::stride][:limit].split(few))


def mirror_notes(data: ImageDataset, flip: bool) -> list[str]:
    """Return a note where mirroring would harm, or would help and is not asked for."""
    lines, n = [], len(data)
    accuracy = mirror_accuracy(data.images)
    if flip and accuracy > 0.65:
        lines.append(
            f"mirror images can be told from these images {accuracy:.0%} of the time: --flip would "
            f"teach images that do not occur; leave it out"
        )
    elif not flip and accuracy < MIRROR_ALIKE and ENOUGH_TO_TELL <= n < 100 * FEW_IMAGES:
        lines.append(
            f"mirror images look like these images (a classifier is right {accuracy:.0%} of the "
            f"time): --flip would double the training images"
        )
    return lines


def number_notes(data: ImageDataset, flip: bool) -> list[str]:
    """Return a note where there are few images."""
    lines, n = [], len(data)
    if n < FEW_IMAGES:
        lines.append(
            f"{counted(n, 'image')} {'is' if n == 1 else 'are'} few: a network will memorize them. "
            f"Take a small one with --unet.dropout 0.2, stop early, and check with ddpm evaluate "
            f"--memorization"
        )
    return lines


def mirror_accuracy(images: Tensor, limit: int = 4000, side: int = 12) -> float:
    """Return how often a linear classifier tells images it has not seen from their mirror images:
    0.5 where mirroring changes nothing.

    `limit` of the images are taken, fewer if they are large, in gray, at `side` pixels. Only what
    changes sign under mirroring can tell, a = x − mirror(x), and the classifier is ridge regression
    to 1: it is right about an image where w·a > 0.
    """
    few = max(1, MAX_PIXELS_AT_ONCE // images[0].numel())
    limit = min(limit, 16 * few)
    stride = max(1, len(images) // limit)
    size = (min(side, images.shape[2]), min(side, images.shape[3]))
    parts = images[::stride][:limit].split(few)
    x = torch.cat([F.adaptive_avg_pool2d(to_float(p).mean(1, True), size) for p in parts])
    a = (x - x.flip(-1)).flatten(1)
    a = a[a.square().sum(1) > 0]  # an image that is its own mirror image tells nothing
    a = a[:, a.square().sum(0) > 0]
    learn, test = a[::2], a[1::2]
    if len(test) < 20 or a.shape[1] == 0:
        return 0.5
    ridge = 0.01 * learn.square().mean().clamp(min=1e-6) * len(learn) * torch.eye(a.shape[1])
    w = torch.linalg.solve(learn.T @ learn + ridge, learn.sum(0))
    return (test @ w > 0).float().mean().item()


# ---- the files -------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileReport:
    """One image file: mode, width and height once decoded, and a hash of its pixels; or why it
    cannot be read."""

    name: str
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    digest: str = ""
    error: str = ""

    @property
    def aspect(self) -> float:
        return self.size[0] / self.size[1]


def inspect_files(files: ImageFiles) -> list[FileReport]:
    """Decode every file and return what was found."""

    def look(data: bytes) -> tuple[str, tuple[int, int], str]:
        height, width, *_ = read_header(data)
        with decoded(data, (LOOKED_AT, LOOKED_AT)) as image:
            return image.mode, (width, height), pixel_hash(image)

    def report(name: str) -> FileReport:
        found = files.attempt(look, name)
        return FileReport(name, error=found) if isinstance(found, str) else FileReport(name, *found)

    with ThreadPoolExecutor(MAX_THREADS) as pool:
        return list(in_order(pool, report, files.names))


def pixel_hash(image: Image.Image) -> str:
    """Return the SHA-256 of the pixels, of which no more than a few rows are copied at a time."""
    digest = hashlib.sha256(repr(image.size).encode())
    for top in range(0, image.height, 64):
        rows = image.crop((0, top, image.width, min(top + 64, image.height)))
        digest.update(rows.tobytes())
    return digest.hexdigest()


def describe_files(reports: list[FileReport], size: tuple[int, int] | None) -> list[str]:
    """Return lines on number, sizes, modes, aspects and duplicates of files, on those that cannot
    be read, and on what cropping to `size` (height, width) costs."""
    good = [r for r in reports if not r.error]
    lines = [f"{counted(len(reports), 'image file')}, of which {len(good):,} can be read"]
    for error, names in grouped([r for r in reports if r.error], lambda r: r.error).items():
        lines.append(f"  {len(names):,} cannot: {error} ({first_names(names)})")
    if not good:
        return lines
    sizes = Counter(r.size for r in good).most_common()
    shown = ", ".join(f"{w}x{h}: {n:,}" for (w, h), n in sizes[:4])
    lines.append(f"sizes: {shown}" + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""))
    modes = Counter("gray" if r.mode == "L" else "colour" for r in good)
    lines.append("modes: " + ", ".join(f"{mode} {n:,}" for mode, n in modes.most_common()))
    if len(modes) > 1:
        lines.append("  gray images will be learned as colour: to learn gray, --channels 1")
    aspects = sorted(r.aspect for r in good)
    median = statistics.median(aspects)
    lines.append(f"width / height: {aspects[0]:.2f} … {median:.2f} (median) … {aspects[-1]:.2f}")
    if size:
        lost = [cropped_share(r.aspect, size) for r in good]
        lines.append(
            f"cropped to {size[1]}x{size[0]}: {sum(lost) / len(lost):.0%} of an image is lost on "
            f"average, {max(lost):.0%} of the worst"
        )
        small = sum(r.size[0] < size[1] or r.size[1] < size[0] for r in good)
        if small:
            lines.append(f"  {small:,} are smaller, and will be blurred: choose a smaller --size")
    same = [names for names in grouped(good, lambda r: r.digest).values() if len(names) > 1]
    if same:
        extra = sum(len(names) - 1 for names in same)
        lines.append(
            f"duplicates: {counted(extra, 'copy', 'copies')} of others ({first_names(same[0])})"
        )
    return lines


def grouped(reports: list[FileReport], key: Callable[[FileReport], str]) -> dict[str, list[str]]:
    """Return the names of files by the key they share."""
    groups: dict[str, list[str]] = {}
    for report in reports:
        groups.setdefault(key(report), []).append(report.name)
    return groups


def first_names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def contact_sheet(
    files: ImageFiles, reports: list[FileReport], size: tuple[int, int], background: str = "white"
) -> Image.Image:
    """Return a picture of the images that lose most by cropping: each with the frame that is kept,
    above what is learned of it."""
    readable = [r for r in reports if not r.error]
    worst = sorted(readable, key=lambda r: -cropped_share(r.aspect, size))[:MAX_SHOWN]
    cell_w, cell_h = THUMBNAIL + 10, 2 * (THUMBNAIL + 10)
    sheet_size = (cell_w * min(COLUMNS, len(worst)), cell_h * -(-len(worst) // COLUMNS))
    sheet = Image.new("RGB", sheet_size, "white")
    for i, report in enumerate(worst):
        enough = (max(2 * THUMBNAIL, size[0]), max(2 * THUMBNAIL, size[1]))
        image = decode(files.read(report.name), enough, background).convert("RGB")
        learned = Image.fromarray(fit(image, size))
        scale = THUMBNAIL / max(size)
        learned = learned.resize((max(1, round(scale * size[1])), max(1, round(scale * size[0]))))
        w, h = image.size
        kept_w, kept_h = min(w, h * size[1] / size[0]), min(h, w * size[0] / size[1])
        left, top = (w - kept_w) / 2, (h - kept_h) / 2
        frame = (left, top, left + kept_w - 1, top + kept_h - 1)
        ImageDraw.Draw(image).rectangle(frame, outline="red", width=max(1, w // 80))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        x, y = i % COLUMNS * cell_w, i // COLUMNS * cell_h
        sheet.paste(image, (x, y))
        sheet.paste(learned, (x, y + cell_h // 2))
    return sheet
