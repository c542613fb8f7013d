"""Images that are no digits, for tests."""

import torch

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
