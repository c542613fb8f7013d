"""Settings and files of weights that were made to do harm.

Each is refused in a sentence, before it costs much.
"""

import json
import struct
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ddpm import UserError, load
from ddpm.checkpoint.checkpoint import Header, build, save
from ddpm.checkpoint.diffusers import WEIGHTS, read_diffusers
from ddpm.checkpoint.header import VERSION
from ddpm.checkpoint.tensors import digest
from ddpm.config import Config, DataInfo, read_toml
from ddpm.evaluation.report import read_report
from ddpm.training.nonfinite import BatchHeader
from ddpm.training.replay import replay
from ddpm.utils.errors import plain
from promise import refused


def test_what_files_say_does_nothing_to_the_terminal():
    assert str(UserError("a\x1b[2Jb\nc\u202ed")) == "a\\x1b[2Jb\\nc\\u202ed"
    assert plain("a" * 50 + "b" * 50, 10) == "aaaaa … bbbbb"
    assert len(str(UserError("\0" * 10**6))) < 2000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = " + "[" * 5000, "nested too deeply"),
        ("x = " + "{a=" * 5000, "nested too deeply"),
        ("steps = " + "9" * 5000, "cannot be read as TOML"),
        ("steps = 0x" + "f" * 5000, "thousands of digits"),
        ("seed = [" + "0x" + "f" * 5000 + "]", "thousands of digits"),
        ("a." * 7000 + "a = 1", "a Unexpected keyword"),
        ("a." * 100_000 + "a = 1", "more than 16,000 bytes"),
        ("#" * 100_000_000, "more than 16,000 bytes"),
        ("".join(f"x{i} = {i}\n" for i in range(1000)), "1,000 entries are unknown or invalid"),
        ('data = 3\n"\\u001B[2J" = 1', r"\\x1b\[2J Unexpected"),
        ('unet.mults = "' + "x" * 10_000 + '"', r"not 'x+\.\.\.x+'"),
        (f"unet.mults = {[1] * 1000}", "mults .* at most 16 items"),
        (f"unet.attention = {[1] * 17}", "attention .* at most 16 items"),
        ("train.batch = 9223372036854775808", "batch should be less than"),
    ],
)
def test_a_config_that_is_too_much(tmp_path, text, words):
    (tmp_path / "config.toml").write_text(text)
    refused(words, read_toml, tmp_path / "config.toml")


def test_other_files_of_settings(tmp_path):
    path = tmp_path / "a.json"
    for text in ("[" * 100_000, "9" * 5000, " " * 2_000_000, "{}"):
        path.write_text(text)
        refused("a.json", read_report, path)
    path.rename(tmp_path / "config.json")
    for text in ("[" * 100_000, "9" * 5000, " " * 20_000_000, "[]"):
        (tmp_path / "config.json").write_text(text)
        refused("config.json cannot be read", read_diffusers, tmp_path)


CONFIG = Config(
    data="noise",
    unet=replace(Config().unet, channels=4, mults=(1,), blocks=1, groups=2, attention=()),
)
DATA = DataInfo("noise", 9, 1, 8, 8, ("a", "b"), "f")


def weights():
    return build(CONFIG, DATA)[0].state_dict()


def put(path, tensors, header):
    about = {"ddpm": header if isinstance(header, str) else json.dumps(header)}
    save_file(tensors, path, metadata=about | {"sha256": digest(tensors)})
    return path


def table(**changes):
    """A header with changes, each under its place in it."""
    header = json.loads(json.dumps(asdict(Header(VERSION, "ema", 4, 8, DATA, CONFIG))))
    for place, value in changes.items():
        *way, last = place.split("__")
        node = header
        for key in way:
            node = node[key]
        node[last] = value
    return header


def test_the_header_of_these_tests_is_sound(tmp_path):
    assert load(put(tmp_path / "x.safetensors", weights(), table())).step == 4


@pytest.mark.parametrize("size", [20_000_000, 10**12, 2**64 - 1])
def test_a_header_of_any_length(tmp_path, size):
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", size) + b"{" + b" " * (30_000_000 if size < 10**9 else 10))
    refused("its header would have more than 4,000,000 bytes", load, tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        '{"version": 1, "config": {' + ",".join(f'"{i}":1' for i in range(300_000)) + "}}",
        table(data__classes=[1] * 1_000_000),
        table(config__unet__mults=[1] * 1_000_000),
        table(config__unet__attention=["x"] * 500_000),
    ],
    ids=["keys", "classes", "mults", "attention"],
)
def test_a_header_full_of_faults(tmp_path, header):
    refused("damaged header", load, put(tmp_path / "x.safetensors", weights(), header))


