"""Between two images, near one, and in the gaps of one: against closed forms, then for real."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import (
    Diffusion,
    Edit,
    Prediction,
    Schedule,
    UserError,
    cosine,
    ddim_step,
    generate,
    inpaint,
    load,
    load_images,
    sample,
    slerp,
    timesteps,
)
from ddpm.cli.main import main
from ddpm.core.likelihood import closed_form_gaussian
from ddpm.generation.generate import (
    AnimationRecorder,
    cycle_labels,
    network_evaluations,
    times_of,
    trajectories,
)


def doubles(T=100):
    return Diffusion(Schedule(cosine(T).alpha_bar.double()), clip=None)


def normal(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, generator=g, dtype=torch.float64)


def last(states):
    *_, state = states
    return state.x


# ---- between ---------------------------------------------------------------------------------


def test_slerp_keeps_to_the_sphere(generator):
    a, b = torch.randn(2, 7, 3, 16, 16, generator=generator)
    u = torch.linspace(0, 1, 7)
    x = slerp(a, b, u)
    torch.testing.assert_close(x[0], a[0])
    torch.testing.assert_close(x[-1], b[-1])
    norms = x.flatten(1).norm(dim=1)
    between = torch.stack([a, b]).flatten(2).norm(dim=2)
    assert (norms > between.min(0).values - 0.5).all()
    straight = ((1 - u.view(-1, 1, 1, 1)) * a + u.view(-1, 1, 1, 1) * b).flatten(1).norm(dim=1)
    assert straight[3] < 0.8 * norms[3]


def test_slerp_is_a_quarter_of_a_circle_between_what_is_orthogonal():
    e1, e2 = torch.eye(2)
    u = torch.linspace(0, 1, 5)
    angle = u[:, None] * math.pi / 2
    x = slerp(e1.expand(5, 2), e2.expand(5, 2), u)
    torch.testing.assert_close(x, angle.cos() * e1 + angle.sin() * e2)


def test_between_an_image_and_itself_is_the_image(generator):
    a = torch.randn(3, 1, 4, 4, generator=generator)
    torch.testing.assert_close(slerp(a, a, torch.tensor([0.0, 0.3, 1.0])), a)


# ---- near ------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [20, 60, 100])
def test_variations_of_a_gaussian(t):
    """x_t = √ᾱ x_0 + √(1−ᾱ) ε, and the flow to time 0 is a scaling: x'_0 = c x_t / √(ᾱ c² + 1 − ᾱ).
    So x'_0 ~ N(·, c²) again, and the less is kept of x_0 the larger t."""
    diffusion, c = doubles(), 0.5
    denoise = closed_form_gaussian(diffusion, mean=0.0, var=c**2)
    a = diffusion.schedule.at(t).item()
    draw = normal(20_000, 1, 1, 1)
    x0 = c * draw()
    start = diffusion.q_sample(x0, t, draw())
    x = last(sample(diffusion, denoise, draw, list(range(t, -1, -1)), ddim_step, start))
    assert x.std().item() == pytest.approx(c, rel=0.05)
    correlation = torch.corrcoef(torch.stack([x0.flatten(), x.flatten()]))[0, 1].item()
    kept = a**0.5 * c / (a * c**2 + 1 - a) ** 0.5
    assert correlation == pytest.approx(kept, abs=0.03)


# ---- gaps ------------------------------------------------------------------------------------


def two_pixels(diffusion, rho):
    """E[x_0 | x_t] for pairs of pixels of variance 1 and correlation ρ."""
    cov = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)

    def denoise(x_t, t):
        a = diffusion.schedule.at(t)
        gain = a.sqrt() * cov @ torch.linalg.inv(a * cov + (1 - a) * torch.eye(2).double())
        x0 = x_t @ gain
        return Prediction(x0, (x_t - a.sqrt() * x0) / (1 - a).sqrt())

    return denoise


def painted(rounds, rho=0.9, known=1.5):
    diffusion = doubles()
    x0 = torch.tensor([known, 0.0], dtype=torch.float64)
    mask = torch.tensor([0.0, 1.0], dtype=torch.float64)
    times = timesteps(diffusion.schedule, 50)
    draw = normal(4000, 1, 1, 2)
    x = last(inpaint(diffusion, two_pixels(diffusion, rho), draw, times, x0, mask, rounds=rounds))
    assert (x[..., 0] == known).all()
    return x[..., 1]


def test_inpainting_draws_from_the_conditional():
    """p(x_2 | x_1) = N(ρ x_1, 1 − ρ²)."""
    x = painted(rounds=20)
    assert x.mean().item() == pytest.approx(0.9 * 1.5, abs=0.1)
    assert x.std().item() == pytest.approx((1 - 0.9**2) ** 0.5, rel=0.2)


def test_more_rounds_fit_better():
    far = [abs(painted(rounds).mean().item() - 0.9 * 1.5) for rounds in (1, 4, 16)]
    assert far[0] > 1.5 * far[1] > 2 * far[2]


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="one round or more"):
        painted(rounds=0)


# ---- with a network --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return load("mnist")


