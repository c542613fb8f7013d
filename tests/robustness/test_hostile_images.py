"""Images, archives and folders that were made to do harm.

Each is refused in a sentence, before it costs much.
"""

import io
import os
import struct
import subprocess
import zipfile
from dataclasses import asdict
from threading import Lock

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import load, load_images
from ddpm.config import DataInfo, read_toml, validated
from ddpm.data import decode as decoding
from ddpm.data.limits import MemoryPool
from ddpm.evaluation.report import read_report
from promise import promised, refused


def picture(kind="PNG", side=12, **options):
    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, kind, **options)
    return file.getvalue()


def test_no_image_runs_a_program(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, lambda *a, **k: pytest.fail("a program was run"))
    (tmp_path / "a.png").write_bytes(picture("EPS"))
    refused("not an image", load_images, tmp_path)


def test_a_jpeg_of_many_scans(tmp_path):
    """Each costs a hundred bytes and a pass over the whole image."""
    whole = picture("JPEG", side=4000, progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(whole[:-2] + scan * 10_000 + whole[-2:])
    refused("passes over one image", load_images, tmp_path)


def test_large_images_are_decoded_a_few_at_a_time(tmp_path, monkeypatch):
    side, most, at_once = 1500, 2, [0]
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr("ddpm.data.decode.DECODING", MemoryPool(most * 5 * side * side))
    decode, lock = decoding.to_pixels, Lock()

    def watched(*image):
        with lock:
            at_once.append(at_once[-1] + 1)
        pixels = decode(*image)
        with lock:
            at_once.append(at_once[-1] - 1)
        return pixels

    monkeypatch.setattr("ddpm.data.decode.to_pixels", watched)
    black = picture(side=side)
    for i in range(24):
        (tmp_path / f"{i}.png").write_bytes(black)
    with promised():
        assert len(load_images(tmp_path)) == 24
    assert len(at_once) == 49
    assert max(at_once) <= most


def zipped(path, entries, method=zipfile.ZIP_DEFLATED, level=None):
    with zipfile.ZipFile(path, "w", method, compresslevel=level) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def with_field(path, at, value):
    """A zip with another number in the first line of its table of contents."""
    data = bytearray(path.read_bytes())
    at += data.index(b"PK\x01\x02")
    data[at : at + 4] = struct.pack("<I", value)
    path.write_bytes(data)
    return path


def test_a_zip_that_unpacks_to_a_thousand_times_its_size(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.png", bytes(200_000_000))])
    refused("unpacks from 194,[0-9]* to 200,000,000 bytes", load_images, path)


def test_a_zip_that_tells_a_lie_of_its_size(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.png", picture() + bytes(800_000_000))], level=1)
    with promised():
        with_field(path, 24, 1000)
        assert len(load_images(path).images) == 1  # what it said, and nothing behind that


def test_a_zip_packed_by_what_cannot_be_unpacked_in_part(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.png", bytes(40_000_000))], zipfile.ZIP_BZIP2)
    with_field(path, 24, 1000)
    refused("another way than Deflate", load_images, path)


def test_a_zip_whose_files_lie_over_one_another(tmp_path):
    """A small file with a long table of contents, each line of which names the same megabytes."""
    path = zipped(tmp_path / "a.zip", [("a.png", bytes(40_000_000))])
    data = path.read_bytes()
    at, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    lines = b"".join(data[at:end].replace(b"a.png", b"%c.png" % (97 + i)) for i in range(26)) * 40
    head = struct.pack("<HHII", 1040, 1040, len(lines), at)
    path.write_bytes(data[:at] + lines + data[end : end + 8] + head + data[end + 20 :])
    refused("its files overlap", load_images, path)


def test_a_zip_in_many_parts(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.png", picture())])
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    path.write_bytes(data[:end] + b"PK\x06\x07" + struct.pack("<IQI", 0, 0, 7) + data[end:])
    refused("cannot be read as a zip: .*multiple disks", load_images, path)


def test_names_in_a_zip_lead_nowhere(tmp_path):
    names = ["../../up.png", "/etc/top.png", "", "a/b.png", "\x1b[2J/c.png"]
    (tmp_path / "in").mkdir()
    path = zipped(tmp_path / "in" / "a.zip", [(zipfile.ZipInfo(n), picture()) for n in names])
    before = {p for p in tmp_path.rglob("*") if "cache" not in p.name}
    with promised():
        assert set(load_images(path).classes) <= {"/", "etc", "a", "\\x1b[2J"}
    assert {p for p in tmp_path.rglob("*") if "cache" not in p.name} == before


def npy(header, data=b""):
    text = str(header).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        ((10**9, 64, 64), "|u1", "is cut short"),
        ((2**70, 8, 8), "|u1", "is cut short"),
        ((8, 8, 8), "|O", "cannot be read as an npz"),
    ],
)
def test_an_npz_of_arrays_that_are_not_there(tmp_path, shape, kind, words):
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    refused(
        words, load_images, zipped(tmp_path / "a.npz", [("images.npy", npy(header, bytes(9999)))])
    )


def test_an_npz_that_unpacks_to_a_thousand_times_its_size(tmp_path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (10_000, 100, 100, 3)}
    path = zipped(tmp_path / "a.npz", [("images.npy", npy(header, bytes(300_000_000)))])
    refused("unpacks from", load_images, path)


@pytest.mark.skipif(os.name == "nt", reason="no folder lies so deep there")
def test_folders_too_deep_to_be_looked_through(tmp_path):
    """They are made and left one by one: no name of a path is as long as theirs."""
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1500):
            os.mkdir("a")
            os.chdir("a")
    finally:
        os.chdir(here)
    try:
        with promised():
            load_images(tmp_path)
    finally:
        subprocess.run(["rm", "-r", tmp_path / "a"], check=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("a", "a.npz", "a.toml", "a.json"):
        os.mkfifo(tmp_path / name)
    refused("is not a folder, a zip or an npz", load_images, tmp_path / "a")
    refused("is not a folder, a zip or an npz", load_images, tmp_path / "a.npz")
    refused("it is not a file", read_toml, tmp_path / "a.toml")
    refused("it is not a file", read_report, tmp_path / "a.json")
    refused("there is no checkpoint", load, tmp_path / "a")


def test_a_file_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.data.decode.MAX_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(bytes(1001))
    refused("more than 1,000 bytes", load_images, tmp_path)


def test_a_name_that_no_text_can_hold(tmp_path):
    """The classes of a run end up in its checkpoint, which must be read again."""
    for name in (b"caf\xe9", b"tea"):
        folder = os.path.join(os.fsencode(tmp_path), b"set\xff", name)
        try:
            os.makedirs(folder)
        except OSError:
            pytest.skip("this system has no such names")
        with open(os.path.join(folder, b"1.png"), "wb") as file:
            file.write(picture())
    data = load_images(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"set\xff")))
    assert data.classes == ("caf\\udce9", "tea")
    assert validated(DataInfo, asdict(data.info)) == data.info


def test_a_name_as_long_as_can_be(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / ("x" * 250)
    folder.mkdir()
    (folder / "1.png").write_bytes(picture())
    assert len(load_images(folder)) == 1
    assert list((tmp_path / "cache").iterdir())  # nor is it left out of the cache
    refused("there is no data at", load_images, "x" * 5000)


def idx(array):
    head = bytes([0, 0, 8, array.ndim])
    return head + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.mark.parametrize("labels", [[1, 2, 3], [1, 2, 3, 10], [], [1, 2, 3, 4, 5]])
def test_labels_that_are_not_those_of_the_images(tmp_path, labels):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(np.zeros((4, 8, 8), np.uint8)))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx(np.array(labels, np.uint8)))

    def read():
        load_images("mnist", root=tmp_path)

    refused("mnist is not whole", read)


def test_a_cache_with_another_table(tmp_path, monkeypatch):
    """It is not trusted for being whole: one figure may have changed on the disk."""
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.png").write_bytes(picture())
    true = load_images(tmp_path / "set")
    (path,) = (tmp_path / "cache").glob("*.safetensors")
    whole = path.read_bytes()
    for old, new in (
        (b"[2, 3, 12, 12]", b"[2, 3, 12, 11]"),
        (b"I64", b"U64"),
        (b'"b\\"', b'"c\\"'),
    ):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        again = load_images(tmp_path / "set")
        assert again.info == true.info
        assert torch.equal(again.labels, true.labels)
