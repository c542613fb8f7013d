"""Images that are generated live."""

import copy
from dataclasses import replace

import pytest
import torch

from ddpm import Edit, UserError, generate, load, load_images
from ddpm.demo import trajectory
from ddpm.demo.pictures import png
from ddpm.demo.requests import Fork, SampleRequest, Settings, read, sample_config

FEW = Settings(sampler="ddim", steps=4, spacing="even", eta=0.0)


def film(digits, ask, edit=None):
    return [f for f in trajectory.frames(digits, ask, edit) if f and not f["passing"]]


def test_frames_come_live_and_end_in_the_images_of_generate(digits):
    settings = Settings(sampler="ddim", steps=16, eta=0.7, guidance=2.0)
    frames = film(digits, SampleRequest("mnist", n=4, seed=3, settings=settings))
    assert [f["step"] for f in frames] == list(range(17))
    assert frames[0]["t"] == digits.diffusion.T
    assert frames[-1]["alpha_bar"] == 1
    own = sample_config(digits, SampleRequest("mnist", settings=settings))
    assert frames[-1]["x"] == png(generate(load("mnist"), 4, seed=3, settings=own).images)
    assert frames[-1]["nfe"] >= 16
    assert "nfe" not in frames[-2]


def test_a_long_trajectory_has_a_short_film(digits):
    frames = film(digits, SampleRequest("mnist", label="7", settings=Settings(steps=200)))
    assert 20 < len(frames) <= trajectory.MAX_FRAMES + 1


def test_a_film_of_larger_images_has_fewer_frames(digits):
    faces = replace(digits.data, channels=3, height=64, width=64)
    assert trajectory.max_frames(16, digits.data) >= 16
    assert 16 <= trajectory.max_frames(16, faces) <= 24
    assert trajectory.max_frames(64, replace(faces, height=4096, width=4096)) == 1


def test_sampling_that_takes_too_long_is_stopped(digits, monkeypatch):
    monkeypatch.setattr(trajectory, "MAX_SECONDS", 0.0)
    with pytest.raises(UserError, match="stopped after 0 of 4 steps"):
        list(trajectory.frames(digits, SampleRequest("mnist", settings=FEW)))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"model": "mnist", "settings": {"eta": 3}}, "eta"),
        ({"model": "mnist", "settings": {"sampler": "magic"}}, "sampler"),
        ({"model": "mnist", "n": 65}, "n "),
        ({"model": "mnist", "n": 0}, "n "),
        ({"model": "mnist", "seed": -1}, "seed"),
        ({"model": "mnist", "settings": {"steps": 10**6}}, "steps"),
        ({"model": "mnist", "between": {"seeds": [1, 2], "at": [[0, 0]]}}, "seeds"),
        ({"model": "mnist", "between": {"seeds": [1, 2, 3, 4], "at": [[0, 7]]}}, "at"),
        ({"model": "mnist", "strength": 0}, "strength"),
        ({"model": "mnist", "other": 1}, "other"),
        ({"model": "m" * 10**6}, "model"),
        ({}, "model"),
        ([], "load the page anew"),
        ("mnist", "load the page anew"),
        (None, "load the page anew"),
    ],
)
def test_what_the_page_cannot_ask_for(value, says):
    with pytest.raises(UserError, match=says) as error:
        read(SampleRequest, value)
    assert len(str(error.value)) < 400


def test_a_class_that_the_network_does_not_know(digits):
    with pytest.raises(UserError, match="cat"):
        list(trajectory.frames(digits, SampleRequest("mnist", label="cat")))


def test_steps_are_limited_to_the_times_there_are_and_no_class_is_no_guidance(digits):
    assert (
        sample_config(digits, SampleRequest("mnist", settings=Settings(steps=1000))).steps == 1000
    )
    assert sample_config(digits, SampleRequest("mnist", label=None)).guidance == 0
    never = Settings(guidance=3.0, guidance_above=0.6, guidance_below=0.5)
    with pytest.raises(UserError, match="of T is at none"):
        sample_config(digits, SampleRequest("mnist", settings=never))
    assert sample_config(digits, SampleRequest("mnist", label=None, settings=never)).guidance == 0


def test_a_network_is_guided_by_what_its_file_carries(digits):
    weaker = copy.deepcopy(digits.net)
    torch.nn.init.zeros_(weaker.conv_out.weight)
    carrying = replace(digits, guide=replace(digits, net=weaker))
    always = replace(FEW, guidance=1.5, guidance_above=0.0, guidance_below=1.0)
    for label in ("", None):
        ask = SampleRequest("mnist", n=2, label=label, settings=always)
        own = sample_config(carrying, ask)
        assert own.guidance == 1.5
        last = film(carrying, ask)[-1]
        assert last["nfe"] == 8
        if label is not None:
            assert last["x"] == png(generate(carrying, 2, settings=own).images)
        assert last["x"] != film(digits, ask)[-1]["x"]


def test_a_fork_with_the_same_choice_changes_nothing(digits):
    """With noise in every step, too."""
    settings = Settings(sampler="ddim", steps=8, eta=1.0, guidance=2.0)
    ask = SampleRequest("mnist", n=2, seed=5, label="3", settings=settings)
    plain = film(digits, ask)
    same = film(digits, replace(ask, fork=Fork(4, "3", 2.0)))
    assert [f["x"] for f in same] == [f["x"] for f in plain]
    other = film(digits, replace(ask, label="8", fork=Fork(4, "3", 2.0)))
    assert [f["x"] for f in other[:5]] == [f["x"] for f in plain[:5]]
    assert other[-1]["x"] != plain[-1]["x"]


def test_between_four_seeds_the_corners_are_the_seeds(digits):
    corners = ((0, 0), (1, 0), (0, 1), (1, 1))
    value = {"seeds": (4, 5, 6, 7), "at": (*corners, (0.5, 0.5))}
    ask = read(
        SampleRequest, {"model": "mnist", "label": "2", "between": value, "settings": vars(FEW)}
    )
    last = film(digits, ask)[-1]
    assert last["n"] == 5
    made = [
        generate(load("mnist"), 1, seed=s, labels="2", settings=sample_config(digits, ask)).images
        for s in (4, 5, 6, 7)
    ]
    from pictures import open_data_uri

    sheet = open_data_uri(last["x"])
    for i, images in enumerate(made):
        x, y = i % last["columns"] * 29, i // last["columns"] * 29
        part = torch.tensor(list(sheet.crop((x, y, x + 28, y + 28)).getdata())).view(28, 28)
        assert (part - images[0, 0].int()).abs().max() <= 2


@pytest.mark.parametrize(
    ("edit", "steps", "nfe"),
    [
        (Edit(strength=0.6), 3, 3),
        (Edit(mask=torch.ones(28, 28, dtype=torch.bool), rounds=3), 4, 10),
    ],
)
def test_steps_and_evaluations_are_those_of_the_edit(digits, edit, steps, nfe):
    edit = replace(edit, image=load_images("mnist5k").images[0])
    frames = film(digits, SampleRequest("mnist", n=2, label=None, settings=FEW), edit)
    assert frames[-1]["step"] == frames[-1]["steps"] == steps
    assert frames[-1]["nfe"] == nfe
    settings = sample_config(digits, SampleRequest("mnist", label=None, settings=FEW))
    made = generate(load("mnist"), 2, settings=settings, edit=edit)
    assert frames[-1]["x"] == png(made.images)
