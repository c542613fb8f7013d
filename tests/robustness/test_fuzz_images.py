"""Damaged and made-up files of images.

Each is read, or refused in a sentence, in little time and memory.
"""

import io
import os
import zipfile
import zlib
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from ddpm import load_images
from ddpm.config import DataInfo, validated
from ddpm.data.formats import SUFFIXES
from fuzzing import (
    NUMBERS,
    damaged,
    few,
    fuzz,
    odd_text,
    wounds,
)
from promise import promised

pytestmark = pytest.mark.usefixtures("bounded")


@cache
def pictures():
    """A small file of every format that is read, and of some that are not."""
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8))
    gray = rgb.convert("L")
    turned = Image.Exif()
    turned[0x0112] = 6
    tags = {"exif": turned}
    kinds = [
        (rgb, "PNG", {}), (gray, "PNG", tags), (rgb.convert("RGBA"), "PNG", {}),
        (rgb.convert("P"), "PNG", {"transparency": 0}), (gray.convert("1"), "PNG", {}),
        (Image.fromarray(np.asarray(gray).astype(np.uint16)), "PNG", {}),
        (rgb, "JPEG", tags), (gray, "JPEG", {"progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}), (rgb, "GIF", {}), (rgb, "BMP", {}),
        (rgb, "GIF", {"save_all": True, "append_images": [gray, rgb]}),
        (rgb, "PPM", {}), (gray, "PPM", {}), (gray.convert("F"), "TIFF", {}),
        (rgb, "TIFF", tags), (gray.convert("I"), "TIFF", {}), (rgb, "EPS", {}), (rgb, "ICO", {}),
    ]  # fmt: skip
    kinds += [(rgb, "WEBP", {"lossless": True}), (rgb, "WEBP", tags)] * features.check("webp")
    kinds += [(rgb, "AVIF", {})] * features.check("avif")
    if features.check("libtiff"):
        for compression in ("tiff_lzw", "tiff_deflate", "jpeg"):
            kinds.append((rgb, "TIFF", {"compression": compression}))
    files = []
    for image, kind, options in kinds:
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return [*files, b"P2\n8 8\n255\n" + b"7 " * 64, b"Pf\n8 8\n-1.0\n" + bytes(256)]


def sealed(png):
    """The same with true checksums, where it is a PNG: else no damage would be looked at."""
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        return png
    out, at = bytearray(png), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


contents = st.one_of(
    st.builds(
        lambda i, wounds: sealed(damaged(pictures()[i % len(pictures())], wounds)),
        st.integers(0, 999),
        st.one_of(wounds, wounds, wounds, few),
    ),
    st.binary(max_size=300),
)
suffixes = st.sampled_from([*SUFFIXES, ".PNG", ".txt", ""])
names = st.one_of(
    st.builds(lambda a, b, end: f"{a}/{b}{end}", odd_text, odd_text, suffixes),
    st.builds(lambda a, end: a + end, odd_text, suffixes),
    st.sampled_from(["a/1.png", "b/2.png", "../b/2.png", "/c/3.png", "x" * 300 + "/1.png"]),
)


def whole(images):
    """Images that training could take as they are."""
    n, c, h, w = images.images.shape
    assert n > 0
    assert min(c, h, w) > 0
    assert images.images.sum() >= 0  # they are there to be read
    if images.labels is not None:
        assert images.labels.shape == (n,)
        assert 0 <= images.labels.min() <= images.labels.max() < len(images.classes)
    assert all(note.isprintable() for note in images.notes)
    assert validated(DataInfo, asdict(images.info)) == images.info


def written(path, data):
    with suppress(OSError, ValueError):  # a name that no file can have
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@fuzz
@given(st.lists(st.tuples(contents, suffixes), min_size=1, max_size=3))
def test_image_files(place, files):
    with place() as folder:
        for i, (data, suffix) in enumerate(files):
            (folder / f"{i}{suffix}").write_bytes(data)
        with promised():
            whole(load_images(folder))


raw_names = st.one_of(
    names.map(os.fsencode),
    st.binary(min_size=1, max_size=8).map(lambda name: name + b".png"),
    st.binary(min_size=1, max_size=8).map(lambda name: name + b"/1.png"),
)
links = st.sampled_from(["/dev/zero", "/dev/null", "..", ".", "self.png", "/nowhere", "/etc"])


@fuzz
@given(
    st.lists(raw_names, max_size=4),
    st.lists(st.tuples(st.sampled_from(["a.png", "b.jpg", "self.png", "c"]), links), max_size=3),
    st.booleans(),
)
def test_folders_with_odd_names(place, names, links, pipe):
    with place() as folder:
        for name in names:
            inside = os.path.normpath(os.path.join(folder, "in", os.fsdecode(name).lstrip("/")))
            if Path(inside).is_relative_to(folder):
                written(Path(inside), pictures()[0])
        for name, target in links:
            with suppress(OSError):
                (folder / name).symlink_to(target)
        if pipe:
            os.mkfifo(folder / "pipe.png")
        with promised():
            whole(load_images(folder))


@fuzz
@given(st.one_of(odd_text, names, st.sampled_from(["/dev/null", "x" * 5000, "a/" * 3000])))
def test_odd_sources(source):
    if not os.path.isdir(source):  # "/" has images, but it takes a while to find them
        with promised():
            whole(load_images(source))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@fuzz
@given(
    st.lists(st.tuples(names, contents, st.sampled_from([0, 8, 8, 12, 14])), max_size=4),
    st.one_of(
        st.just([]), st.lists(st.tuples(st.integers(0, 3), st.sampled_from(NUMBERS)), max_size=2)
    ),
    few,
)
def test_zips(place, entries, lies, wounds):
    with place() as folder:
        path = folder / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data, method in entries:
                with suppress(UnicodeEncodeError):
                    archive.writestr(zipfile.ZipInfo(name or "x"), data, method)
        data = bytearray(path.read_bytes())
        for which, number in lies:  # sizes and places in the table of contents
            at = data.find(b"PK\x01\x02")
            if at >= 0:
                field = at + (20, 24, 42, 10)[which]
                data[field : field + 4] = (number % 2**32).to_bytes(4, "little")
        path.write_bytes(damaged(data, wounds))
        with promised():
            whole(load_images(path))


arrays = st.one_of(
    st.builds(
        lambda shape, kind: np.zeros(shape, kind),
        st.lists(st.integers(0, 12), max_size=5),
        st.sampled_from(["u1", "u1", "u1", "i8", "f4", "c8", "U3", "?", "M8[s]", "u1,u1"]),
    ),
    st.builds(
        lambda n: np.zeros((n, 8, 8, 3), np.uint8),
        st.integers(1, 4),
    ),
)
headers = st.builds(
    lambda kind, order, shape, rest: (
        f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, {rest}}}"
    ),
    st.sampled_from(["'|u1'", "'|O'", "'<i8'", "'V0'", "[]", "[('a', '|O')]", "'S0'", "'|u1'"]),
    st.sampled_from(["False", "True", "0", "'no'"]),
    st.sampled_from(
        ["(4, 8, 8)", "(1000000000, 64, 64)", "(2**70,)", "(-1, 8, 8)", "()", "(0, 8, 8)",
         "(99999999999999999999,)", "(4, 8, 8, 3)", "'x'", "[4, 8, 8]", "(True, 8, 8)",
         "(" * 300 + ")" * 300, "(4, 8.0, 8)", "(3000000000, 8)"]
    ),
    st.sampled_from(["", "", "'x': 1", "__import__('os')", "'descr': '|O'", "9" * 5000]),
)  # fmt: skip
members = st.one_of(
    st.builds(lambda array: npy(array), arrays),
    st.builds(lambda text, data: raw_npy(text, data), headers, st.binary(max_size=300)),
    st.binary(max_size=300),
    contents,
)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def raw_npy(header, data, version=1):
    text = header.encode() + b"\n"
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


