"""Files of any content: each is read, or refused in a sentence, in little time and memory.

Every case here is a small valid file that was damaged, or bytes that were made up. DDPM_FUZZ=10000
makes 10,000 cases of each kind where a normal run makes a few; the cases are always the same.
"""

import io
import json
import os
import shutil
import socket
import struct
import zipfile
import zlib
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image, features
from safetensors.torch import load_file, save, save_file

from ddpm import load, load_images
from ddpm.checkpoint.checkpoint import (
    VERSION,
    BatchHeader,
    Header,
    StateHeader,
    build,
    digest,
    load_state,
    save_state,
)
from ddpm.checkpoint.checkpoint import save as save_checkpoint
from ddpm.checkpoint.diffusers import WEIGHTS, read_diffusers, write_diffusers
from ddpm.config import Config, DataInfo, read_toml, to_dict, validated
from ddpm.core.ema import EMA
from ddpm.data.decode import SUFFIXES
from ddpm.training.optimizers import build_optimizer
from ddpm.training.replay import replay
from promise import SECONDS, promised

CASES = int(os.environ.get("DDPM_FUZZ", 0)) or 80

fuzz = settings(
    max_examples=CASES, deadline=1000 * SECONDS, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate, Phase.shrink],
)  # fmt: skip


# ---- the ground -------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def bounded(tmp_path_factory):
    """No room for a fault to take the machine down with it, no network, a cache of its own."""
    resource = pytest.importorskip("resource", reason="this system does not bound memory")
    now, pages = resource.getrlimit(resource.RLIMIT_AS), Path("/proc/self/statm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDPM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(socket.socket, "connect", no_network)
        if pages.exists():
            used = int(pages.read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 8 * 2**30, now[1]))
        yield
        resource.setrlimit(resource.RLIMIT_AS, now)


