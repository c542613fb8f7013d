"""Sampling in bfloat16: near the images of float32, said in the record, and only where there is
bfloat16."""

from dataclasses import replace

import pytest
import torch

from ddpm import evaluate, generate, load
from ddpm.config import SampleConfig
from ddpm.data.dataset import ImageDataset
from ddpm.generation.generate import trajectories, with_precision

FLOAT32 = SampleConfig(sampler="dpm++", steps=6, guidance=2.0)
BFLOAT16 = replace(FLOAT32, precision="bf16")


@pytest.fixture
def bfloat16(monkeypatch):
    """Say whether the device has it, whatever this machine has: autocast computes anyway."""

    def say(has: bool) -> None:
        monkeypatch.setattr("ddpm.generation.generate.has_bfloat16", lambda device: has)

    return say


def outputs_of_convolutions(net):
    """Return the dtypes that a network's convolutions return from now on."""
    seen = set()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, x, out: seen.add(out.dtype))
    return seen


@pytest.mark.parametrize("guide", [False, True])
def test_networks_compute_in_bfloat16_and_the_rest_in_float32(bfloat16, digits, make, guide):
    bfloat16(True)
    checkpoint, weaker = load(digits), load(make(seed=1)) if guide else None
    networks = [checkpoint.net] + ([weaker.net] if weaker else [])
    seen = [outputs_of_convolutions(net) for net in networks]
    y = torch.tensor([3, 4])
    states = list(trajectories(checkpoint, 2, range(2), 0, y, BFLOAT16, guide=weaker))
    assert seen == [{torch.bfloat16}] * len(networks)
    assert {x.dtype for state in states for x in (state.x, state.x0) if x is not None} == {
        torch.float32
    }
    assert {p.dtype for net in networks for p in net.parameters()} == {torch.float32}


def test_the_images_are_nearly_those_of_float32(bfloat16, digits):
    bfloat16(True)
    exact = generate(digits, 8, settings=FLOAT32).images.int()
    made = generate(digits, 8, settings=BFLOAT16)
    difference = (made.images.int() - exact).abs().float()
    assert 0 < difference.mean() < 3
    assert torch.equal(made.images, generate(digits, 8, settings=BFLOAT16).images)
    in_fours = generate(digits, 8, settings=BFLOAT16, batch=4).images.int()
    assert (in_fours - made.images.int()).abs().float().mean() < 3
    assert made.metadata["settings"]["precision"] == "bf16"


def test_where_there_is_none_they_are_those_of_float32_and_say_so(bfloat16, digits):
    bfloat16(False)
    made = generate(digits, 3, settings=BFLOAT16)
    assert torch.equal(made.images, generate(digits, 3, settings=FLOAT32).images)
    assert made.metadata["settings"]["precision"] == "no"
    assert with_precision(BFLOAT16, "cpu") == FLOAT32


@pytest.mark.parametrize(("has", "precision"), [(True, "bf16"), (False, "no")])
def test_a_score_says_in_what_its_samples_were_made(bfloat16, digits, scripted, has, precision):
    bfloat16(has)
    images = torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8)
    report = evaluate(
        digits, data=ImageDataset.from_array(images), features=scripted, n=16, settings=BFLOAT16
    )
    assert report.protocol.sampling["precision"] == precision
