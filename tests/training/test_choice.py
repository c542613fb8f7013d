"""Images that nobody names a preset for get one that suits them, and are told which and why."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm import ImageDataset, UserError, load, load_images, train
from ddpm.checkpoint.checkpoint import build_diffusion, build_net
from ddpm.cli.main import main
from ddpm.cli.train import default_out, read_train_options
from ddpm.config import preset
from ddpm.training.choice import choose_preset
from pictures import folder_of, photos


def images(n, channels, height, width):
    return ImageDataset.from_array(torch.zeros(n, channels, height, width, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("shape", "on_cpu", "on_gpu"),
    [
        ((1, 28, 28), "small-28", "large-32"),
        ((1, 32, 32), "small-28", "large-32"),
        ((3, 28, 28), "small-32", "large-32"),
        ((3, 32, 32), "small-32", "large-32"),
        ((1, 48, 40), "small-32", "large-32"),
        ((1, 64, 64), "small-64", "large-64"),
        ((3, 32, 64), "small-64", "large-64"),
        ((4, 64, 64), "small-64", "large-64"),
    ],
)
def test_a_preset_is_chosen_by_size_channels_and_device(shape, on_cpu, on_gpu):
    data = images(2000, *shape)
    for device, name in (("cpu", on_cpu), ("mps", on_cpu), ("cuda:1", on_gpu), ("xpu", on_gpu)):
        chosen, config, why = choose_preset(data, device)
        assert (chosen, config) == (name, preset(name))
        for word in (name, "2,000 images", f"{shape[2]}x{shape[1]}", device, "minutes"):
            assert word in why
    for name in (on_cpu, on_gpu):
        build_diffusion(preset(name))
        with torch.device("meta"), torch.inference_mode():  # shapes alone: some are large
            net, x = build_net(preset(name), data.info), torch.zeros(1, *shape)
            assert net(x, torch.ones(1)).shape == x.shape


def test_the_presets_of_named_sets_are_these():
    for name, like in (("cifar10-cpu", "small-32"), ("celeba64-cpu", "small-64"),
                       ("cifar10", "large-32"), ("celeba64", "large-64"), ("mnist", "small-28"),
                       ("first-run", "small-28")):  # fmt: skip
        ours, theirs = preset(name), preset(like)
        assert (ours.unet, ours.diffusion) == (theirs.unet, theirs.diffusion)
        assert ours.train.lr == theirs.train.lr


def test_few_images_are_not_learned_by_heart_so_soon():
    _, config, why = choose_preset(images(1999, 3, 64, 64), "cpu")
    assert config.unet.dropout == 0.1 > preset("small-64").unet.dropout
    assert config.train.warmup == 100 < preset("small-64").train.warmup
    assert (config.train.batch, config.train.optimizer) == (16, "muon")
    assert config.sample.sigma_min > 0
    assert "as they are few, with batches of 16, Muon, dropout 0.1" in why
    _, config, why = choose_preset(images(1999, 3, 64, 64), "cuda")
    assert replace(config.train, warmup=0) == replace(preset("large-64").train, warmup=0)
    assert "as they are few, with dropout 0.1" in why
    one = choose_preset(images(1, 1, 28, 28), "cpu")[2]
    assert "for 1 image of 28x28 in 1 channel on" in one


def test_few_images_are_mirrored_where_that_makes_no_odd_ones():
    digits = load_images("mnist5k").images[::5]
    assert not choose_preset(ImageDataset.from_array(digits), "cpu")[1].flip
    noise = np.random.default_rng(0).integers(0, 256, (1000, 16, 16, 3), dtype=np.uint8)
    assert choose_preset(ImageDataset.from_array(noise), "cpu")[1].flip
    assert not choose_preset(ImageDataset.from_array(noise[:100]), "cpu")[1].flip  # too few to tell
    both = ImageDataset.from_array(np.concatenate([noise, noise]))
    assert not choose_preset(both, "cpu")[1].flip  # not few


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Photos in three folders, and a working folder beside them."""
    for i, name in enumerate(("cats", "dogs", "owls")):
        folder_of(photos(6, seed=i, side=80), tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_own_images_are_trained_with_the_preset_of_their_size(own, capsys):
    words = ["--data", "photos", "--size", "64", "--device", "cpu"]
    small = ["--steps", "1", "--train.batch", "2", "--unet.dropout", "0.3"]
    small += ["--sample.steps", "1", "--sample.guidance", "1"]
    assert main(["train", *words, *small]) == 0
    out, err = capsys.readouterr()
    assert err.count("the preset small-64 was chosen for 18 images of 64x64 in 3 channels") == 1
    assert "2 images in" in out
    made = load("runs/small-64")
    assert (made.data.shape, made.data.classes) == ((3, 64, 64), ("cats", "dogs", "owls"))
    assert made.config.unet.patch == preset("small-64").unet.patch
    assert made.config.unet.dropout == 0.3  # what is typed goes before what is chosen
    assert (made.config.steps, made.config.minutes) == (1, None)
    assert main(["train", *words, "--out", "runs/small-64"]) == 1
    assert "is in use" in capsys.readouterr().err


def test_a_choice_is_made_for_own_images_alone(own, caplog):
    chosen = read_train_options(["--data", "photos", "--size", "30", "--no-flip"])
    assert (chosen.preset, chosen.config.minutes, chosen.config.size) == ("small-32", 150, (30,))
    assert str(default_out(chosen)) == "runs/small-32"
    data = ["--data", "photos", "--size", "64"]
    assert read_train_options([]).preset is None
    assert read_train_options(["--size", "64"]).config.unet == preset("first-run").unet
    assert read_train_options(["mnist", *data]).config.unet == preset("mnist").unet
    begun = read_train_options([*data, "--init", "mnist"])
    assert begun.config.unet == replace(load("mnist").config.unet, dropout=0.1)
    assert (begun.preset, begun.config.train.batch) == ("small-64", 16)
    assert begun.config.train.lr == load("mnist").config.train.lr
    with caplog.at_level("INFO"):
        own_network = read_train_options([*data, "--unet.channels", "16"]).config.unet
    assert (own_network.channels, own_network.mults) == (16, preset("first-run").unet.mults)
    assert "all else is as in first-run" in caplog.text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sample.sampler", "dpm++", "--sample.eta", "0.5"],
         "--sample.eta is for --sample.sampler ddim, and this is dpm++"),
        (["--sample.spacing", "even", "--sample.sigma-min", "0.2"], "--sample.sigma-min is for"),
        (["--diffusion.learned-variance", "--sample.sampler", "ddpm", "--sample.variance", "beta"],
         "this network learns its own"),
    ],
)  # fmt: skip
def test_settings_that_change_nothing_are_refused(words, says):
    with pytest.raises(UserError, match=says):
        read_train_options(words)