@pytest.fixture(scope="module")
def seven():
    data = load_images("mnist5k")
    return data.images[data.labels == 7][0]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_a_row_from_one_seed_to_another(digits, sampler):
    """Its ends are image 0 of either seed, however much noise is drawn on the way."""
    settings = replace(digits.config.sample, sampler=sampler, eta=0.7, guidance=0.0)
    make = lambda n, **k: generate(digits, n, settings=settings, **k).images.float()  # noqa: E731
    row = make(5, seed=1, edit=Edit(towards=2), batch=2)
    for made, seed in ((row[0], 1), (row[-1], 2)):
        assert (made - make(1, seed=seed)[0]).abs().max() <= 2
    assert row.std(dim=0).max() > 10


def test_variations_stay_near_or_go_far(digits, seven):
    def distance(change):
        made = generate(digits, 6, edit=Edit(image=seven, change=change)).images
        return (made.float() - seven.float()).square().mean().sqrt()

    assert distance(0.1) < 0.5 * distance(0.5) < 0.5 * distance(1.0) * 1.1
    assert distance(0.1) < 20


@pytest.mark.parametrize("spacing", ["even", "quadratic", "root", "log-snr"])
@pytest.mark.parametrize(("change", "steps"), [(0.02, 1), (0.2, 4), (0.6, 12), (1.0, 20)])
def test_a_variation_has_its_share_of_the_steps(digits, seven, spacing, change, steps):
    settings = replace(digits.config.sample, steps=20, spacing=spacing)
    times = times_of(settings, digits.diffusion, Edit(image=seven, change=change))
    assert len(times) - 1 == steps
    assert times[0] == round(1000 * change)
    assert times[-1] == 0
    if change == 1:
        assert times == times_of(settings, digits.diffusion)


def half():
    mask = torch.zeros(28, 28, dtype=torch.bool)
    mask[14:] = True
    return mask


def test_the_unmasked_part_stays_as_it_is(digits, seven):
    made = generate(digits, 4, labels=["7"], edit=Edit(image=seven, mask=half(), rounds=2)).images
    assert torch.equal(made[:, :, :14], seven[:, :14].expand(4, -1, -1, -1))
    assert not torch.equal(made[0, :, 14:], made[1, :, 14:])


EDITS = {
    "none": lambda image: None,
    "between": lambda image: Edit(towards=2),
    "a variation": lambda image: Edit(image=image),
    "inpainting": lambda image: Edit(image=image, mask=half(), rounds=3),
}


@pytest.mark.parametrize("kind", EDITS)
def test_what_a_walk_costs_is_known_before_it(kind, seven):
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


def test_a_film_of_a_variation_ends_with_the_images(digits, seven):
    edit, settings = Edit(image=seven), replace(digits.config.sample, steps=8)
    steps = len(times_of(settings, digits.diffusion, edit)) - 1
    for animation, frames in (
        (AnimationRecorder(steps), steps + 1),
        (AnimationRecorder(8, most=1), 2),
    ):
        made = generate(digits, 3, settings=settings, edit=edit, batch=2, on_state=animation.take)
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
        (Edit(image=torch.zeros(1, 28, 28), change=0), "change is above 0"),
        (Edit(image=torch.zeros(1, 28, 28), rounds=0), "rounds are one or more"),
    ],
)
def test_what_cannot_be_is_named(digits, edit, says):
    with pytest.raises(UserError, match=says):
        generate(digits, 1, edit=edit)


def test_the_command(seven, tmp_path, capsys):
    Image.fromarray(seven[0].numpy()).resize((90, 90)).convert("RGB").save(tmp_path / "7.jpg")
    half = np.zeros((40, 40), np.uint8)
    half[20:] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    image, mask = ["--image", str(tmp_path / "7.jpg")], ["--mask", str(tmp_path / "mask.png")]
    words = ["generate", "--n", "2", "--steps", "4", "--out"]
    assert main([*words, str(tmp_path / "v.png"), *image, "--change", "0.3"]) == 0
    assert main([*words, str(tmp_path / "p.npz"), *image, *mask, "--rounds", "2"]) == 0
    assert main([*words, str(tmp_path / "row.gif"), "--towards", "9"]) == 0
    with np.load(tmp_path / "p.npz") as file:
        assert (file["arr_0"][0][:14] == file["arr_0"][1][:14]).all()
    (tmp_path / "no.png").write_text("no image")
    for options, says in (
        (mask, "a mask needs the image"),
        (["--change", "0.5"], "--change is for --image"),
        (["--towards", "3", "--change", "0.5"], "--change is for --image"),
        ([*image, *mask, "--change", "0.5"], "--change is for --image without --mask"),
        ([*image, "--rounds", "2"], "--rounds is for --image with --mask"),
        (["--image", str(tmp_path / "none.png")], "there is no image at"),
        (["--image", str(tmp_path / "no.png")], "is not an image"),
        ([*image, "--towards", "3"], "not both"),
    ):
        assert main([*words, str(tmp_path / "x.png"), *options]) == 1
        assert says in capsys.readouterr().err
