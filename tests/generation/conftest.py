"""A checkpoint with random weights, for tests of generation."""

import pytest
import torch

from ddpm import build, save
from ddpm.config import Config, DataInfo, DiffusionConfig, SampleConfig, UNetConfig


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """A checkpoint with random weights, as if trained: of digits, or of another shape."""

    def of(
        channels=1, height=28, width=28, classes=tuple("0123456789"), seed=0, base=8, **diffusion
    ):
        unet = UNetConfig(base, mults=(1, 2), blocks=1, attention=(4,), groups=4, patch=2)
        diffusion = DiffusionConfig(**diffusion)
        config = Config(unet=unet, diffusion=diffusion, sample=SampleConfig(steps=4))
        info = DataInfo("test", 10, channels, height, width, classes, "f00d")
        torch.manual_seed(seed)
        net, _ = build(config, info)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.1)
        path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
        save(path, net, config, info, 7, 70)
        return path

    return of


@pytest.fixture(scope="module")
def digits(make):
    return make()