@pytest.mark.filterwarnings("ignore:Duplicate name")
@fuzz
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["images.npy", "arr_0.npy", "arr_0.npy", "x.npy", "images", "é"]),
            members,
        ),
        min_size=1, max_size=2,
    ),
    st.lists(st.tuples(st.sampled_from(["labels.npy", "arr_1.npy", "y"]), members), max_size=1),
    st.sampled_from([0, 0, 8, 8, 8, 12]),
    few,
)  # fmt: skip
def test_npz_files(place, images, labels, method, wounds):
    with place() as folder:
        path = folder / "a.npz"
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in [*images, *labels]:
                archive.writestr(zipfile.ZipInfo(name), data, method)
        path.write_bytes(damaged(path.read_bytes(), wounds))
        with promised():
            whole(load_images(path))


def idx(array):
    head = bytes([0, 0, 8, array.ndim])
    return head + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@fuzz
@given(few, few, st.lists(st.integers(0, 11), min_size=6, max_size=7))
def test_mnist_files(place, in_images, in_labels, labels):
    images = np.arange(6 * 8 * 8, dtype=np.uint8).reshape(6, 8, 8)
    with place() as folder:
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for split in ("train", "t10k"):
            (raw / f"{split}-images-idx3-ubyte").write_bytes(damaged(idx(images), in_images))
            answers = idx(np.array(labels, np.uint8))
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(damaged(answers, in_labels))
        with promised():
            whole(load_images("mnist", root=folder))


@pytest.fixture(scope="module")
def cached(place):
    """A folder of images, what they are, and the files that the cache has of them."""
    with place() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDPM_CACHE", str(folder / "cache"))
        for name in ("set/a/1.png", "set/b/2.png"):
            written(folder / name, pictures()[0])
        images = load_images(folder / "set")
        yield (
            folder / "set",
            images,
            {p.name: p.read_bytes() for p in sorted((folder / "cache").iterdir())},
        )


@fuzz
@given(st.lists(wounds, min_size=2, max_size=2))
def test_the_cache_of_decoded_images(place, cached, wounds):
    """A damaged cache is made again, or at least holds images of the same kind."""
    source, true, files = cached
    with place() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDPM_CACHE", str(folder))
        for (name, data), its in zip(files.items(), wounds, strict=True):
            (folder / name).write_bytes(damaged(data, its))
        with promised():
            images = load_images(source)
            whole(images)
            assert images.info == true.info
            assert torch.equal(images.labels, true.labels)
