"""Images between two seeds, near an image and in its gaps, with a trained network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import Edit, UserError, generate, load, load_images
from ddpm.cli.main import main
from ddpm.config import SampleConfig
from ddpm.generation.generate import cycle_labels, network_evaluations, times_of, trajectories
from ddpm.generation.output import AnimationRecorder


@pytest.fixture(scope="module")
def mnist():
    return load("mnist")


@pytest.fixture(scope="module")
def seven():
    data = load_images("mnist5k")
    return data.images[data.labels == 7][0]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_a_row_from_one_seed_to_another(mnist, sampler):
    """Its ends are image 0 of either seed, however much noise is drawn on the way."""
    settings = replace(mnist.config.sample, sampler=sampler, eta=0.7, guidance=0.0)
    make = lambda n, **k: generate(mnist, n, settings=settings, **k).images.float()  # noqa: E731
    row = make(5, seed=1, edit=Edit(towards=2), batch=2)
    for made, seed in ((row[0], 1), (row[-1], 2)):
        assert (made - make(1, seed=seed)[0]).abs().max() <= 2
    assert row.std(dim=0).max() > 10


def test_variations_stay_near_or_go_far(mnist, seven):
    def distance(change):
        made = generate(mnist, 6, edit=Edit(image=seven, strength=change)).images
        return (made.float() - seven.float()).square().mean().sqrt()

    assert distance(0.1) < 0.5 * distance(0.5) < 0.5 * distance(1.0) * 1.1
    assert distance(0.1) < 20


def test_the_noise_that_is_found_in_an_image_leads_back_to_it(mnist, seven):
    settings = SampleConfig("ddim", steps=50)

    def made(**options):
        edit = Edit(image=seven, strength=1.0, invert=True)
        return generate(mnist, 2, edit=edit, settings=settings, **options).images.float()

    back = made()
    assert torch.equal(back[0], back[1])
    assert (back - seven.float()).abs().mean() < 6
    assert (made(labels="3") - seven.float()).abs().mean() > 12


@pytest.mark.parametrize("spacing", ["even", "quadratic", "root", "log-snr"])
@pytest.mark.parametrize(("change", "steps"), [(0.02, 1), (0.2, 4), (0.6, 12), (1.0, 20)])
def test_a_variation_has_its_share_of_the_steps(mnist, seven, spacing, change, steps):
    settings = replace(mnist.config.sample, steps=20, spacing=spacing)
    times = times_of(settings, mnist.diffusion, Edit(image=seven, strength=change))
    assert len(times) - 1 == steps
    assert times[0] == round(1000 * change)
    assert times[-1] == 0
    if change == 1:
        assert times == times_of(settings, mnist.diffusion)


def half():
    mask = torch.zeros(28, 28, dtype=torch.bool)
    mask[14:] = True
    return mask


def test_the_unmasked_part_stays_as_it_is(mnist, seven):
    made = generate(mnist, 4, labels=["7"], edit=Edit(image=seven, mask=half(), rounds=2)).images
    assert torch.equal(made[:, :, :14], seven[:, :14].expand(4, -1, -1, -1))
    assert not torch.equal(made[0, :, 14:], made[1, :, 14:])


EDITS = {
    "none": lambda image: None,
    "between": lambda image: Edit(towards=2),
    "a variation": lambda image: Edit(image=image),
    "inpainting": lambda image: Edit(image=image, mask=half(), rounds=3),
    "inversion": lambda image: Edit(image=image, strength=1.0, invert=True),
}


@pytest.mark.parametrize("kind", EDITS)
def test_times_and_evaluations_are_known_before(kind, seven):
    """Its times, and how often each image passes through the network."""
    checkpoint, edit, seen = load("mnist"), EDITS[kind](seven), []
    forward = checkpoint.net.forward
    checkpoint.net.forward = lambda x, *rest: seen.append(len(x)) or forward(x, *rest)
    settings = replace(checkpoint.config.sample, steps=8, guidance=2.0, guidance_above=0.5)
    y = cycle_labels(2, (), checkpoint.data)
    states = list(trajectories(checkpoint, 2, range(2), 0, y, settings, edit))
    assert [state.t for state in states] == times_of(settings, checkpoint.diffusion, edit)
    nfe = network_evaluations(settings, checkpoint.diffusion, True, edit)
    assert sum(seen) == 2 * nfe
    assert (nfe < 8) == (kind == "a variation")


def test_an_animation_of_a_variation_ends_with_the_images(mnist, seven):
    edit, settings = Edit(image=seven), replace(mnist.config.sample, steps=8)
    steps = len(times_of(settings, mnist.diffusion, edit)) - 1
    for animation, frames in (
        (AnimationRecorder(steps), steps + 1),
        (AnimationRecorder(8, most=1), 2),
    ):
        made = generate(mnist, 3, settings=settings, edit=edit, batch=2, on_state=animation.take)
        assert len(animation.frames()) == frames
        assert torch.equal(animation.frames()[-1], made.images)
    assert steps < 8


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (Edit(mask=torch.ones(28, 28)), "a mask needs the image"),
        (Edit(towards=1, image=torch.zeros(1, 28, 28)), "not both"),
        (Edit(image=torch.zeros(3, 28, 28)), "and the network's"),
        (Edit(image=torch.zeros(1, 28, 28), mask=torch.zeros(14, 28)), "the mask has shape"),
        (Edit(image=torch.zeros(1, 28, 28), strength=0), "strength is above 0"),
        (Edit(image=torch.zeros(1, 28, 28), rounds=0), "rounds are one or more"),
        (Edit(invert=True), "noise is found in an image"),
        (
            Edit(image=torch.zeros(1, 28, 28), mask=half(), invert=True),
            "noise is found in an image",
        ),
    ],
)
def test_what_cannot_be_is_named(mnist, edit, says):
    with pytest.raises(UserError, match=says):
        generate(mnist, 1, edit=edit)


def test_the_command_edits(seven, tmp_path, capsys):
    Image.fromarray(seven[0].numpy()).resize((90, 90)).convert("RGB").save(tmp_path / "7.jpg")
    half = np.zeros((40, 40), np.uint8)
    half[20:] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    image, mask = ["--image", str(tmp_path / "7.jpg")], ["--mask", str(tmp_path / "mask.png")]
    words = ["generate", "--n", "2", "--steps", "4", "--out"]
    assert main([*words, str(tmp_path / "v.png"), *image, "--strength", "0.3"]) == 0
    assert main([*words, str(tmp_path / "p.npz"), *image, *mask, "--rounds", "2"]) == 0
    assert main([*words, str(tmp_path / "row.gif"), "--towards", "9"]) == 0
    assert main([*words, str(tmp_path / "i.png"), *image, "--invert", "--label", "3"]) == 0
    with np.load(tmp_path / "p.npz") as file:
        assert (file["arr_0"][0][:14] == file["arr_0"][1][:14]).all()
    (tmp_path / "no.png").write_text("no image")
    (tmp_path / "no.jp2").write_text("no image that we read")
    strokes = np.zeros((40, 40, 4), np.uint8)
    strokes[20:] = 255
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    Image.fromarray(0 * half).save(tmp_path / "black.png")
    drawn = ["--mask", str(tmp_path / "strokes.png"), "--overwrite"]
    assert main([*words, str(tmp_path / "p.npz"), *image, *drawn, "--rounds", "2"]) == 0
    with np.load(tmp_path / "p.npz") as file:
        assert (file["arr_0"][0][:14] == file["arr_0"][1][:14]).all()
    for options, says in (
        ([*image, "--mask", str(tmp_path / "black.png")], "paint white what is to be painted anew"),
        (["--image", str(tmp_path / "no.jp2")], "is read here: convert them to PNG or JPEG"),
        (mask, "a mask needs the image"),
        (["--strength", "0.5"], "--strength is for --image"),
        (["--invert"], "--invert is for --image"),
        ([*image, *mask, "--invert"], "--invert is for --image without --mask"),
        (["--towards", "3", "--strength", "0.5"], "--strength is for --image"),
        ([*image, *mask, "--strength", "0.5"], "--strength is for --image without --mask"),
        ([*image, "--rounds", "2"], "--rounds is for --image with --mask"),
        (["--image", str(tmp_path / "none.png")], "there is no image at"),
        (["--image", str(tmp_path / "no.png")], "is not an image"),
        ([*image, "--towards", "3"], "not both"),
    ):
        assert main([*words, str(tmp_path / "x.png"), *options]) == 1
        assert says in capsys.readouterr().err
