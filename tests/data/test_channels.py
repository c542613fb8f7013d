"""Gray, colour and transparency: how many channels are learned, and what lies below."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import UserError, evaluate, generate, load, load_images, train
from ddpm.data.decode import read_image
from ddpm.evaluation.evaluate import reference_for
from ddpm.generation.output import AnimationRecorder, Samples, write
from ddpm.utils.images import composite, grid, to_pil
from pictures import noise_image


def saved(folder, *images, ending="png"):
    folder.mkdir()
    for i, image in enumerate(images):
        image.save(folder / f"{i}.{ending}")
    return folder


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "LA"])
def test_a_set_that_is_all_gray_has_one_channel_however_it_is_stored(tmp_path, mode):
    gray = [noise_image(12, 12, "L", seed) for seed in range(6)]
    data = load_images(saved(tmp_path / "set", *(image.convert(mode) for image in gray)))
    assert torch.equal(data.images, torch.from_numpy(np.stack(gray))[:, None])
    said = any("all images are gray, though stored in colour" in note for note in data.notes)
    assert said == (mode != "LA")
    gray[3] = noise_image(12, 12)  # one in colour
    mixed = load_images(saved(tmp_path / "mixed", *(image.convert("RGB") for image in gray)))
    assert mixed.images.shape == (6, 3, 12, 12)
    assert mixed.notes == ()


def test_channels_that_are_asked_for(tmp_path):
    gray = noise_image(12, 12, "L")
    folder = saved(tmp_path / "set", gray.convert("RGB"), gray)
    plane = torch.from_numpy(np.array(gray))
    assert load_images(folder).images.shape[1] == 1
    for channels in (1, 3):
        images = load_images(folder, channels=channels).images
        assert torch.equal(images, plane.expand(2, channels, 12, 12))
    assert torch.equal(load_images(folder, channels=4).images[:, :3], plane.expand(2, 3, 12, 12))
    assert (load_images(folder, channels=4).images[:, 3] == 255).all()
    with pytest.raises(UserError, match="1, 3 or 4 channels, not 2"):
        load_images(folder, channels=2)


def test_channels_of_an_array(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels)
    gray = load_images(tmp_path / "a.npz", channels=1).images
    expected = np.stack([Image.fromarray(image).convert("L") for image in pixels])
    assert gray.shape == (5, 1, 8, 8)
    assert (gray[:, 0].int() - torch.from_numpy(expected).int()).abs().max() <= 1
    assert load_images("mnist5k", channels=3).images.shape == (5000, 3, 28, 28)


def half_red(side=16, opaque=128):
    """Opaque blue to the left, and to the right red that is partly to be seen."""
    image = Image.new("RGBA", (side, side), (0, 0, 255, 255))
    image.paste((255, 0, 0, opaque), (side // 2, 0, side, side))
    return image


def test_transparent_images_are_laid_on_the_background(tmp_path):
    folder = saved(tmp_path / "set", half_red())
    backgrounds = {"white": (255, 127, 127), "#000000": (128, 0, 0), "lime": (128, 127, 0)}
    for colour, rgb in backgrounds.items():
        image = load_images(folder, background=colour).images[0]
        assert (image[:, :, -1].int() - torch.tensor(rgb)[:, None]).abs().max() <= 1
        assert image[:, 0, 0].tolist() == [0, 0, 255]
    with pytest.raises(UserError, match="'plaid' is not a colour: give a name, such as white"):
        load_images(folder, background="plaid")
    gray = saved(tmp_path / "gray", Image.new("LA", (16, 16), (0, 0)))
    assert load_images(gray).images.shape[1] == 1
    on_red = load_images(gray, background="red").images
    assert on_red[0, :, 0, 0].tolist() == [255, 0, 0]


def test_a_fourth_channel_is_kept_where_it_is_asked_for(tmp_path):
    folder = saved(tmp_path / "set", half_red(), half_red(opaque=0))
    first, second = load_images(folder, channels=4).images
    assert torch.equal(first, torch.from_numpy(np.array(half_red())).movedim(2, 0))
    assert second[:, 0, -1].tolist() == [255, 255, 255, 0]  # what cannot be seen is not learned
    small = load_images(folder, (8,), channels=4).images[1]
    assert (small[3, :, :3] > 250).all()
    assert (small[:2, :, :4] <= 1).all()  # nor does its red bleed into the blue


def test_over_a_background():
    image = torch.from_numpy(np.array(half_red())).movedim(2, 0)
    expected = Image.alpha_composite(Image.new("RGBA", (16, 16), "#102030"), half_red())
    found = composite(image[None], "#102030")[0]
    ours = found.int() - torch.from_numpy(np.array(expected))[..., :3].movedim(2, 0).int()
    assert ours.abs().max() <= 1


def test_a_network_learns_and_makes_transparency(tmp_path, tiny):
    folder = saved(tmp_path / "set", *(half_red(opaque=10 * i) for i in range(20)))
    config = replace(tiny, data=str(folder), channels=4, held_out=2)
    train(config, tmp_path / "run", device="cpu")
    (grid_file, *_) = sorted((tmp_path / "run" / "samples").glob("*.png"))
    assert Image.open(grid_file).mode == "RGBA"
    samples = generate(tmp_path / "run", n=4, device="cpu")
    assert samples.images.shape == (4, 4, 16, 16)
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", samples)
    single = Image.open(tmp_path / "out" / "00000.png")
    assert single.mode == "RGBA"
    assert np.array_equal(np.asarray(single), samples.images[0].movedim(0, 2).numpy())
    assert grid(samples.images).mode == "RGBA"
    info = load(tmp_path / "run").data
    to_pil(samples.images[0]).save(tmp_path / "mine.png")
    assert torch.equal(read_image(tmp_path / "mine.png", info)[3], samples.images[0, 3])


@pytest.mark.parametrize(
    ("kind", "channels", "seen"), [("set", 4, 3), ("npz", None, 3), ("set", 1, 1)]
)
def test_networks_are_scored_by_images_as_they_learned_to_see_them(
    kind, channels, seen, tmp_path, tiny, scripted
):
    """What is transparent lies on the background, and what was learned in gray is gray."""
    images = [half_red(opaque=10 * i) for i in range(20)]
    data = saved(tmp_path / "set", *images)
    if kind == "npz":
        np.savez(data := tmp_path / "a.npz", images=np.stack([np.array(image) for image in images]))
    config = replace(tiny, data=str(data), channels=channels, background="lime", held_out=2)
    train(config, tmp_path / "run", device="cpu")
    report = evaluate(tmp_path / "run", n=8, features=scripted, device="cpu")
    assert np.isfinite(report.distance)
    real = {"root": None, "size": (), "features": scripted, "device": "cpu"}
    assert reference_for(load(tmp_path / "run"), None, **real).training.images.shape[1] == seen


def test_animations_of_transparent_images(tmp_path, caplog):
    images = torch.from_numpy(np.array(half_red())).movedim(2, 0)[None]
    animation = AnimationRecorder(1)
    animation.batches = [[images, images.flip(-1)]]
    with caplog.at_level(logging.INFO, "ddpm"):
        for ending in ("webp", "gif"):
            write(tmp_path / f"a.{ending}", Samples(images, None, ()), animation)
    assert Image.open(tmp_path / "a.webp").convert("RGBA").getpixel((50, 50))[3] < 140
    assert Image.open(tmp_path / "a.gif").convert("RGB").getpixel((60, 5))[1] > 100
    assert [r.message for r in caplog.records] == [
        "a GIF holds no half-transparent pixels: laid on white (.webp does)"
    ]
