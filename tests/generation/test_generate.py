"""Images from a checkpoint: by seed, by class, with guidance."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors import safe_open

from ddpm import UserError, evaluate, generate, load
from ddpm.config import SampleConfig
from ddpm.generation.generate import denoise_trajectory, network_evaluations
from ddpm.utils.random import ImageNoise


def test_a_checkpoint_says_everything(digits):
    checkpoint = load(digits)
    assert (checkpoint.step, checkpoint.images_seen) == (7, 70)
    assert checkpoint.data.fingerprint == "f00d"
    assert checkpoint.data.preprocessing == "uint8 u -> u / 127.5 - 1"
    assert not checkpoint.net.training
    with safe_open(digits, "pt") as file:
        header = json.loads(file.metadata()["ddpm"])
    assert header["weights"] == "ema"
    assert header["config"]["unet"]["channels"] == 8


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_a_seed_is_an_image_on_every_run_and_in_any_batch(digits, sampler):
    settings = SampleConfig(sampler=sampler, steps=5, eta=0.3, guidance=2)
    make = lambda **k: generate(digits, seed=3, settings=settings, **k).images.int()  # noqa: E731
    whole = make(n=11)
    assert torch.equal(whole, make(n=11))
    # Another batch size may round otherwise in the last bit of a float: a level at most.
    assert (whole - make(n=11, batch=4)).abs().max() <= 1
    assert (whole[:3] - make(n=3)).abs().max() <= 1
    other = generate(digits, 11, seed=4, settings=settings).images.int()
    assert (whole - other).abs().float().mean() > 5


def test_labels_are_what_was_asked(digits):
    assert generate(digits, 12).labels.tolist() == [*range(10), 0, 1]
    assert generate(digits, 4, labels=["7", 2]).labels.tolist() == [7, 2, 7, 2]
    for wrong in ("cat", 10, -1, "²"):
        with pytest.raises(UserError, match="there is no class"):
            generate(digits, 1, labels=[wrong])


def test_one_label_needs_no_list(digits, make):
    for seven in (7, "7"):
        assert generate(digits, 2, labels=seven).labels.tolist() == [7, 7]
    assert generate(digits, 2, labels=0).labels.tolist() == [0, 0]
    path = make(classes=("dog", "frog"))
    assert generate(path, 2, labels="frog").labels.tolist() == [1, 1]
    with pytest.raises(UserError, match="there is no class"):
        generate(path, 1, labels="fro")


def test_the_device_is_the_best_unless_it_is_named(digits, monkeypatch):
    asked = []
    monkeypatch.setattr("ddpm.utils.device.best_device", lambda: asked.append(1) or "cpu")
    generate(digits, 1)
    assert asked
    generate(digits, 1, device="cpu")
    assert len(asked) == 1
    with pytest.raises(UserError, match="there is no device"):
        generate(digits, 1, device="abacus")


def test_names_go_before_numbers(make):
    path = make(classes=("1", "0", "frog"))
    assert generate(path, 3, labels=["1", "frog", 2]).labels.tolist() == [0, 2, 2]
    with pytest.raises(UserError, match="without classes"):
        generate(make(classes=()), 1, labels=["1"])
    assert generate(make(classes=()), 2).labels is None


def test_where_names_are_numbers_no_number_is_a_place(make):
    path = make(classes=("0", "2", "5"))
    assert generate(path, 2, labels=[2, "5"]).labels.tolist() == [1, 2]
    with pytest.raises(UserError, match=r"there is no class '?1'?; there are 3: 0, 2, 5"):
        generate(path, 1, labels=[1])
    padded = make(classes=("01", "02", "10"))
    assert generate(padded, 3, labels=["1", 2, "10"]).labels.tolist() == [0, 1, 2]


def test_a_name_is_the_same_however_its_accents_are_written(make):
    path = make(classes=("K\u00e4se", "u\u0308ber"))
    assert generate(path, 2, labels=["Ka\u0308se", "\u00fcber"]).labels.tolist() == [0, 1]


def test_a_network_that_never_learned_an_image_without_its_class_says_so(make, caplog):
    caplog.set_level("INFO")
    checkpoint = load(make())
    config = replace(checkpoint.config, train=replace(checkpoint.config.train, label_drop=0.0))
    checkpoint = replace(checkpoint, config=config)
    generate(checkpoint, 1, settings=SampleConfig(steps=2))
    assert "label_drop" not in caplog.text
    generate(checkpoint, 1, settings=SampleConfig(steps=2, guidance=2))
    assert "never learned one without" in caplog.text


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_what_is_no_seed_is_refused(digits, seed):
    with pytest.raises(UserError, match="a seed is a whole number"):
        generate(digits, 1, seed=seed, settings=SampleConfig(steps=2))


def test_labels_change_the_image_and_guidance_changes_it_more(digits):
    settings = SampleConfig(steps=4)
    one, two = (generate(digits, 1, labels=[k], settings=settings).images for k in (1, 2))
    assert not torch.equal(one, two)
    stronger = generate(digits, 1, labels=[1], settings=replace(settings, guidance=4)).images
    assert not torch.equal(one, stronger)


def test_more_steps_than_there_are_is_refused(digits):
    with pytest.raises(UserError, match="choose --steps from 1 to 1000"):
        generate(digits, 1, settings=SampleConfig(steps=1001))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampler": "ddmi"}, "sampler should be 'ddpm'"),
        ({"spacing": "linear"}, "spacing should be"),
        ({"steps": 0}, "steps should be greater than or equal to 1"),
        ({"eta": float("nan")}, "eta should be a finite number"),
        ({"guidance": -1}, "guidance should be greater than or equal to 0"),
        ({"guidance": 2, "guidance_above": 0.5, "guidance_below": 0.5}, "of T is at none"),
    ],
)
def test_settings_that_cannot_be_are_refused(digits, changes, says):
    settings = replace(SampleConfig(steps=2), **changes)
    for use in (generate, partial(evaluate, data="mnist5k")):
        with pytest.raises(UserError, match=says):
            use(digits, n=2, settings=settings)


def test_all_the_steps_there_are(make):
    settings = SampleConfig(sampler="ddpm", steps=100, variance="beta")
    assert generate(make(T=100), 1, settings=settings).images.float().std() > 0


def test_the_bundled_weights_are_small_and_say_what_they_are():
    from ddpm.checkpoint.header import PRETRAINED, WEIGHTS_FOLDER

    megabytes = {"mnist": 4, "cifar10": 40, "celeba64": 40}
    sources = {"celeba64": "celeba"}
    assert set(PRETRAINED) == set(megabytes)
    for name, most in megabytes.items():
        assert (WEIGHTS_FOLDER / f"{name}.safetensors").stat().st_size <= most * 1e6
        checkpoint = load(name)
        assert checkpoint.data.source == checkpoint.config.data == sources.get(name, name)
        assert not checkpoint.config.root.startswith("/")
    assert (WEIGHTS_FOLDER / "digit-net.safetensors").stat().st_size <= 1_000_000


@pytest.mark.parametrize(
    ("guidance", "above", "below", "classes", "sampler", "nfe"),
    [(2.0, 0.0, 1.0, True, "ddim", 20), (2.0, 0.5, 1.0, True, "ddim", 15),
     (1.0, 0.0, 1.0, True, "ddim", 10), (0.0, 0.0, 1.0, True, "ddim", 10),
     (2.0, 0.0, 1.0, False, "ddim", 10), (2.0, 1.0, 1.0, True, "ddim", 10),
     (2.0, 0.2, 0.8, True, "ddim", 16), (1.0, 0.0, 1.0, True, "heun", 19),
     (2.0, 0.0, 1.0, True, "heun", 38), (2.0, 0.5, 1.0, True, "heun", 28)],
)  # fmt: skip
def test_evaluations_are_counted_with_guidance(
    guidance, above, below, classes, sampler, nfe, digits, make
):
    checkpoint = load(digits if classes else make(classes=()))
    settings = SampleConfig(
        sampler=sampler, steps=10, guidance=guidance, guidance_above=above, guidance_below=below
    )
    seen = []
    forward = checkpoint.net.forward
    checkpoint.net.forward = lambda x, *rest: seen.append(len(x)) or forward(x, *rest)
    info, diffusion = checkpoint.data, checkpoint.diffusion
    noise = ImageNoise(0, range(3), (1, 28, 28))
    y = torch.tensor([0, 1, 2]) if classes else None
    for _ in denoise_trajectory(checkpoint.net, diffusion, noise, y, settings, len(info.classes)):
        pass
    assert sum(seen) == 3 * network_evaluations(settings, diffusion, classes) == 3 * nfe
