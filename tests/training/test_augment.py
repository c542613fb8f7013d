"""Augmentation: what is told is what was done, and what is sampled knows nothing of it."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ddpm import UNet, UserError, load, load_images, train
from ddpm.checkpoint.checkpoint import build
from ddpm.checkpoint.diffusers import read_diffusers, write_diffusers
from ddpm.checkpoint.run_dir import RunDir
from ddpm.checkpoint.tensors import under_prefix
from ddpm.cli.main import main
from ddpm.cli.train import read_train_options
from ddpm.training.augment import AUGMENT_DIM, augment
from ddpm.training.benchmark import measure_cost
from runs import assert_same, tensors

A = 0.4  # a probability at which every change is seen in a few images


def seeded(x0, p, **more):
    torch.manual_seed(0)
    return augment(x0, p, **more)


def with_augment(config, p=A):
    return replace(config, train=replace(config.train, augment=p))


SPOTS = ((0.0, 0.0), (20.0, 0.0), (0.0, 20.0))  # x and y from the middle


def spots(n, height, width):
    """Images (n, 3, height, width) with a round spot each, of height 1."""
    y = torch.arange(height)[:, None] - (height - 1) / 2
    x = torch.arange(width)[None] - (width - 1) / 2
    one = [torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 32) for a, b in SPOTS]
    return torch.stack(one).expand(n, -1, -1, -1)


def place_told(told, at, height, width):
    """Where a point goes by the nine numbers: mirrored, scaled, turned, stretched, shifted."""
    x, y = at
    a0, a1, a2, cos, sin, u, v, right, down = told.tolist()
    x, y = x * (1 - 2 * a0) * 2 ** (0.2 * a2), y * (1 - 2 * a1) * 2 ** (0.2 * a2)
    cos = cos + 1
    x, y = cos * x - sin * y, sin * x + cos * y
    size = math.hypot(u, v)
    if size:  # as much longer along (u, v) as it is shorter across; −(u, v) is the same line
        along, across = (x * u + y * v) / size, (y * u - x * v) / size
        along, across = along * 2 ** (0.2 * size), across / 2 ** (0.2 * size)
        x, y = (along * u - across * v) / size, (along * v + across * u) / size
    return x + right * width / 8, y + down * height / 8


@pytest.mark.parametrize("p", [A, 1.0])
@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 120)])
def test_what_is_told_is_what_was_done(p, height, width):
    images = spots(64, height, width)
    moved, told = seeded(images, p)
    seen = []
    for i, (k, at) in ((i, spot) for i in range(len(told)) for spot in enumerate(SPOTS)):
        x, y = place_told(told[i], at, height, width)
        row, column = round(y + (height - 1) / 2), round(x + (width - 1) / 2)
        if 0 <= row < height and 0 <= column < width:
            seen.append(moved[i, k, row, column].item())
    assert len(seen) > 100
    assert min(seen) > 0.8


def test_mirrored_images_are_mirrored_to_the_pixel(generator):
    x0 = torch.rand(256, 3, 9, 12, generator=generator) * 2 - 1
    moved, told = seeded(x0, 1e-9)
    assert told[:, 1:].eq(0).all()
    assert 0.4 < told[:, 0].mean() < 0.6
    mirrored = told[:, 0] == 1
    torch.testing.assert_close(moved[mirrored], x0[mirrored].flip(-1), rtol=0, atol=1e-5)
    assert torch.equal(moved[~mirrored], x0[~mirrored])


def test_each_change_is_made_as_often_as_asked():
    _, told = seeded(torch.zeros(20_000, 1, 1, 1), 0.2)
    often = (told != 0).float().mean(0)
    wanted = torch.tensor([0.5, 0.1, *[0.2] * 7])
    torch.testing.assert_close(often, wanted, rtol=0, atol=0.015)
    spread = told[:, 7:].square().mean(0)  # of N(0, 1), a fifth of the time
    torch.testing.assert_close(spread, torch.tensor([0.2, 0.2]), rtol=0, atol=0.02)


def test_values_stay_within_those_of_the_images(generator):
    x0 = torch.rand(64, 3, 16, 16, generator=generator) * 2 - 1
    moved, _ = seeded(x0, 1.0)
    assert moved.shape == x0.shape
    assert moved.abs().max() <= 1


def test_without_augmentation_nothing_is_drawn(generator):
    x0 = torch.rand(4, 3, 8, 8, generator=generator)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    same, told = augment(x0, 0.0)
    assert same is x0
    assert told is None
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_of_a_batch_are_changed_as_the_whole(generator):
    x0 = torch.rand(16, 3, 8, 8, generator=generator)
    whole = seeded(x0, A)
    parts = [seeded(x0[part], A, batch=16, part=part) for part in (slice(0, 8), slice(8, 16))]
    for one, both in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(one, torch.cat(both), rtol=0, atol=1e-6)


def test_told_zeros_a_network_is_as_without_the_layer(generator):
    small = {"channels": 16, "mults": (1, 2), "blocks": 1, "attention": (), "groups": 4}
    torch.manual_seed(0)
    plain = UNet(3, 2, **small)
    torch.manual_seed(0)
    told = UNet(3, 2, **small, augment_dim=AUGMENT_DIM)
    added = told.state_dict().keys() - plain.state_dict().keys()
    assert added == {"augment.weight"}
    assert all(torch.equal(v, told.state_dict()[k]) for k, v in plain.state_dict().items())
    for p in told.parameters():  # some begin as zeros
        torch.nn.init.normal_(p, std=0.1)
    plain.load_state_dict({k: told.state_dict()[k] for k in plain.state_dict()})
    x, t = torch.randn(2, 3, 8, 8, generator=generator), torch.tensor([3, 900])
    y, zeros = torch.tensor([0, 2]), torch.zeros(2, AUGMENT_DIM)
    assert torch.equal(told(x, t, y), plain(x, t, y))
    assert torch.equal(told(x, t, y, zeros), plain(x, t, y))
    assert not torch.allclose(told(x, t, y, zeros + 1), plain(x, t, y))


def test_a_run_is_resumed_bit_for_bit_and_only_with_the_same(tiny, tmp_path):
    config = with_augment(tiny)
    train(config, tmp_path / "whole")
    train(replace(config, steps=2), tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert_same(tensors(tmp_path / "whole"), tensors(tmp_path / "run"))
    state = load_file(RunDir(tmp_path / "run").state)
    assert state["raw.augment.weight"].ne(0).any(1).any()  # it has learned from what it was told
    assert state["ema.augment.weight"].ne(0).any()
    for p in (0.0, 0.1):
        with pytest.raises(UserError, match=r"cannot go on with another train\.augment"):
            train(with_augment(tiny, p), tmp_path / "run", resume=True)


def test_what_is_saved_for_use_is_the_network_told_zeros(tiny, trained, tmp_path, generator):
    train(with_augment(tiny), tmp_path / "run")
    made, plain = load(tmp_path / "run"), load(trained)
    assert made.config.train.augment == A
    assert made.net.state_dict().keys() == plain.net.state_dict().keys()
    learned, _ = build(made.config, made.data, AUGMENT_DIM)
    learned.requires_grad_(False)
    learned.load_state_dict(under_prefix("ema.", load_file(RunDir(tmp_path / "run").state)))
    x, t = torch.randn(4, *made.data.shape, generator=generator), torch.tensor([1, 9, 99, 999])
    y = torch.arange(4)
    zeros = torch.zeros(4, AUGMENT_DIM)
    wanted = learned.eval()(x, t, y, zeros)
    assert torch.equal(made.net(x, t, y), wanted)
    assert not torch.equal(learned(x, t, y, zeros + 1), wanted)
    write_diffusers(made, tmp_path / "folder")
    assert torch.equal(read_diffusers(tmp_path / "folder").net(x, t, y), wanted)


def test_a_run_begins_from_weights_with_augmentation_and_without(tiny, trained, tmp_path, caplog):
    still = replace(tiny, steps=1, train=replace(tiny.train, lr=1e-12, warmup=0))
    caplog.set_level("INFO")
    begun = replace(with_augment(still), init=str(trained))
    train(begun, tmp_path / "augmented")
    assert "new: the labels of augmentation" in caplog.text
    train(replace(still, init=str(tmp_path / "augmented")), tmp_path / "again")
    assert caplog.text.count("new: nothing") == 1
    ours = load(trained).net.state_dict()
    for name in ("augmented", "again"):
        made = load(tmp_path / name).net.state_dict()
        assert all(torch.allclose(made[k], ours[k]) for k in ours)


def test_its_cost_is_measured(tiny):
    plain, told = (
        measure_cost(c, load_images("mnist5k"), "cpu", 1) for c in (tiny, with_augment(tiny))
    )
    assert told.parameters == plain.parameters + AUGMENT_DIM * 4 * tiny.unet.channels


def test_the_option(tmp_path):
    assert read_train_options(["--train.augment", "0.12"]).config.train.augment == 0.12
    assert read_train_options([]).config.train.augment == 0
    assert main(["train", "--train.augment", "1.5", "--out", str(tmp_path / "run")]) != 0
    assert not (tmp_path / "run").exists()
