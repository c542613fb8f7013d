"""Image files without what describes them: what is needed to decode the first image.

What cameras and programs add is often broken, and can be made to cost any time and memory. Of it
the orientation is found here, and no decoder is shown the rest.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal, NamedTuple

from .limits import MAX_PARTS, MAX_TAG_VALUES

ORIENTATION, NUMBER_OF_IMAGES = 0x0112, 0xB001  # tags of Exif, and of a JPEG's further images
COMPRESSION, LZMA = 0x0103, 34925  # a tag of TIFF; a method that takes what memory it is told to
TABLES = (34665, 34853, 40965)  # tags that name the places of Exif, GPS and more
TAG_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
MAX_ADDED = 2**20  # bytes of a part that are searched for the orientation
MAX_DIRECTORIES = 10_000  # of a TIFF that are counted

BIG_TIFF = (b"\x2b\0", b"\0\x2b")
TIFF_HEAD = re.compile(rb"(?s).{,20}?(II\x2a\0|MM\0\x2a)")
XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")
PNG_PROFILE = re.compile(rb"(?s).{4}(?:zTXt|tEXt)Raw profile type (?:exif|APP1)\0\0?(.*)")
JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # but those that stand among the pixels
AVIF = re.compile(rb"avi[fs]")  # among the brands; HEIC files have others
AVIF_EXIF = re.compile(rb"(?s)(infe[\2\3].{5,7}\0\0)Exif")


class Container(NamedTuple):
    """An image file without what describes it.

    format       Pillow's name of the format; "": another than those known here
    data         what is left of the file
    orientation  what was told of it, 1 to 8 as in Exif; 1 is upright
    frames       how many images the file has; 0: its decoder knows
    """

    format: str
    data: bytes
    orientation: int = 1
    frames: int = 0


Part = tuple[int, int, Literal["needed", "added", "image"]]
"""Where a part of a file begins and ends, and what it is: a further image is not needed."""


def open_container(data: bytes) -> Container:
    """Return what is to be decoded; the file as it is where this is another format.

    Raise ValueError for a file that would take much time or memory for what it is.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return stripped("JPEG", data, jpeg_parts)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return stripped("PNG", data, png_parts)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return stripped("GIF", data, gif_parts)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return stripped("WEBP", data, webp_parts)._replace(data=data, frames=0)
    if data[4:8] == b"ftyp" and AVIF.search(data, 8, min(64, int.from_bytes(data[:4], "big"))):
        return Container("AVIF", AVIF_EXIF.sub(rb"\1none", data))  # Pillow tells irot, imir
    if data.startswith((b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")):
        return check_tiff(data)
    if data.startswith(b"BM"):
        return Container("BMP", data, frames=1)
    if re.match(rb"P[1-6fF]\s", data):
        return Container("PPM", data, frames=1)
    return Container("", data)


def stripped(kind: str, data: bytes, parts: Callable[[bytes], Iterator[Part]]) -> Container:
    """Return the parts of the file that are needed, and what follows the last."""
    spans, end, exif, xmp, frames = [[0, 0]], 0, 0, 0, 1
    for number, (start, end, what) in enumerate(parts(data)):
        if number > MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS:,} parts of one file are too many")
        if what == "needed" and spans[-1][1] == start:
            spans[-1][1] = end
        elif what == "needed":
            spans.append([start, end])
        elif what == "added" and kind != "GIF":
            block = data[start : min(end, start + MAX_ADDED)]
            exif, xmp = exif or exif_orientation(block), xmp or xmp_orientation(block)
            frames = max(frames, announced_images(block))
        frames += what == "image"
    spans.append([end, len(data)])
    if sum(max(0, end - start) for start, end in spans) < len(data):
        view = memoryview(data)
        data = b"".join(view[start:end] for start, end in spans)
    return Container(kind, data, exif or xmp or 1, frames)


# ---- the parts of a file, in order -----------------------------------------------------------


def jpeg_parts(data: bytes) -> Iterator[Part]:
    """Yield the segments, and what follows the last: other images, or a film."""
    at, pixels = 2, False
    yield 0, at, "needed"
    while found := JPEG_MARKER.search(data, at):
        start, marker = found.start(), data[found.end() - 1]
        yield at, start, "needed" if pixels else "added"
        at = start + 2
        if marker == 0xD9:
            yield start, at, "needed"
            yield at, len(data), "added"
            return
        if marker not in (0x01, 0xD8):  # which are alone
            at += int.from_bytes(data[at : at + 2], "big")
        pixels |= marker == 0xDA
        needed = 0xC0 <= marker <= 0xE0 or marker == 0xEE  # of E0 on, two tell what colours mean
        yield start, at, "needed" if needed else "added"


def png_parts(data: bytes) -> Iterator[Part]:
    """Yield the chunks, and all that follows the last."""
    yield 0, 8, "needed"
    at, kind = 8, b""
    while at + 12 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        start, at = at, at + 12 + length
        if at > len(data):
            raise ValueError("the file is cut short")
        needed = kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
        yield start, at, "needed" if needed else "added"
    if kind == b"IEND":
        yield at, len(data), "added"


def gif_parts(data: bytes) -> Iterator[Part]:
    """Yield the blocks, and all that follows the last."""

    def table(flags: int) -> int:
        return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0

    at, images = 13 + table(data[10]) if len(data) > 13 else len(data), 0
    yield 0, at, "needed"
    while at + 10 < len(data) and data[at] in (0x21, 0x2C):
        image = data[at] == 0x2C
        needed = not images and (image or data[at + 1] == 0xF9)  # which is of transparency
        head = at + (11 + table(data[at + 9]) if image else 2)
        yield at, head, "needed" if needed else "image" if image else "added"
        images, at = images + image, head
        while at < len(data):
            length, start, at = data[at], at, at + 1 + data[at]
            yield start, at, "needed" if needed else "added"
            if not length:
                break
    if images:
        yield at, len(data), "added"


def webp_parts(data: bytes) -> Iterator[Part]:
    """Yield the chunks."""
    yield 0, 12, "needed"
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        start, at = at, at + 8 + length + length % 2
        yield start, at, "added" if kind in (b"EXIF", b"XMP ") else "needed"


# ---- what is found in them -------------------------------------------------------------------


def exif_orientation(block: bytes) -> int:
    """Return the orientation in a part that holds Exif; 0 where there is none."""
    if profile := PNG_PROFILE.match(block):
        block = unpacked_profile(profile[1][:-4])
    head = TIFF_HEAD.match(block)
    return valid(read_tag(block[head.start(1) :], ORIENTATION)) if head else 0


def xmp_orientation(block: bytes) -> int:
    """Return the orientation in a part that holds XMP; 0 where there is none."""
    found = XMP_ORIENTATION.search(block)
    return int(found[1]) if found else 0


def valid(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 0


def unpacked_profile(text: bytes) -> bytes:
    """Return what a PNG has in hexadecimal after three lines; b"" where it is broken."""
    with suppress(zlib.error, ValueError, IndexError):
        if not text.startswith(b"\n"):
            text = zlib.decompressobj().decompress(text, MAX_ADDED)
        return bytes.fromhex(text.split(b"\n", 3)[3].decode("ascii", "replace"))
    return b""


def announced_images(block: bytes) -> int:
    """Return the number of images of an animated PNG or of a JPEG with others behind it."""
    if block[4:8] == b"acTL" and len(block) >= 12:
        return int.from_bytes(block[8:12], "big")
    if block[:2] == b"\xff\xe2" and block[4:8] == b"MPF\0":
        return read_tag(block[8:], NUMBER_OF_IMAGES)
    return 0


class Tag(NamedTuple):
    """A tag of a TIFF: its place in the file, its number, the type and the number of its values,
    the first of them where it stands beside these, and where they end."""

    place: int
    number: int
    kind: int
    values: int
    first: int
    end: int


def read_tag(tiff: bytes, number: int) -> int:
    """Return the number that a tag has in the first directory of a TIFF; 0 where there is none."""
    first = next(directories(tiff), iter(()))
    return next((t.first for t in first if t.number == number and t.kind in (1, 3, 4)), 0)


def directories(tiff: bytes) -> Iterator[Iterator[Tag]]:
    """Yield the tags of each directory of a TIFF, while it has them, and none twice."""
    order = "<" if tiff[:1] == b"I" else ">"
    name: Literal["little", "big"] = "little" if order == "<" else "big"
    big = tiff[2:4] in BIG_TIFF
    pointer, count, entry = (order + kind for kind in (("Q", "Q", "HHQ8s") if big else
                                                       ("I", "H", "HHI4s")))  # fmt: skip

    def tags(at: int, n: int) -> Iterator[Tag]:
        with suppress(struct.error):
            for i in range(min(n, 2**16)):
                place = at + i * struct.calcsize(entry)
                number, kind, values, rest = struct.unpack_from(entry, tiff, place)
                first = int.from_bytes(rest[: {1: 1, 3: 2}.get(kind, 4)], name)
                size = values * TAG_BYTES.get(kind, 1)
                end = size + int.from_bytes(rest, name) if size > len(rest) else 0
                yield Tag(place, number, kind, values, first, end)

    met: set[int] = set()
    with suppress(struct.error):
        (at,) = struct.unpack_from(pointer, tiff, 8 if big else 4)
        while at and at not in met and len(met) < MAX_DIRECTORIES:
            met.add(at)
            (n,) = struct.unpack_from(count, tiff, at)
            yield tags(at + struct.calcsize(count), n)
            end = at + struct.calcsize(count) + n * struct.calcsize(entry)
            (at,) = struct.unpack_from(pointer, tiff, end)


def check_tiff(data: bytes) -> Container:
    """Return a TIFF whose decoder looks neither at its orientation nor for other tables, nor beyond
    the end of the file: these tags become texts.

    Raise ValueError where the tags of its first image would take much memory.
    """
    pages = list(directories(data))
    order = "<" if data[:1] == b"I" else ">"
    text = struct.pack(order + ("HQ" if data[2:4] in BIG_TIFF else "HI"), 2, 1)
    view, at, total, orientation = memoryview(data), 0, 0, 0
    parts: list[bytes | memoryview] = []
    for tag in pages[0] if pages else ():
        if tag.number == ORIENTATION:
            orientation = valid(tag.first)
        if tag.number in (ORIENTATION, *TABLES) or tag.end > len(data):
            parts += [view[at : tag.place + 2], text]
            at = tag.place + 2 + len(text)
            continue
        total += tag.values * TAG_BYTES.get(tag.kind, 1)
        many = tag.kind in TAG_BYTES and tag.values > MAX_TAG_VALUES
        if many or total > 2 * len(data) + MAX_ADDED:
            raise ValueError("its tags hold more than the file")
        if tag.number == COMPRESSION and tag.first == LZMA:
            raise ValueError("is packed by LZMA: pack it in another way")
    whole = b"".join([*parts, view[at:]]) if parts else data
    return Container("TIFF", whole, orientation or 1, len(pages))


def webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a WebP; (0, 0) where it does not say."""
    kind, rest = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        return tuple(1 + int.from_bytes(rest[i : i + 3], "little") for i in (4, 7))  # type: ignore[return-value]
    if kind == b"VP8L":
        bits = int.from_bytes(rest[1:5], "little")
        return 1 + bits % 2**14, 1 + (bits >> 14) % 2**14
    w, h = struct.unpack_from("<HH", rest, 6)
    return w % 2**14, h % 2**14