def test_no_header_is_written_that_could_not_be_read(tmp_path):
    data = replace(DATA, classes=tuple(map(str, range(500_000))))
    refused(
        "500,000 classes", save, tmp_path / "x.safetensors", nn.Linear(1, 1), CONFIG, data, 0, 0
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("step", 10**30, "step should be less than"),
        ("config__unet__channels", 8192, "do not fit its own config"),
        ("config__unet__mults", [64] * 16, "do not fit its own config"),
        ("config__unet__blocks", 64, "do not fit its own config"),
        ("config__diffusion__T", 10**9, "T should be less than or equal to"),
        ("data__channels", 8192, "do not fit its own config"),
    ],
)
def test_a_network_larger_than_its_weights(tmp_path, place, value, words):
    refused(words, load, put(tmp_path / "x.safetensors", weights(), table(**{place: value})))
    batch = put(tmp_path / "y.safetensors", {f"raw.{k}": v for k, v in weights().items()}, "")
    batch = put(
        batch,
        {f"raw.{k}": v for k, v in weights().items()},
        table(first=0, **{place: value}),
    )
    refused(words, replay, batch)


@pytest.mark.parametrize("kind", [torch.complex64, torch.int64, torch.bool])
def test_weights_are_real_numbers(tmp_path, kind):
    tensors = {name: tensor.to(kind) for name, tensor in weights().items()}
    refused("do not fit its own config", load, put(tmp_path / "x.safetensors", tensors, table()))


@pytest.mark.parametrize(
    "change",
    [
        {"x0": torch.zeros(())},
        {"x0": torch.zeros(2, 3, 8, 8)},
        {"x0": torch.zeros(2, 1, 8, 8, dtype=torch.int64)},
        {"x0": torch.zeros(0, 1, 8, 8)},
        {"y": torch.tensor([0, 3])},
        {"y": torch.tensor([0, -1])},
        {"y": torch.tensor([0, 1, 1])},
        {"y": torch.tensor([0.0, 1.0])},
        {"batch": 2**62},
        {"batch": 1},
        {"first": 1},
    ],
    ids=str,
)
def test_a_batch_that_is_none_of_the_run(tmp_path, change):
    config = replace(CONFIG, train=replace(CONFIG.train, batch=change.pop("batch", 2)))
    header = asdict(BatchHeader(VERSION, 4, change.pop("first", 0), DATA, config))
    tensors = {f"raw.{k}": v for k, v in weights().items()}
    tensors |= {"x0": torch.zeros(2, 1, 8, 8), "y": torch.tensor([0, 1])} | change
    refused(
        "images do not fit its own config", replay, put(tmp_path / "x.safetensors", tensors, header)
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_class_embeds": 10**12}, "num_class_embeds should be less"),
        ({"block_out_channels": [0, 0]}, "block_out_channels.0 should be greater"),
        ({"block_out_channels": []}, "block_out_channels"),
        ({"block_out_channels": [10**6, 10**6]}, "channels should be less than or equal to 8192"),
        ({"block_out_channels": "wide"}, "block_out_channels should be a valid tuple"),
        ({"down_block_types": [[], {}]}, "down_block_types.0 should be a valid string"),
        ({"attention_head_dim": "x"}, "attention_head_dim should be a valid integer"),
        ({"norm_num_groups": 3}, "do not fit its own config"),
        ({"sample_size": [8]}, "sample_size"),
        ({"act_fn": [[[]]]}, "act_fn"),
        ({"num_train_timesteps": 10**10}, "num_train_timesteps should be less than"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps should be a valid integer"),
        ({"trained_betas": ["x"]}, "trained_betas.0 should be a valid number"),
        ({"beta_start": []}, "beta_start should be a valid number"),
    ],
)
def test_settings_of_diffusers_that_make_no_network(tmp_path, settings, words):
    unet = {
        "block_out_channels": [4, 8], "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2, "downsample_padding": 0, "flip_sin_to_cos": False,
        "freq_shift": 1, "norm_eps": 1e-6, "norm_num_groups": 2, "sample_size": 8,
        "attention_head_dim": None,
    }  # fmt: skip
    for name in ("config", "scheduler_config"):
        (tmp_path / f"{name}.json").write_text(json.dumps(unet | settings))
    save_file({"time_embedding.linear_1.weight": torch.zeros(3)}, tmp_path / WEIGHTS)
    refused(words, read_diffusers, tmp_path)
