"""Images other than digits, for tests."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from ddpm.utils.images import to_pil


def photos(n, seed=0, side=16, channels=3):
    """Smooth noise in colour: waves of random direction and length."""
    g = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 6, side)
    a, b, phase = torch.rand(3, n, channels, 1, 1, generator=g)
    waves = torch.sin(a * x[:, None] + b * x + 6 * phase)
    return ((waves + 1) * 127.5).to(torch.uint8)


def folder_of(images, path):
    path.mkdir(parents=True)
    for i, image in enumerate(images):
        to_pil(image).save(path / f"{i:03}.png")
    return path


def noise_image(h, w, mode="RGB", seed=0):
    """Pixels of every value."""
    rng = np.random.default_rng(seed)
    shape = (h, w) if mode == "L" else (h, w, len(mode))
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)


def png(image, **options):
    """The bytes of an image file, PNG unless `format` says otherwise."""
    file = io.BytesIO()
    image.save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def messy_folder(folder):
    """Twelve photos, wide and tall, gray and coloured, one twice; a text and a file cut short."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(12):
        size = (40 + 8 * i, 60, 3) if i % 2 else (40, 60)
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(folder / f"{i:02}.png")
    (folder / "12.png").write_bytes((folder / "03.png").read_bytes())
    (folder / "13.png").write_text("text")
    (folder / "14.png").write_bytes((folder / "05.png").read_bytes()[:300])
    return folder


def data_uri(image, kind="png", **options):
    """The image in a file of that kind, as a browser sends it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()


def open_data_uri(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
