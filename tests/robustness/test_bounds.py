"""Decoding has a bound, in bytes and in seconds, whatever is handed in."""

import io
import os
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

BYTES = 1_000_000_000  # above Python with torch
SECONDS = 10

DECODE = """
import resource, sys, time
from pathlib import Path
import torch
from PIL import Image
from ddpm import UserError, load_images
from ddpm.data.inspect import inspect_images
from ddpm.data import decode
decode.formats(), torch.ones(9).sum()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
start = time.monotonic()
try:
    data = load_images(sys.argv[1], (16,))
    print("learned", len(data), *data.notes)
    inspect_images(data, sys.argv[1])
except UserError as error:
    print("refused", error)
print(time.monotonic() - start, file=sys.stderr)
"""


def decoded_in_bounds(path, tmp_path):
    """What a process says that learns the images and may not take more memory."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("this system does not bound memory")
    environment = os.environ | {"DDPM_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DECODE, path, str(BYTES)], capture_output=True, text=True,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "emory" not in done.stdout.replace("MB of memory", "")
    assert "allocate" not in done.stdout
    *warned, seconds = done.stderr.strip().split("\n")
    assert not [line for line in warned if "decoding" not in line], warned
    return done.stdout, float(seconds)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(side, depth, kind, bytes_a_pixel):
    """A PNG of one value, made without its pixels in memory."""
    packer, rows = zlib.compressobj(1), []
    for _ in range(side):
        rows.append(packer.compress(bytes(1 + side * bytes_a_pixel)))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0))
    data = chunk(b"IDAT", b"".join(rows) + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b"")


def webp_head(side):
    """A WebP that says it is as large, and has next to nothing."""
    size = struct.pack("<I", side - 1)[:3]
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + size + size
    rest = saved(Image.new("RGBA", (16, 16)), "WEBP", lossless=True)[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(extended) + len(rest)) + b"WEBP" + extended + rest


def large_files():
    """Small files of large images, of every format and depth."""
    flat = Image.new("RGB", (5000, 5000), (200, 30, 60))
    yield "rgba.png", png(8000, 8, 6, 4)
    yield "rgba16.png", png(8000, 16, 6, 8)
    yield "gray16.png", png(8000, 16, 0, 2)
    yield "rgb.png", png(12_000, 8, 2, 3)
    yield "huge.png", png(30_000, 1, 0, 1)[:4000]
    yield "a.webp", saved(flat, "WEBP", quality=1, method=0)
    yield "b.webp", webp_head(16_384)
    yield "a.avif", saved(flat, "AVIF", quality=1, speed=10)
    yield "lzw.tif", saved(flat, "TIFF", compression="tiff_lzw")
    yield "tile.tif", tile_of(40_000)
    yield "float.tif", saved(Image.new("F", (4000, 4000), 1), "TIFF", compression="tiff_lzw")
    yield "a.gif", saved(Image.new("P", (9000, 9000)), "GIF")
    yield "b.gif", saved(flat.resize((64, 64)), "GIF")[:-1] + b"\x21\xfe" + b"\x01a" * 290_000
    yield "cmyk.jpg", saved(flat.convert("CMYK"), "JPEG", quality=5)
    yield "progressive.jpg", saved(flat, "JPEG", quality=5, progressive=True)


def tile_of(side):
    """A TIFF of a small image in one tile, which is huge."""
    tags = {256: 64, 257: 64, 258: 8, 259: 5, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 99}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(200)


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heavy")
    for name, data in large_files():
        (folder / name).write_bytes(data)
        (folder / f"again-{name}").write_bytes(data)
    return folder


def test_no_file_takes_more_memory_than_a_gigabyte(heavy, tmp_path):
    """All of them at once, each twice, as many threads as there are."""
    said, _ = decoded_in_bounds(heavy, tmp_path)
    assert said.startswith("learned")
    print(said)
