"""Images that are generated live."""

import json
import re
from dataclasses import replace

import pytest
import torch

from ddpm import Edit, UserError, generate, load, load_images
from ddpm.demo import stream
from ddpm.demo.html import png
from pictures import open_data_uri


def frames_of(page):
    return json.loads(re.search(r'data-frames="([^"]*)"', page)[1].replace("&quot;", '"'))


def test_images_come_live_and_then_as_a_player(digits):
    settings = stream.sample_config(digits, "ddim", 16, 0.7, 2.0, stream.ALL_CLASSES)
    pages = list(stream.stream_images(digits, settings, 4, seed=3))
    assert "step 0 of 16" in pages[0]
    assert len(pages) > 1
    frames = frames_of(pages[-1])
    assert len(frames) == 17
    assert "seed 3" in frames[-1][2]
    wanted = png(generate(load("mnist"), 4, seed=3, settings=settings).images)
    assert frames[-1][0] == wanted
    assert open_data_uri(re.search(r'href="(data:image/gif[^"]*)"', pages[-1])[1]).n_frames == 17


def test_a_long_trajectory_has_a_short_player(digits):
    settings = stream.sample_config(digits, "ddim", 200, 0, 1, "7")
    *_, page = stream.stream_images(digits, settings, 1, seed=0, label="7")
    assert 20 < len(frames_of(page)) <= stream.MAX_FRAMES + 1


def test_a_player_of_large_images_has_fewer_frames(digits, monkeypatch):
    faces = replace(digits.data, channels=3, height=64, width=64)
    assert stream.max_frames(16, digits.data) >= 16
    assert 16 <= stream.max_frames(16, faces) <= 24
    assert 4 <= stream.max_frames(64, faces) <= 6
    assert stream.max_frames(64, replace(faces, height=4096, width=4096)) == 1
    monkeypatch.setattr(stream, "MAX_VALUES", 4 * 4 * 28 * 28)
    settings = stream.sample_config(digits, "ddim", 16, 0, 1, stream.ALL_CLASSES)
    *_, page = stream.stream_images(digits, settings, 4, seed=3)
    captions = [caption for _, _, caption in frames_of(page)]
    assert [int(caption.split()[1]) for caption in captions] == [0, 4, 8, 12, 16]


def test_sampling_that_takes_too_long_is_stopped(digits, monkeypatch):
    monkeypatch.setattr(stream, "MAX_SECONDS", 0.0)
    settings = stream.sample_config(digits, "ddim", 10, 0, 1, "7")
    with pytest.raises(UserError, match="stopped after 0 of 10 steps"):
        list(stream.stream_images(digits, settings, 1, seed=0, label="7"))


def test_what_the_page_cannot_ask_for(digits):
    with pytest.raises(UserError, match="eta"):
        stream.sample_config(digits, "ddim", 10, 3.0, 1, stream.ALL_CLASSES)
    assert stream.sample_config(digits, "ddpm", 10**6, 0, 1, stream.ALL_CLASSES).steps == 1000
    assert stream.sample_config(digits, "ddpm", 10, 0, 3, stream.NO_CLASS).guidance == 0


@pytest.mark.parametrize(
    ("label", "asked"),
    [(stream.NO_CLASS, ()), (stream.ALL_CLASSES, tuple("0123456789")), ("7", ("7",))],
)
def test_an_edit_is_shown_too_with_the_class_that_is_asked(digits, label, asked):
    settings = stream.sample_config(digits, "ddim", 4, 0.7, 2, label)
    edit = Edit(towards=2)
    *_, page = stream.stream_images(digits, settings, 3, 1, label, edit)
    made = generate(load("mnist"), 3, seed=1, labels=asked, settings=settings, edit=edit)
    assert frames_of(page)[-1][0] == png(made.images)


@pytest.mark.parametrize(
    ("edit", "steps", "nfe"),
    [
        (Edit(towards=2), 4, 4),
        (Edit(change=0.6), 3, 3),
        (Edit(mask=torch.ones(28, 28, dtype=torch.bool), rounds=3), 4, 10),
    ],
)
def test_steps_and_evaluations_are_those_of_the_edit(digits, edit, steps, nfe):
    if edit.towards is None:
        edit = replace(edit, image=load_images("mnist5k").images[0])
    settings = replace(
        stream.sample_config(digits, "ddim", 4, 0, 1, stream.NO_CLASS), spacing="even"
    )
    *_, page = stream.stream_images(digits, settings, 2, 0, stream.NO_CLASS, edit)
    frames = frames_of(page)
    assert frames[0][2].startswith(f"step 0 of {steps} ")
    assert f"step {steps} of {steps} · t = 0 " in frames[-1][2]
    assert f" {nfe} evaluations" in frames[-1][2]
