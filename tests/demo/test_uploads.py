"""A visitor's images and masks."""

import base64

import numpy as np
import pytest
from PIL import GifImagePlugin, Image

from ddpm import UserError
from ddpm.data.limits import MemoryPool
from ddpm.demo import uploads
from ddpm.demo.pictures import film
from pictures import data_uri, open_data_uri


def test_an_upload_becomes_an_image_of_the_network(digits):
    photo = Image.fromarray(np.full((60, 90, 3), 200, np.uint8))
    image, note = uploads.read_upload("a.png", data_uri(photo), digits.data)
    assert image.shape == (1, 28, 28)
    assert (image == 200).all()
    assert "28x28" in note
    moving = data_uri(photo, "gif", save_all=True, append_images=[photo.rotate(90), photo])
    assert "only its first frame is used" in uploads.read_upload("a.gif", moving, digits.data)[1]


def text_uri(text):
    return "data:image/png;base64," + base64.b64encode(text).decode()


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (text_uri(b"just text"), "is not an image, whatever its name says"),
        (lambda: data_uri(Image.new("1", (30_000, 30_000))), "30000x30000 pixels are too many"),
        (lambda: data_uri(Image.new("1", (8_000, 8_000))), "which is too many"),
        (data_uri(noise(), "jpeg")[:-400], "is damaged"),
        ("", "larger than 8 MB"),
        ("data:image/png;base64,????", "did not arrive whole"),
        ("no uri at all", "did not arrive whole"),
        ("data:image/png;base64," + "A" * 11_000_000, "too large"),
    ],
)
def test_bad_uploads_are_named(data, says, digits):
    data = data() if callable(data) else data  # large ones are made here, not for every worker
    with pytest.raises(UserError, match=says):
        uploads.read_upload("photo.png", data, digits.data)


def test_a_mask_is_where_was_painted(digits):
    drawn = Image.new("RGBA", (280, 280), (0, 0, 0, 0))
    drawn.paste((255, 255, 255, 255), (0, 140, 280, 280))
    mask = uploads.read_mask(data_uri(drawn), digits.data)
    assert mask[15:].all()
    assert not mask[:13].any()
    with pytest.raises(UserError, match="paint it again"):
        uploads.read_mask(text_uri(b"no"), digits.data)
    with pytest.raises(UserError, match="the mask is too large"):
        uploads.read_mask(data_uri(Image.new("1", (4000, 4000))), digits.data)


def test_an_upload_takes_of_the_memory_for_all(digits, monkeypatch):
    asked = []

    class Noted(MemoryPool):
        def reserve(self, n):
            asked.append(n)
            return super().reserve(n)

    monkeypatch.setattr("ddpm.data.decode.DECODING", Noted(1_000_000))
    uploads.read_upload("a.png", data_uri(noise()), digits.data)
    assert sum(asked) >= 64 * 64


def test_the_frames_of_a_file_are_not_counted(digits, monkeypatch):
    frames = [Image.new("L", (64, 64), i) for i in range(200)]
    moving = data_uri(frames[0], "gif", save_all=True, append_images=frames[1:])
    sought = []
    seek = GifImagePlugin.GifImageFile._seek
    monkeypatch.setattr(
        GifImagePlugin.GifImageFile,
        "_seek",
        lambda self, frame, *rest: sought.append(frame) or seek(self, frame, *rest),
    )
    assert "it is animated" in uploads.read_upload("a.gif", moving, digits.data)[1]
    assert max(sought) <= 1


def test_the_frames_of_a_film_become_a_file():
    frames = [data_uri(Image.new("L", (28, 28), i)) for i in range(5)]
    for kind in ("gif", "webp"):
        made = open_data_uri(film(uploads.read_frames(frames), kind))
        assert made.n_frames == 5
        assert made.size == (476, 476)


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (["data:image/png;base64,????"], "did not arrive whole"),
        ([text_uri(b"no")], "could not be read"),
        (lambda: [data_uri(Image.new("1", (7000, 7000)))], "too large"),
        (["data:image/png;base64," + "A" * 9_000_000], "too large"),
    ],
)
def test_films_that_are_none(frames, says):
    frames = frames() if callable(frames) else frames
    with pytest.raises(UserError, match=says):
        uploads.read_frames(frames)


def test_films_of_odd_sizes_are_refused():
    frames = [Image.new("L", (28, 28)), Image.new("L", (29, 28))]
    with pytest.raises(UserError, match="of one size"):
        film(frames, "gif")
    with pytest.raises(UserError, match="too large"):
        film([Image.new("L", (400, 400))] * 200, "gif")
