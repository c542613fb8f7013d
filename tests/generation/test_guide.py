"""Guidance by a weaker network: what it makes, what it costs, and what cannot guide."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm import UserError, evaluate, generate, load, save
from ddpm.checkpoint.diffusers import read_diffusers, write_diffusers
from ddpm.checkpoint.header import Header
from ddpm.checkpoint.tensors import load_tensors, save_tensors
from ddpm.cli.main import main
from ddpm.config import SampleConfig
from ddpm.core.guidance import autoguided
from ddpm.data.dataset import ImageDataset
from ddpm.generation.generate import denoise_trajectory, network_evaluations
from ddpm.utils.images import to_uint8
from ddpm.utils.random import ImageNoise

SETTINGS = SampleConfig(steps=6, guidance=2.0)


@pytest.fixture(scope="module")
def weaker(make):
    return make(seed=1)


def test_images_are_those_of_the_guided_network(digits, weaker):
    """w D_1 + (1 − w) D_0, both with the class."""
    made = generate(digits, 3, labels=[4, 5], settings=SETTINGS, guide=weaker)
    one, zero = load(digits), load(weaker)
    *_, last = denoise_trajectory(
        autoguided(one.net, zero.net, 2.0), one.diffusion, ImageNoise(0, range(3), (1, 28, 28)),
        torch.tensor([4, 5, 4]), replace(SETTINGS, guidance=1.0),
    )  # fmt: skip
    assert (made.images.int() - to_uint8(last.x).int()).abs().max() <= 1
    assert made.labels.tolist() == [4, 5, 4]
    assert made.guide == zero.weights_hash() != one.weights_hash()
    assert made.guide in repr(made)


def test_a_guide_may_be_a_path_or_a_checkpoint(digits, weaker):
    by_path = generate(digits, 2, settings=SETTINGS, guide=weaker)
    guide = load(weaker)
    assert torch.equal(
        by_path.images, generate(load(digits), 2, settings=SETTINGS, guide=guide).images
    )
    assert next(guide.net.parameters()).device.type == "cpu"


def test_a_guide_changes_the_images_and_guidance_1_is_the_network_alone(digits, weaker, caplog):
    plain = generate(digits, 2, settings=replace(SETTINGS, guidance=1.0))
    by_class = generate(digits, 2, settings=SETTINGS)
    guided = generate(digits, 2, settings=SETTINGS, guide=weaker)
    assert not torch.equal(guided.images, by_class.images)
    assert not torch.equal(guided.images, plain.images)
    assert plain.guide is None
    with caplog.at_level(logging.INFO, "ddpm"):
        same = generate(digits, 2, settings=replace(SETTINGS, guidance=1.0), guide=weaker)
    assert torch.equal(same.images, plain.images)
    assert "guidance is 1" in caplog.text


def test_without_classes_there_is_guidance_too(make):
    network, guide = make(classes=()), make(classes=(), seed=1)
    guided = generate(network, 2, settings=SETTINGS, guide=guide)
    assert guided.labels is None
    assert not torch.equal(guided.images, generate(network, 2, settings=SETTINGS).images)


@pytest.mark.parametrize(
    ("sampler", "above", "below", "classes", "nfe"),
    [("ddim", 0.0, 1.0, True, 20), ("ddim", 0.5, 1.0, True, 15), ("heun", 0.0, 1.0, True, 38),
     ("ddim", 0.2, 0.8, False, 16), ("ddim", 0.0, 1.0, False, 20)],
)  # fmt: skip
def test_evaluations_of_both_networks_are_counted(
    sampler, above, below, classes, nfe, digits, weaker
):
    settings = SampleConfig(
        sampler=sampler, steps=10, guidance=2.0, guidance_above=above, guidance_below=below
    )
    checkpoint, guide, seen = load(digits), load(weaker), []
    for net in (checkpoint.net, guide.net):
        forward = net.forward
        net.forward = lambda x, *rest, forward=forward: seen.append(len(x)) or forward(x, *rest)
    y = torch.tensor([1, 2, 3]) if classes else None
    for _ in denoise_trajectory(
        checkpoint.net, checkpoint.diffusion, ImageNoise(0, range(3), (1, 28, 28)), y, settings,
        null=10, guide=guide.net,
    ):  # fmt: skip
        pass
    counted = network_evaluations(settings, checkpoint.diffusion, classes, guide=True)
    assert sum(seen) == 3 * counted == 3 * nfe


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"height": 32, "width": 32}, "shape of images"),
        ({"channels": 3}, "shape of images"),
        ({"classes": ("a", "b")}, "classes"),
        ({"classes": ()}, "classes"),
        ({"target": "eps"}, "target"),
        ({"schedule": "linear"}, "noise schedule"),
        ({"T": 500}, "noise schedule"),
    ],
)
def test_what_cannot_guide_is_refused(other, says, digits, make):
    with pytest.raises(UserError, match=f"the guide does not have the {says}"):
        generate(digits, 1, settings=SETTINGS, guide=make(**other))


def test_the_command_takes_a_guide(digits, weaker, tmp_path, make, capsys):
    words = ["generate", str(digits), "-n", "2", "--steps", "6", "--guidance", "2"]
    assert main([*words, "--guide", str(weaker), "--out", str(tmp_path / "a.npz")]) == 0
    made = generate(digits, 2, settings=SETTINGS, guide=weaker).images.permute(0, 2, 3, 1)
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(file["arr_0"], made.numpy())
    other = str(make(classes=()))
    assert main([*words, "--guide", other, "--out", str(tmp_path / "b.png")]) == 1
    assert "the guide does not have the classes" in capsys.readouterr().err
    assert main([*words, "--guide", "nowhere", "--out", str(tmp_path / "b.png")]) == 1
    assert "there is no" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()


@pytest.fixture(scope="module")
def carrying(make, tmp_path_factory):
    """A network without classes whose file carries a guide, which is smaller."""
    c, guide = load(make(classes=())), load(make(classes=(), seed=1, base=4))
    path = tmp_path_factory.mktemp("carrying") / "model.safetensors"
    config = replace(c.config, sample=SETTINGS)
    save(path, c.net, config, c.data, c.step, c.images_seen, guide=guide)
    return path, guide


def test_a_file_may_carry_the_guide(carrying):
    path, guide = carrying
    c = load(path)
    assert c.guide.config.unet == guide.config.unet != c.config.unet
    assert c.guide.weights_hash() == guide.weights_hash()
    made = generate(c, 2)
    assert made.guide == guide.weights_hash()
    bare = replace(c, guide=None)
    assert torch.equal(made.images, generate(bare, 2, guide=guide).images)
    plain = generate(c, 2, settings=replace(SETTINGS, guidance=1.0))
    assert plain.guide is None
    assert torch.equal(plain.images, generate(bare, 2).images)
    other = replace(guide, net=c.net)
    assert generate(c, 2, guide=other).guide == c.weights_hash()


def test_a_score_says_which_guide_was_carried(carrying):
    path, guide = carrying
    real = ImageDataset.from_array(torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8))
    report = evaluate(path, data=real, n=4)
    assert report.protocol.sampling["guide"] == guide.weights_hash()
    assert report.protocol.sampling["nfe"] == 2 * SETTINGS.steps


def test_the_command_takes_guidance_where_the_file_has_a_guide(carrying, make, tmp_path, capsys):
    path, _ = carrying
    words = ["generate", str(path), "-n", "2", "--guidance", "1.5", "--out"]
    assert main([*words, str(tmp_path / "a.npz")]) == 0
    settings = replace(SETTINGS, guidance=1.5)
    made = generate(path, 2, settings=settings).images.permute(0, 2, 3, 1)
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(file["arr_0"], made.numpy())
    words[1] = str(make(classes=()))
    assert main([*words, str(tmp_path / "b.npz")]) == 1
    assert "give a --guide too" in capsys.readouterr().err


def test_a_format_without_room_for_the_guide_says_that_it_is_left_out(carrying, tmp_path, caplog):
    path, _ = carrying
    with caplog.at_level(logging.INFO, "ddpm"):
        write_diffusers(load(path), tmp_path / "diffusers")
    assert "the guide of these weights is left out" in caplog.text
    back = read_diffusers(tmp_path / "diffusers")
    assert back.guide is None
    assert back.config.sample == replace(SETTINGS, guidance=1.0)
    plain = generate(path, 2, settings=replace(SETTINGS, guidance=1.0))
    assert torch.equal(plain.images, generate(back, 2).images)


def test_a_guide_that_is_damaged_is_said_to_be(carrying, tmp_path):
    tensors, header = load_tensors(carrying[0], Header)
    tensors["guide.conv_in.bias"] = tensors["guide.conv_in.bias"] * torch.nan
    save_tensors(tmp_path / "nan.safetensors", tensors, header)
    with pytest.raises(UserError, match="holds no weights to use"):
        load(tmp_path / "nan.safetensors")
    del tensors["guide.conv_in.bias"]
    save_tensors(tmp_path / "less.safetensors", tensors, header)
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path / "less.safetensors")
