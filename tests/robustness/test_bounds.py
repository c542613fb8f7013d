"""Decoding has a bound, in bytes and in seconds, whatever is handed in."""

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from ddpm import UserError, load_images
from ddpm.data.decode import decode_to_fit, fit

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
    if sys.argv[3:]:
        inspect_images(data, sys.argv[1])
except UserError as error:
    print("refused", error)
print(time.monotonic() - start, file=sys.stderr)
"""


def decoded_in_bounds(path, tmp_path, look=False):
    """What a process says that learns the images and may not take more memory."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("this system does not bound memory")
    environment = os.environ | {"DDPM_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DECODE, path, str(BYTES), *look * ["look"]],
        capture_output=True, text=True, env=environment,
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


@pytest.mark.long
def test_what_is_decoded_at_once_takes_less_than_a_gigabyte(tmp_path):
    """Of each format the most that is decoded, twice, so that several threads have to share."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name, data in large_files():
        if name in ("rgba.png", "a.webp", "a.avif", "b.webp", "tile.tif", "huge.png"):
            (folder / name).write_bytes(data)
            (folder / f"again-{name}").write_bytes(data)
    said, _ = decoded_in_bounds(folder, tmp_path)
    assert said.startswith("learned 6"), said
    assert "6 of 12 images skipped" in said
    assert "(16384x16384 pixels are too many)" in said
    assert "MB of memory, of" in said


@pytest.mark.long
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_an_array_larger_than_memory_is_read_in_parts(tmp_path, kind):
    """A file with holes, which reads as zeros."""
    shape, dtype = (400, 1000, 1000, 3), np.dtype(kind)
    with (tmp_path / "a.npy").open("wb") as file:
        about = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, about)
        file.truncate(file.tell() + int(np.prod(shape)) * dtype.itemsize)
    said, _ = decoded_in_bounds(tmp_path / "a.npy", tmp_path)
    assert said.startswith("learned 400")


@pytest.mark.long
def test_every_large_file_and_a_look_at_each(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, data in large_files():
        for i in range(3):
            (folder / f"{i}-{name}").write_bytes(data)
    assert decoded_in_bounds(folder, tmp_path, look=True)[0].startswith("learned")


@pytest.mark.long
def test_no_file_takes_ten_seconds(tmp_path):
    for name, data in large_files():
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(data)
        assert decoded_in_bounds(tmp_path / name, tmp_path)[1] < SECONDS, name


def test_a_picture_of_the_largest_phone_camera(tmp_path):
    """200 megapixels: decoded at an eighth of its size, of which there is enough."""
    image = Image.linear_gradient("L").resize((16_320, 12_240), Image.Resampling.NEAREST)
    (tmp_path / "set").mkdir()
    image.save(tmp_path / "set" / "phone.jpg", quality=60)
    del image
    said, seconds = decoded_in_bounds(tmp_path / "set", tmp_path)
    assert said.startswith("learned 1")
    assert "skipped" not in said
    assert seconds < SECONDS
    data = (tmp_path / "set" / "phone.jpg").read_bytes()
    small = decode_to_fit(data, "L", (16, 16)).astype(int)
    plain = np.asarray(Image.linear_gradient("L").resize((2040, 1530)))
    expected = fit(Image.fromarray(plain), (16, 16)).astype(int)
    assert abs(small - expected).max() <= 2


def test_a_zip_that_unpacks_to_a_hundred_times_its_size(tmp_path, monkeypatch):
    """None of its files is large enough to be refused by itself."""
    monkeypatch.setattr("ddpm.data.limits.MIN_ARCHIVE_BYTES", 1_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(24):
            archive.writestr(f"{i}.png", bytes(45_000))
    with pytest.raises(UserError, match=r"zip bomb: it unpacks from [\d,]+ to 1,080,000 bytes"):
        load_images(tmp_path / "a.zip")


def test_what_python_decodes_is_bounded_too(tmp_path):
    """Plain PPM, and others of other depths, take a second a megapixel."""
    side = 2200
    (tmp_path / "a.ppm").write_bytes(b"P6 %d %d 100\n" % (side, side) + bytes(3 * side * side))
    with pytest.raises(UserError, match="pixels are too many for this kind of PPM"):
        load_images(tmp_path)