def test_classes_that_a_preset_leaves_out_are_told(own, tiny, caplog):
    with caplog.at_level("INFO"):
        train(replace(tiny, data="photos", size=(16,), labels=False, steps=1), own / "run")
    assert "classes are not learned, though the images have 3 classes" in caplog.text


def test_a_run_that_was_stopped_before_it_had_settings_is_given_the_same(own):
    (own / "run" / "state").mkdir(parents=True)
    (own / "run" / "state" / "lock").touch()
    words = ["--data", "photos", "--size", "64", "--out", "run", "--resume"]
    assert read_train_options(words).preset == "small-64"
    named = read_train_options([*words, "mnist"]).config
    assert named.unet == preset("mnist").unet
    begun = read_train_options([*words, "mnist", "--init", "cifar10"]).config
    assert (begun.unet, begun.train) == (load("cifar10").config.unet, preset("mnist").train)


@pytest.mark.long
def test_the_doctor_speaks_of_the_same_choice(own, capsys):
    assert main(["doctor", "photos", "--size", "32", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "the preset small-32 was chosen for 18 images of 32x32" in out
    assert "its budget: 150 minutes" in out
    assert main(["doctor", "photos", "--size", "32", "--device", "cpu", "--preset", "mnist"]) == 0
    out = capsys.readouterr().out
    assert "was chosen" not in out
    assert "its budget: 15 minutes" in out
    assert main(["doctor", "photos", "--device", "cpu", "--preset", "celeba64-cpu"]) == 0
    assert "of 64x64 in" in capsys.readouterr().out  # and not 80x80, as they are
