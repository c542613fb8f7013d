"""Damaged and made-up files of weights.

Each is read, or refused in a sentence, in little time and memory.
"""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from ddpm import load
from ddpm.checkpoint.checkpoint import Header, build
from ddpm.checkpoint.checkpoint import save as save_checkpoint
from ddpm.checkpoint.diffusers import (
    WEIGHTS,
    read_diffusers,
    scheduler_table,
    write_diffusers,
)
from ddpm.checkpoint.foreign import Recipe, read_foreign
from ddpm.checkpoint.header import VERSION
from ddpm.checkpoint.layouts import IMPROVED_DIFFUSION, to_layout
from ddpm.checkpoint.tensors import digest, load_tensors
from ddpm.config import Config, DataInfo
from ddpm.core.ema import EMA
from ddpm.training.nonfinite import BatchHeader
from ddpm.training.optimizers import build_optimizer
from ddpm.training.replay import replay
from ddpm.training.state import StateHeader, TrainState
from fuzzing import (
    NUMBERS,
    as_json,
    damaged,
    few,
    fuzz,
    odd_text,
    odd_values,
    poked,
    pokes,
    wounds,
)
from promise import promised

pytestmark = pytest.mark.usefixtures("bounded")


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
    """The tensors and the header of a state, and the state itself."""
    unet, config, data = net
    ema, optimizer = EMA(unet, 0.99), build_optimizer(unet, config.train)
    sum(p.sum() for p in unet.parameters()).backward()
    optimizer.step()
    ema.updates = 4
    state = TrainState(unet, ema, optimizer, config, data, step=4, seconds=1.0)
    with place() as folder:
        state.save(folder / "state.safetensors")
        header = StateHeader(VERSION, 4, 1.0, 4, data, config)
        yield load_file(folder / "state.safetensors"), header, state


@fuzz
@given(pokes, changes, few)
def test_states(place, state, pokes, changes, wounds):
    """What was accepted can be trained on."""
    tensors, header, state = state
    with place() as folder:
        path = folder / "state.safetensors"
        write_poked(path, tensors, header, pokes, changes)
        path.write_bytes(damaged(path.read_bytes(), wounds))
        with promised():
            state.restore(path, *load_tensors(path, StateHeader))
            state.optimizer.step()
            state.ema.update(state.net)


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
        checkpoint = load(folder / "x.safetensors")
        write_diffusers(checkpoint, folder / "there")
        table = json.loads((folder / "there" / "unet/config.json").read_text())
        yield table, scheduler_table(checkpoint), load_file(folder / "there" / "unet" / WEIGHTS)


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


@fuzz
@given(pokes, pokes, changes)
def test_folders_with_code_of_their_own(place, net, in_net, in_index, changes):
    """The code is never run; what the header says of it is all that is read."""
    unet, config, data = net
    with place() as folder:
        table = {"_class_name": "DDPMUNet", "settings": asdict(config.unet)}
        index = {"header": in_json(Header(VERSION, "ema", 4, 8, data, config))}
        (folder / "config.json").write_text(as_json(poked(table, in_net)))
        (folder / "model_index.json").write_text(as_json(poked(index, in_index)))
        tensors = {f"net.{name}": t for name, t in unet.state_dict().items()}
        save_file(altered(tensors, changes), folder / WEIGHTS)
        with promised():
            used(read_diffusers(folder))


@pytest.fixture(scope="module")
def openai(place):
    """A .pt file of improved-diffusion's layout, its bytes, and its tensors."""
    torch.manual_seed(0)
    config = replace(Config().unet, channels=32, mults=(1,), blocks=1, attention=(), heads=4)
    config = replace(config, conventions="improved-diffusion")
    data = DataInfo("noise", 9, 3, 8, 8, (), "f")
    net, _ = build(replace(Config(), unet=config), data)
    tensors = to_layout(net.state_dict(), config, IMPROVED_DIFFUSION)
    with place() as folder:
        torch.save(tensors, folder / "x.pt")
        yield (folder / "x.pt").read_bytes(), tensors


@fuzz
@given(wounds)
def test_damaged_files_of_other_programs(place, openai, wounds):
    whole, _ = openai
    with place() as folder:
        (folder / "x.pt").write_bytes(damaged(whole, wounds))
        with promised():
            used(read_foreign(folder / "x.pt", Recipe((8,))))


@fuzz
@given(changes)
def test_odd_tensors_of_other_programs(place, openai, changes):
    _, tensors = openai
    with place() as folder:
        torch.save(altered(tensors, changes), folder / "x.pt")
        with promised():
            used(read_foreign(folder / "x.pt", Recipe((8,))))
