"""Formats of picture files: those that are read, and what to do about others."""

import importlib
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import cache

from PIL import Image

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".dib", ".gif",
    ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif", ".jxl",
)  # fmt: skip
PLUGINS = {"pillow_heif": "register_heif_opener", "pillow_jxl": None}  # of Pillow, and their start

ADVICE = {  # for files that hold pictures and are not read, by their endings
    "pip install pillow-heif": ".heic .heif .hif .heics .heifs",
    "pip install pillow-jxl-plugin": ".jxl",
    "pip install --upgrade pillow": ".avif",
    "develop them to PNG or JPEG": (
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf "
        ".raw .rw2 .rwl .sr2 .srf .srw .x3f"
    ),
    "convert them to PNG or JPEG": (
        ".ai .avifs .blp .bpg .cur .dcm .dcx .dds .djvu .emf .eps .exr .fit .fits .flif .hdr .icns "
        ".ico .j2c .j2k .jp2 .jpc .jpf .jpx .jxr .kra .pcx .pdf .pfm .pict .psb .psd .qoi .ras "
        ".rgb .rgba .sgi .svg .svgz .tga .wdp .wmf .xbm .xcf .xpm"
    ),
    "take images out of them, with ffmpeg": ".avi .m4v .mkv .mov .mp4 .mpeg .mpg .webm .wmv",
    "unpack them": ".7z .bz2 .gz .rar .tar .tgz .xz .zip",
    "give one of them as --data": ".npz",
    "read them by --data hf:FOLDER": ".parquet",
}
OF_MANY = (".npz", ".parquet", *ADVICE["unpack them"].split())  # images, where one is asked for
ADVICE_FOR = {ending: advice for advice, endings in ADVICE.items() for ending in endings.split()}


@cache
def known() -> dict[str, str]:
    """Return the formats that can be read here, by the endings of files: those of SUFFIXES that
    Pillow was built with or has a plugin for."""
    for name, start in PLUGINS.items():
        with suppress(ImportError, OSError):  # it is not installed, or parts of it are missing
            plugin = importlib.import_module(name)
            if start:
                getattr(plugin, start)()
    registered = Image.registered_extensions()
    return {suffix: registered[suffix] for suffix in SUFFIXES if suffix in registered}


@cache
def formats() -> tuple[str, ...]:
    """Return the names that Pillow has for the formats that can be read here, and set Pillow up."""
    # So large, blocks of pixels are the system's again once they are freed. Of smaller ones glibc
    # keeps some for every thread.
    Image.core.set_block_size(2**26)
    return tuple(sorted({name for name in known().values() if name in Image.OPEN}))


def ending(name: str) -> str:
    """Return the ending of a file's name, such as ".png"; "" where it has none."""
    return os.path.splitext(name)[1].lower()


def advice(name: str) -> str:
    """Return the end of a sentence on a file that is not an image, where it is one of a format that
    is not read here: what to do about it; else ""."""
    kind = ending(name)
    found = None if kind in known() or kind in OF_MANY else ADVICE_FOR.get(kind)
    return f" of a format that is read here: {found}" if found else ""


def count_endings(names: Iterable[str]) -> dict[str, int]:
    """Return how many files have each ending, the most frequent first."""
    return dict(Counter(map(ending, names)).most_common())
