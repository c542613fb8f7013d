"""Limits on the files that are read, so that none takes more memory or time than it is worth."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Condition

MIN_SIDE = 8  # of an image, in pixels
MAX_CHANNELS = 4  # of an image
MAX_PIXELS = 250_000_000  # of an image: the largest cameras of phones have 200 million
MAX_BYTES = 250_000_000  # of all image files that are read at once
MAX_MEMORY = 550_000_000  # bytes that all images take which are decoded at once
MAX_CHUNK = 60_000_000  # of all decoded images that are not written yet
MAX_SCANS = 100  # of a progressive JPEG, each a pass over the whole image; ten are usual …
MAX_SCANNED = 2_500_000_000  # … and the pixels of all of them
MAX_SLOW_PIXELS = 4_000_000  # of an image whose decoder is written in Python
MAX_THREADS = min(8, os.cpu_count() or 1)  # that decode: each takes memory for itself too
MAX_PARTS = 300_000  # of an image file, such as chunks and blocks
MAX_TAG_VALUES = 1_000_000  # of a TIFF's tag

MAX_TABLE_BYTES = 100_000_000  # of a table of labels
MAX_TABLE_ROWS = 2_000_000

DEFAULT_SIDE = 64  # of images that differ in size or are large, where no size is asked for
MAX_DEFAULT_SIDE = 128  # up to which images of one size keep it

MAX_COMPRESSION = 100  # how many times smaller an archive may pack a file …
MIN_COMPRESSED_BYTES = 50_000_000  # … that has more bytes than this, …
MIN_ARCHIVE_BYTES = 1_000_000_000  # … and all of its files, if they have more than this


class MemoryPool:
    """A limit on the bytes, or pixels, that threads hold at once."""

    def __init__(self, total: int):
        self.total = self.available = total
        self.changed = Condition()

    @contextmanager
    def reserve(self, n: int) -> Iterator[None]:
        """Reserve n, waiting until so much is available. Raise ValueError for more than all."""
        if n > self.total:
            raise ValueError(f"takes {n / 1e6:,.0f} MB of memory, of {self.total / 1e6:,.0f} MB")
        with self.changed:
            self.changed.wait_for(lambda: n <= self.available)
            self.available -= n
        try:
            yield
        finally:
            with self.changed:
                self.available += n
                self.changed.notify_all()


READING, DECODING = MemoryPool(MAX_BYTES), MemoryPool(MAX_MEMORY)
# A thread takes of them in this order, so that none waits for one that waits for it.


def check_archive(infos: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError where the entries of an archive of `size` bytes would take far more than
    that, or lie over one another."""
    packed, whole = (
        sum(getattr(i, f"{kind}_size") for i in infos) for kind in ("compress", "file")
    )
    if packed > size:
        raise ValueError("its files overlap")
    if whole > max(MIN_ARCHIVE_BYTES, MAX_COMPRESSION * size):
        raise ValueError(f"it unpacks from {size:,} to {whole:,} bytes")


def check_entry(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return the entry of an archive. Raise ValueError where unpacking it could exhaust memory:
    of the compression methods, Deflate alone can be unpacked in part."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("is packed in another way than Deflate: pack it again with Deflate")
    if info.file_size > max(MIN_COMPRESSED_BYTES, MAX_COMPRESSION * info.compress_size):
        raise ValueError(f"unpacks from {info.compress_size:,} to {info.file_size:,} bytes")
    return info