def no_network(*args):
    raise OSError("there is no network in this test")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Makes a folder for each case, which goes with it, and so does what was cached."""

    @contextmanager
    def new():
        with TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:
            yield Path(folder)
        shutil.rmtree(os.environ["DDPM_CACHE"], ignore_errors=True)

    return new


# ---- damage ----------------------------------------------------------------------------------

NUMBERS = [0, 1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
HUGE = "9" * 5000  # what stands for it in a text is a number that Python will not read or write

wounds = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "drop", "insert", "repeat", "number", "swap"]),
        st.integers(0, 2**20),
        st.integers(0, 2**20),
        st.sampled_from([*NUMBERS, *range(3, 20)]),
        st.sampled_from(["<B", "<H", ">H", "<I", ">I", "<Q", ">Q"]),
        st.binary(max_size=12),
    ),
    min_size=1,
    max_size=3,
)
few = st.one_of(st.just([]), st.just([]), wounds)


def damaged(data, wounds):
    """The bytes with a few of them turned, cut off, left out, put in, repeated or exchanged."""
    data = bytearray(data)
    for how, a, b, number, form, some in wounds:
        n = len(data)
        if not n:
            break
        # Half of them lie in the first bytes or the last, where formats have their heads.
        near = a // 4 % min(n, 80)
        at = (a // 4 % n, a // 4 % n, near, n - 1 - near)[a % 4]
        size = 1 + b % 16
        if how == "flip":
            data[at] ^= 1 << b % 8
        elif how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at : at + size]
        elif how == "insert":
            data[at:at] = some
        elif how == "repeat":
            data[at:at] = data[at : at + size] * (1 + b % 50)
        elif how == "number":
            size = struct.calcsize(form)
            data[at : at + size] = struct.pack(form, number % 256**size)
        else:
            first, second = sorted((at, b % n))
            data[first:] = data[second:] + data[first:second]
    return bytes(data)


odd_text = st.one_of(
    st.sampled_from(["", ".", "..", "../../x", "/x", "\x1b[2J", "a\nb", "\x00", "\u202e", "é"]),
    st.text(max_size=8),
)
odd_values = st.one_of(
    st.sampled_from(
        [None, True, False, -1, 0, 1, 2, 3, 7, 64, 65, 8192, 2**31, 2**53, 2**63, 2**64, 10**30,
         -(10**30), "HUGE", 0.5, 1e-320, 1e300, float("nan"), float("inf"), -float("inf"), "ema",
         "cosine", "nan", "x" * 5000, [], {}, [[]], {"": {}}, [0] * 40, [1] * 10_000, ["x"] * 100,
         {str(i): i for i in range(500)}]
    ),
    odd_text,
    st.integers(),
    st.floats(),
    st.builds(lambda depth, table: nested(depth, table), st.integers(1, 100), st.booleans()),
)  # fmt: skip
pokes = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "remove", "add", "rename"]),
        st.lists(st.integers(0, 63), min_size=1, max_size=4),
        odd_text,
        odd_values,
    ),
    max_size=3,
)


def nested(depth, table):
    value = 1
    for _ in range(depth):
        value = {"a": value} if table else [value]
    return value


def poked(tree, pokes):
    """Tables and lists of which a few entries are something else, gone, new or under a new name."""
    tree = json.loads(json.dumps(tree))
    for how, way, name, value in pokes:
        node, value = tree, deepcopy(value)
        for step in way[:-1]:
            parts = node.values() if isinstance(node, dict) else node
            inner = [v for v in parts if isinstance(v, dict | list) and v]
            node = inner[step % len(inner)] if inner else node
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[way[-1] % len(keys)]
        if how == "remove" and len(keys) > 1:
            del node[key]
        elif how in ("add", "rename") and isinstance(node, dict):
            node[name] = node.pop(key) if how == "rename" else value
        else:
            node[key] = value
    return tree


def as_json(tree):
    return json.dumps(tree).replace('"HUGE"', HUGE)


# ---- images ----------------------------------------------------------------------------------


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


# ---- checkpoints -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net():
    """The smallest network that diffusers knows too, its config, and the data it is for."""
    config = Config(
        data="noise",
        steps=4,
        unet=replace(Config().unet, channels=4, mults=(1, 2), blocks=1, groups=2, attention=(2,)),
    )
    config = replace(config, train=replace(config.train, batch=2))
    data = DataInfo("noise", 9, 1, 8, 8, ("a", "b"), "f")
    return build(config, data)[0], config, data


def in_json(header):
    return json.loads(json.dumps(asdict(header)))


def write_poked(path, tensors, header, pokes, changes):
    """A file of ours with true checksums, but for what was done to its header and tensors."""
    tensors = altered(tensors, changes)
    about = {"ddpm": as_json(poked(in_json(header), pokes)), "sha256": digest(tensors)}
    save_file(tensors, path, metadata=about)


changes = st.lists(
    st.tuples(
        st.integers(0, 999),
        st.sampled_from(
            ["gone", "flat", "more", "scalar", "zero", "nan", "huge", torch.float64, torch.float16,
             torch.int64, torch.bool, torch.uint8, torch.complex64, torch.float8_e4m3fn]
        ),
    ),
    max_size=2,
)  # fmt: skip


def altered(tensors, changes):
    """The same tensors, but for a few of another type or shape, or with other numbers."""
    tensors = dict(tensors)
    for which, what in changes:
        name = sorted(tensors)[which % len(tensors)]
        if what == "gone":
            del tensors[name]
        else:
            tensors[name] = changed(tensors[name], what)
    form = torch.contiguous_format
    return {k: v.clone(memory_format=form) for k, v in tensors.items()}


def changed(tensor, what):
    if isinstance(what, torch.dtype):
        return tensor.real.to(what)
    if what == "flat":
        return tensor.flatten()
    if what == "more":
        return torch.stack([tensor, tensor])
    if what == "scalar":
        return torch.tensor(1.0)
    return torch.full(tensor.shape, {"zero": 0.0, "nan": float("nan"), "huge": 1e38}[what])


def used(checkpoint):
    """A network that was accepted can be asked, where that costs little."""
    shape = checkpoint.data.channels, checkpoint.data.height, checkpoint.data.width
    if np.prod(shape) <= 1000:
        out = checkpoint.net(torch.zeros(1, *shape), torch.ones(1, dtype=torch.long), None)
        assert out.shape == (1, *shape)
        assert out.dtype == torch.float32


@fuzz
@given(wounds)
def test_checkpoints_with_damaged_bytes(place, net, wounds):
    unet, config, data = net
    header = Header(VERSION, "ema", 4, 8, data, config)
    file = save(unet.state_dict(), metadata={"ddpm": json.dumps(asdict(header))})
    with place() as folder:
        (folder / "model.safetensors").write_bytes(damaged(file, wounds))
        with promised():
            used(load(folder))


KINDS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "BOOL": 8,
    "I8": 8, "U8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
stored = st.dictionaries(
    st.one_of(odd_text, st.sampled_from(["w", "conv_in.weight", "x0", "y"])),
    st.tuples(st.sampled_from(sorted(KINDS)), st.lists(st.integers(0, 4), max_size=4)),
    max_size=3,
)
said = st.one_of(
    st.none(),
    odd_values,
    st.fixed_dictionaries({"ddpm": odd_values.map(lambda value: as_json(value))}),
    st.fixed_dictionaries({"ddpm": odd_text, "sha256": odd_text}),
    st.just({"ddpm": "[" * 100_000}),
)


@fuzz
@given(
    stored,
    said,
    st.one_of(st.just([]), pokes),
    st.one_of(st.none(), st.none(), st.none(), st.sampled_from(NUMBERS)),
)
def test_checkpoints_with_made_up_tables(place, stored, said, pokes, length):
    """Tensors of every kind and none, which lie over one another or are not there."""
    table, at = {} if said is None else {"__metadata__": said}, 0
    for name, (kind, shape) in stored.items():
        end = at + int(np.prod(shape)) * KINDS[kind] // 8
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = as_json(poked(table, pokes) if table else table).encode()
    head = (len(text) if length is None else length).to_bytes(8, "little")
    with place() as folder:
        (folder / "x.safetensors").write_bytes(head + text + bytes(at))
        with promised():
            load(folder / "x.safetensors")


@fuzz
@given(pokes, changes)
def test_checkpoints_with_odd_headers(place, net, pokes, changes):
    unet, config, data = net
    with place() as folder:
        header = Header(VERSION, "ema", 4, 8, data, config)
        write_poked(folder / "x.safetensors", unet.state_dict(), header, pokes, changes)
        with promised():
            used(load(folder / "x.safetensors"))


@pytest.fixture(scope="module")
def state(place, net):
    """The tensors and the header of a state, and what it is of."""
    unet, config, data = net
    ema, optimizer = EMA(unet, 0.99), build_optimizer(unet, config.train)
    sum(p.sum() for p in unet.parameters()).backward()
    optimizer.step()
    with place() as folder:
        path = folder / "state.safetensors"
        save_state(path, 4, 1.0, 1.0, unet, ema, optimizer, config, data)
        header = StateHeader(VERSION, 4, 1.0, 4, data, config)
        yield load_file(path), header, (unet, ema, optimizer, config, data)


@fuzz
@given(pokes, changes, few)
def test_states(place, state, pokes, changes, wounds):
    """What was accepted can be trained on."""
    tensors, header, (unet, ema, optimizer, config, data) = state
    with place() as folder:
        path = folder / "state.safetensors"
        write_poked(path, tensors, header, pokes, changes)
        path.write_bytes(damaged(path.read_bytes(), wounds))
        with promised():
            load_state(path, unet, ema, optimizer, config, data)
            optimizer.step()
            ema.update(unet)


@fuzz
@given(pokes, changes, st.lists(st.integers(-1, 3), min_size=2, max_size=2))
def test_bad_batches(place, net, pokes, changes, labels):
    unet, config, data = net
    tensors = {f"raw.{k}": v for k, v in unet.state_dict().items()}
    tensors |= {"x0": torch.zeros(2, 1, 8, 8), "y": torch.tensor(labels)}
    with place() as folder:
        header = BatchHeader(VERSION, 4, 0, data, config)
        write_poked(folder / "x.safetensors", tensors, header, pokes, changes)
        with promised():
            assert replay(folder / "x.safetensors").text()


@pytest.fixture(scope="module")
def theirs(place, net):
    """What lies in a folder of diffusers': two tables, and the tensors."""
    unet, config, data = net
    with place() as folder:
        save_checkpoint(folder / "x.safetensors", unet, config, data, 4, 8)
        write_diffusers(load(folder / "x.safetensors"), folder / "there")
        unet, scheduler = (
            json.loads((folder / "there" / name).read_text())
            for name in ("unet/config.json", "scheduler/scheduler_config.json")
        )
        yield unet, scheduler, load_file(folder / "there" / "unet" / WEIGHTS)


