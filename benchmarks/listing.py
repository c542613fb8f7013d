"""What many small files cost before training: listing them, and starting on images that are cached,
beside the least there is: os.walk and reading their bytes.

python benchmarks/listing.py --n 200000
"""

import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from ddpm.data.formats import known
from ddpm.data.listing import list_files
from ddpm.data.load import load_images

PER_FOLDER = 1000


@dataclass(frozen=True)
class Options:
    n: int = 2000
    """Files."""
    side: int = 32
    """Pixels a side."""


def make(folder: Path, options: Options) -> None:
    """Write n images, a thousand to a class."""
    random = np.random.default_rng(0)
    for i in range(options.n):
        path = folder / f"class-{i // PER_FOLDER:04}" / f"{i:07}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (options.side, options.side, 3), np.uint8)
        Image.fromarray(pixels).save(path, compress_level=0)


def walk_and_read(folder: Path) -> None:
    for where, _, names in os.walk(folder):
        for name in names:
            Path(where, name).read_bytes()


def seconds(do: Callable[..., Any], *words: Any) -> float:
    begun = time.perf_counter()
    do(*words)
    return time.perf_counter() - begun


def peak_memory(do: Callable[..., Any], *words: Any) -> int:
    """Return the most bytes that Python and NumPy hold at once meanwhile."""
    tracemalloc.start()
    do(*words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> None:
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as place:
        os.environ["DDPM_CACHE"] = str(Path(place, "cache"))
        folder = Path(place, "set")
        folder.mkdir()
        make(folder, options)
        walk_and_read(folder)  # into the system's cache of files
        known()  # the formats, once a process
        least = seconds(walk_and_read, folder)
        rows = {
            "os.walk and reading": least,
            "listing": seconds(list_files, folder),
            "first start, which decodes": seconds(load_images, folder),
            "later starts": seconds(load_images, folder),
        }
        for name, took in rows.items():
            print(f"{name:28} {took:8.2f} s {took / least:6.2f} times")
        for name, do in (("listing", list_files), ("later starts", load_images)):
            peak = peak_memory(do, folder)
            print(f"{name:28} {peak / 1e6:8.1f} MB {peak / options.n:8.0f} bytes a file")


if __name__ == "__main__":
    main()
