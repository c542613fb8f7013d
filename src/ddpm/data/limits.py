"""Limits on the files that are read, so that none takes more memory or time than it is worth."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

MIN_SIDE = 8  # of an image, in pixels
MAX_PIXELS = 100_000_000  # of an image
MAX_BYTES = 500_000_000  # of an image file
MAX_SCANS = 100  # of a progressive JPEG, each a pass over the whole image; ten are usual

DEFAULT_SIDE = 64  # of images that differ in size or are large, where no size is asked for
MAX_DEFAULT_SIDE = 128  # up to which images of one size keep it

MAX_COMPRESSION = 100  # how many times smaller an archive may pack a file …
MIN_COMPRESSED_BYTES = 50_000_000  # … that has more bytes than this


class PixelBudget:
    """A limit on the pixels that threads decode at once."""

    def __init__(self, pixels: int):
        self.available, self.changed = pixels, Condition()

    @contextmanager
    def reserve(self, n: int) -> Iterator[None]:
        """Reserve n pixels, waiting until so many are available."""
        with self.changed:
            self.changed.wait_for(lambda: n <= self.available)
            self.available -= n
        try:
            yield
        finally:
            with self.changed:
                self.available += n
                self.changed.notify_all()


PIXEL_BUDGET = PixelBudget(2 * MAX_PIXELS)


def check_entry(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return the entry of an archive. Raises ValueError where unpacking it could exhaust memory:
    of the compression methods, Deflate alone can be unpacked in part."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("is packed in another way than Deflate: pack it again with Deflate")
    if info.file_size > max(MIN_COMPRESSED_BYTES, MAX_COMPRESSION * info.compress_size):
        raise ValueError(f"unpacks from {info.compress_size:,} to {info.file_size:,} bytes")
    return info