@fuzz
@given(
    st.one_of(st.just([]), pokes), st.one_of(st.just([]), pokes), st.one_of(st.none(), pokes),
    changes,
)  # fmt: skip
def test_folders_of_diffusers(place, net, theirs, in_net, in_scheduler, in_header, changes):
    _, config, data = net
    unet, scheduler, tensors = theirs
    with place() as folder:
        (folder / "config.json").write_text(as_json(poked(unet, in_net)))
        (folder / "scheduler_config.json").write_text(as_json(poked(scheduler, in_scheduler)))
        about = None
        if in_header is not None:  # it says that it was ours
            header = in_json(Header(VERSION, "ema", 4, 8, data, config))
            about = {"ddpm": as_json(poked(header, in_header))}
        save_file(altered(tensors, changes), folder / WEIGHTS, metadata=about)
        with promised():
            used(read_diffusers(folder))


# ---- settings --------------------------------------------------------------------------------

texts = st.one_of(
    st.builds(lambda pokes: tomli_w.dumps(tomlable(poked(to_dict(Config(steps=4)), pokes))), pokes),
    st.text(max_size=200),
    st.builds(
        lambda a, n, b: a + b * n,
        st.sampled_from(["steps = ", "x", "[", "unet.", "steps = [", "[unet]\n", "data = '"]),
        st.sampled_from([1, 10, 500, 5000, 100_000]),
        st.sampled_from(["[", "{a=", "a.", "9", "x = 1\n", "'", '"', "[[a]]\n", "\\", "0x", "é"]),
    ),
    st.builds(lambda value: f"steps = {value}", st.sampled_from([HUGE, "0x" + "f" * 5000])),
    st.integers(1, 5000).map(lambda n: "a." * n + "a = 1"),
    st.integers(1, 2000).map(lambda n: "".join(f"x{i} = {i}\n" for i in range(n))),
)


def tomlable(tree):
    """The same without what TOML has no word for."""
    if isinstance(tree, dict):
        return {k: tomlable(v) for k, v in tree.items() if v is not None}
    return [tomlable(v) for v in tree if v is not None] if isinstance(tree, list) else tree


@fuzz
@given(texts, wounds)
def test_config_files(place, text, wounds):
    with place() as folder:
        path = folder / "config.toml"
        text = text.replace('"HUGE"', HUGE)
        path.write_bytes(damaged(text.encode("utf-8", "surrogatepass"), wounds))
        with promised():
            assert isinstance(read_toml(path), Config)


@fuzz
@given(pokes)
def test_tables_of_settings(pokes):
    with promised():
        config = validated(Config, poked(to_dict(Config(steps=4)), pokes), "here")
        assert validated(Config, to_dict(config)) == config
