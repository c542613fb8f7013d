"""Which files there are in a folder or a zip; whatever is left out is counted."""

import hashlib
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import UnidentifiedImageError

from ..config import ClassesFrom
from ..utils.errors import UserError, counted, first_line, plain
from .decode import read_bytes
from .formats import ADVICE_FOR, SUFFIXES, count_endings, ending, known
from .labels import Labels, read_labels
from .limits import MAX_BYTES, MAX_THREADS, READING, check_archive, check_entry
from .splits import choose_split

RUN = {"config.toml", "state"}  # what is in the folder of a training run
MAX_VISITS = 100  # of a folder, by links that lead to it
MAX_NAMED = 5  # files that a note names
CHUNK = 1000  # files that threads are given at once

T = TypeVar("T")
U = TypeVar("U")


class TransientError(str):
    """Why a file could not be read where it may be the next time: no memory, a disk that fails."""


@dataclass(frozen=True)
class Listing:
    """The files below a folder or in a zip.

    names    of the files, from there, with "/", sorted
    read     returns the bytes of one
    version  changes whenever a file does
    faults   what cannot be read: why, by name; that of a folder ends in "/"
    hidden   names of files and folders that `is_hidden` leaves out
    links    how many there are of each kind
    notes    what else a person should know
    size     returns how many bytes a file has
    """

    names: list[str]
    read: Callable[[str], bytes]
    version: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[str] = ()
    links: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    size: Callable[[str], int] = lambda name: 0


@dataclass(frozen=True)
class ImageFiles:
    """Image files.

    where   the folder or zip
    names   of the files there
    read    returns the bytes of one
    labels  the class of each file by its name, None for no class; None where folders are classes
    notes   what a person should know of how files and classes were found
    others  what a person may want to know: which other files there are, hidden ones, and links
    version changes whenever a file does
    size    returns how many bytes a file has, 0 where that is not known before it is read
    order   of the classes, where their source has one of its own
    """

    where: str
    names: Sequence[str]
    read: Callable[[str], bytes]
    labels: Labels | None = None
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    version: str = ""
    size: Callable[[str], int] = lambda name: 0
    order: Sequence[str] = ()

    def attempt(self, use: Callable[[bytes], T], name: str) -> T | str:
        """Return use(bytes of the file), or the reason why it failed. Large files wait for one
        another."""
        try:
            with READING.reserve(min(self.size(name), READING.total)):
                return use(self.read(name))
        except MemoryError:
            return TransientError("takes more memory than there is")
        except UnidentifiedImageError:
            return "not an image"
        except OSError as error:  # decoders raise it too, without a number
            return first_line(error) if error.errno is None else TransientError(first_line(error))
        except Exception as error:  # a damaged file makes decoders raise nearly anything
            return first_line(error)


