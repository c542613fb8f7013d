"""Guidance by a weaker network: what it makes, what it costs, and what cannot guide."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm import UserError, generate, load
from ddpm.cli.main import main
from ddpm.config import SampleConfig
from ddpm.core.guidance import autoguided
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
