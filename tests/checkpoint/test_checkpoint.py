"""Checkpoints: what is saved is loaded, and what cannot be used is refused in a sentence."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ddpm import UserError, build, load, save, train
from ddpm.checkpoint.checkpoint import PRETRAINED, Header, load_initial
from ddpm.checkpoint.header import VERSION, is_whole
from ddpm.checkpoint.tensors import digest, load_tensors, read_tensors
from ddpm.config import DataInfo, read_toml

DATA = DataInfo("noise", 9, 1, 8, 8, ("a", "b"), "f")


@pytest.fixture
def small(tiny):
    torch.manual_seed(0)
    return build(tiny, DATA)[0]


def test_what_is_saved_is_loaded(small, tiny, tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, small, tiny, DATA, step=3, images_seen=48)
    checkpoint = load(path)
    assert (checkpoint.config, checkpoint.data) == (tiny, DATA)
    assert (checkpoint.step, checkpoint.images_seen, checkpoint.weights) == (3, 48, "ema")
    assert checkpoint.conditional
    assert not checkpoint.net.training
    for name, tensor in small.state_dict().items():
        assert torch.equal(checkpoint.net.state_dict()[name], tensor)


@pytest.mark.parametrize("name", PRETRAINED)
def test_bundled_weights_are_loaded_by_name(name):
    assert load(name).images_seen > 0


def test_a_checkpoint_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "x.safetensors"):
        with pytest.raises(UserError, match=r"there is no checkpoint at .* mnist, cifar10"):
            load(path)
    (tmp_path / "config.toml").write_text("steps = 1\n")
    with pytest.raises(UserError, match="has written no checkpoint yet"):
        load(tmp_path)


def test_a_flipped_bit_is_found(small, tiny, tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, small, tiny, DATA, 0, 0)
    data = bytearray(path.read_bytes())
    data[-5] ^= 64
    path.write_bytes(data)
    assert is_whole(path)  # by its length
    with pytest.raises(UserError, match="its contents are not those that were written"):
        load(path)
    path.write_bytes(data[:-1])
    assert not is_whole(path)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load(path)


def test_files_that_are_no_checkpoints_of_this_version(small, tiny, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(small.state_dict(), path)
    with pytest.raises(UserError, match="but not a checkpoint of ddpm"):
        load(path)
    header = asdict(Header(VERSION + 1, "ema", 0, 0, DATA, tiny))
    save_file(small.state_dict(), path, metadata={"ddpm": json.dumps(header)})
    with pytest.raises(UserError, match="was written by a newer ddpm"):
        load(path)


def test_the_digest_is_of_names_and_numbers():
    a = {"x": torch.ones(2), "y": torch.zeros(3)}
    assert digest(a) == digest(dict(reversed(a.items())))
    assert digest(a) != digest({"x": torch.ones(2), "z": torch.zeros(3)})
    assert digest(a) != digest({"x": torch.ones(2), "y": torch.ones(3)})


def test_settings_that_fit_no_network(tiny):
    with pytest.raises(UserError, match="the settings do not fit together"):
        build(replace(tiny, unet=replace(tiny.unet, groups=7)), DATA)


def test_initial_weights(small, tiny, tmp_path):
    """Other classes have an embedding of their own; another network is refused."""
    path = tmp_path / "x.safetensors"
    save(path, small, tiny, DATA, 0, 0)
    other, _ = build(tiny, replace(DATA, classes=("a", "b", "c")))
    embedding = other.label.weight.clone()
    load_initial(other, replace(DATA, classes=("a", "b", "c")), str(path))
    assert torch.equal(other.label.weight, embedding)
    assert torch.equal(other.conv_in.weight, small.conv_in.weight)
    wider, _ = build(replace(tiny, unet=replace(tiny.unet, channels=16)), DATA)
    with pytest.raises(UserError, match="another network"):
        load_initial(wider, DATA, str(path))


def test_files_with_the_names_of_before_still_load(tiny, tmp_path):
    weighted = replace(tiny.diffusion, weight="min-snr", min_weight=0.5)
    config, run = replace(tiny, diffusion=weighted), tmp_path / "run"
    train(config, run, device="cpu")
    wanted = load(run)
    earlier = {
        '"min_weight"': '"floor"', '"images_seen"': '"images"', '"lr_scale"': '"caution"',
        f'"version": {VERSION}': '"version": 1',
        '"compile": false': '"compile": false, "shard": false',
    }  # fmt: skip
    for path in (run / "model.safetensors", run / "state" / "state.safetensors"):
        tensors, metadata = read_tensors(path)
        for new, old in earlier.items():
            metadata["ddpm"] = metadata["ddpm"].replace(new, old)
        assert '"shard"' in metadata["ddpm"]
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata)
    text = (run / "config.toml").read_text().replace("min_weight", "floor")
    (run / "config.toml").write_text(
        text.replace("compile = false", "compile = false\nshard = false")
    )

    assert "shard = false" in (run / "config.toml").read_text()
    assert read_toml(run / "config.toml") == config
    checkpoint = load(run)
    assert (checkpoint.config, checkpoint.images_seen) == (wanted.config, wanted.images_seen)
    assert train(replace(config, steps=config.steps + 2), run, device="cpu", resume=True).finished


def test_the_header_says_what_a_checkpoint_is_of(small, tiny, tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, small, tiny, DATA, 3, 48, weights="as given")
    assert load(path).weights == "as given"
    assert load_tensors(path, Header)[1] == Header(VERSION, "as given", 3, 48, DATA, tiny)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["ddpm"])["sha256"] == digest(load_file(path))


def test_one_checkpoint_is_one_file_byte_for_byte(small, tiny, tmp_path):
    """Twelve times, as safetensors writes two keys of metadata in an order drawn at random."""
    for i in range(12):
        save(tmp_path / f"{i}", small, tiny, DATA, 3, 48)
    assert len({(tmp_path / f"{i}").read_bytes() for i in range(12)}) == 1


def test_a_checksum_beside_the_header_is_still_checked(small, tiny, tmp_path):
    """It stood there before."""
    path = tmp_path / "x.safetensors"
    save(path, small, tiny, DATA, 3, 48)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["ddpm"])
    sha256 = header.pop("sha256")
    save_file(load_file(path), path, {"ddpm": json.dumps(header), "sha256": sha256})
    assert load(path).step == 3
    save_file(load_file(path), path, {"ddpm": json.dumps(header), "sha256": "0" * 64})
    with pytest.raises(UserError, match="damaged"):
        load(path)


def test_a_repr_is_one_short_line():
    text = repr(load("mnist"))
    assert text.startswith("Checkpoint(mnist, 1x28x28, 10 classes, ")
    assert len(text) < 100


def test_the_hash_of_the_weights_is_that_of_the_network():
    one, other = load("mnist"), load("mnist")
    assert one.weights_hash() == other.weights_hash()
    next(other.net.parameters()).data[0] += 1
    assert one.weights_hash() != other.weights_hash()