def in_order(
    pool: ThreadPoolExecutor, do: Callable[[T], U], items: Sequence[T], chunk: int = CHUNK
) -> Iterator[U]:
    """Yield do(item) for each item, done by threads; no more than `chunk` are under way, so that
    memory does not grow with the number of items."""

    def do_some(some: Sequence[T]) -> list[U]:
        return [do(item) for item in some]

    for first in range(0, len(items), chunk):
        under_way = items[first : first + chunk]
        step = max(1, len(under_way) // (8 * MAX_THREADS))  # few tasks: each costs some time
        some = [under_way[i : i + step] for i in range(0, len(under_way), step)]
        for done in pool.map(do_some, some):
            yield from done


def named(names: Iterable[str], limit: int = 200) -> str:
    """Return the first of the names, and how many more there are, fit to be printed."""
    texts = [plain(name, limit) for name in names]
    more = f" and {len(texts) - MAX_NAMED:,} more" if len(texts) > MAX_NAMED else ""
    return "; ".join(texts[:MAX_NAMED]) + more


# ---- image files among all files -------------------------------------------------------------


def holds_files(path: Path) -> bool:
    """Return whether this is a folder or a zip; an npz, which is a zip too, does not count."""
    if os.path.isdir(path):
        return True
    if path.suffix.lower() == ".npz" or not os.path.isfile(path):
        return False
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # a damaged one
        return True


def list_files(path: Path, split: str = "train", classes_from: ClassesFrom = "auto") -> ImageFiles:
    """Return the image files of a folder or a zip, of one split where it has splits, and their
    classes. Raise UserError where there are none."""
    listing = list_folder(path) if os.path.isdir(path) else list_zip(path)
    readable, notes = known(), list(listing.notes)
    broken = [name for name in listing.faults if ending(name) in readable]
    images = sorted([*(n for n in listing.names if ending(n) in readable), *broken])
    other = count_endings(n for n in listing.names if ending(n) not in readable)
    notes += [
        f"{counted(n, f'{kind} file')} {'is' if n == 1 else 'are'} left out: {ADVICE_FOR[kind]}"
        for kind, n in other.items()
        if kind in ADVICE_FOR
    ]
    if not images:
        raise UserError(f"there are no images in {path}: {why_none(listing, notes)}")
    folders = [f"{name} ({why})" for name, why in listing.faults.items() if name.endswith("/")]
    if folders:
        notes.append(f"{counted(len(folders), 'folder')} cannot be looked into: {named(folders)}")
    chosen, split_notes = choose_split(images, split, str(path))
    labels, label_notes = read_labels(listing.names, listing.read, images, chosen, classes_from)
    version = repr((listing.version, classes_from, tuple(readable)))
    return ImageFiles(
        str(path), chosen, listing.read, labels, (*notes, *split_notes, *label_notes),
        describe_others(listing, other), version, listing.size,
    )  # fmt: skip


def why_none(listing: Listing, notes: Sequence[str]) -> str:
    """Return why there are no images."""
    n = len(listing.names)
    few = ("it is empty", "its only file is not an image")
    what = few[n] if n < len(few) else f"none of its {n:,} files is an image"
    hidden = f", but for {counted(len(listing.hidden), 'hidden file')}" if listing.hidden else ""
    more = "".join(f"; {note}" for note in notes)
    return f"{what}{hidden} (formats: {' '.join(SUFFIXES)}){more}"


def describe_others(listing: Listing, other: Mapping[str, int]) -> tuple[str, ...]:
    """Return lines on the files that are not images, on hidden ones, and on links."""
    lines = []
    if other:
        kinds = [f"{n:,} {plain(kind, 20) or 'without an ending'}" for kind, n in other.items()]
        more = f" and {sum(list(other.values())[12:]):,} more" if len(kinds) > 12 else ""
        lines.append("other files: " + ", ".join(kinds[:12]) + more)
    if listing.hidden:
        lines.append(f"hidden, and left out: {len(listing.hidden):,} ({named(listing.hidden)})")
    if listing.links:
        kinds = [f"{n:,} {kind}" for kind, n in listing.links.items()]
        lines.append("links: " + ", ".join(kinds))
    return tuple(lines)


def file_versions(path: Path) -> list[Any]:
    """Return what changes whenever a file does, or any file below a folder; [] where there is
    none."""
    if os.path.isfile(path):
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
    listing = list_folder(path) if os.path.isdir(path) else None
    return [listing.version] if listing and listing.names else []


# ---- folders ---------------------------------------------------------------------------------


def list_folder(root: Path) -> Listing:
    """Return the files below a folder, those behind links included. A link to a folder that holds
    it is not followed, and a folder of a training run left out. Raise UserError where the folder
    cannot be listed."""
    names: list[str] = []
    hidden: list[str] = []
    runs: list[str] = []
    faults: dict[str, str] = {}
    links: Counter[str] = Counter()
    visits: Counter[tuple[int, int]] = Counter()
    digest = hashlib.sha256()
    try:
        here = root.resolve()
        folders = [("", tuple(identity(folder) for folder in (here, *here.parents)))]
        os.scandir(root).close()
    except (OSError, RuntimeError) as error:
        raise UserError(f"the files in {root} cannot be listed: {first_line(error)}") from None
    while folders:
        prefix, chain = folders.pop()
        try:
            with os.scandir(os.path.join(root, prefix)) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            faults[prefix] = error.strerror or first_line(error)
            continue
        if prefix and {entry.name for entry in entries} >= RUN:
            runs.append(prefix)  # begun in the folder that it learns: its grids are no images
            continue
        for entry in entries:
            name, linked = prefix + entry.name, entry.is_symlink()
            if is_hidden(entry.name):
                hidden.append(name)
                continue
            try:
                status = entry.stat()
                folder = identity(entry.path) if stat.S_ISDIR(status.st_mode) else None
            except OSError as error:
                name += "/" * entry.is_dir(follow_symlinks=False)
                faults[name] = "a link to nothing" if linked else error.strerror or "lost"
                links["to nothing"] += linked
                continue
            if folder in chain:
                links["to a folder that holds them, not followed"] += 1
            elif folder and visits[folder] >= MAX_VISITS:
                faults[f"{name}/"] = f"more than {MAX_VISITS} links lead to it"
            elif folder:
                visits[folder] += 1
                links["to folders"] += linked
                folders.append((f"{name}/", (*chain, folder)))
            elif stat.S_ISREG(status.st_mode):
                names.append(name)
                links["to files"] += linked
                digest.update(os.fsencode(name))
                digest.update(b"\0%d %d\0" % (status.st_size, status.st_mtime_ns))
            else:
                faults[name] = "neither a file nor a folder"

    def read(name: str) -> bytes:
        if name in faults:
            raise ValueError(faults[name])
        return read_bytes(os.path.join(root, name))

    def size(name: str) -> int:
        return 0 if name in faults else os.path.getsize(os.path.join(root, name))

    version = digest.hexdigest()
    said = f"{counted(len(runs), 'folder')} of training runs, left out: {named(sorted(runs))}"
    notes = (said,) if runs else ()
    return Listing(sorted(names), read, version, faults, hidden, +links, notes, size)


def identity(folder: str | Path) -> tuple[int, int]:
    """Return what a folder has in common with no other, whatever way leads to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def is_hidden(name: str) -> bool:
    """Return whether a system keeps files of its own by that name, such as thumbnails."""
    return name.startswith((".", "__MACOSX", "@eaDir", "$RECYCLE.BIN"))


# ---- zips ------------------------------------------------------------------------------------


def list_zip(path: Path) -> Listing:
    """Return the files in a zip. Raise UserError where it is damaged."""
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a table of contents can be damaged in any way
        raise UserError(f"{path} cannot be read as a zip: {first_line(error)}") from None
    try:
        check_archive(archive.infolist(), path.stat().st_size)
    except ValueError as error:
        raise UserError(f"{path} is damaged or a zip bomb: {error}") from None
    infos = [info for info in archive.infolist() if not info.filename.endswith(("/", "\\"))]
    entries = {name: info for info in infos if (name := entry_name(info))}

    def read(name: str) -> bytes:
        info = check_entry(entries[name])
        if info.file_size > MAX_BYTES:
            raise ValueError(f"unpacks to {info.file_size:,} bytes")
        with archive.open(info) as file:
            return file.read(info.file_size)  # no more, even where the entry has more

    hidden = [name for name in entries if any(map(is_hidden, name.split("/")))]
    names = sorted(entries.keys() - set(hidden))
    version = repr(file_versions(path))
    lost = len(infos) - len(entries)
    notes = (f"{counted(lost, 'name')} twice in {path}: the last file is read",) if lost else ()
    size = lambda name: entries[name].file_size  # noqa: E731
    return Listing(names, read, version, hidden=hidden, notes=notes, size=size)


def entry_name(info: zipfile.ZipInfo) -> str:
    """Return the name of a file in a zip as a path from the zip, with "/", whatever tool wrote it.

    Old tools write UTF-8 and do not say so: it is read as cp437, and is turned back here.
    """
    name = info.filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    parts = re.split(r"[/\\]+", re.sub(r"^[A-Za-z]:(?=[/\\])", "", name))
    return "/".join(part for part in parts if part not in ("", ".", ".."))
