"""EDM and rectified flow, from training to the demo: by options alone, as DDPM."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from ddpm import generate, load, load_images, train
from ddpm.checkpoint.checkpoint import build_diffusion
from ddpm.config import DiffusionConfig, SampleConfig
from ddpm.core.likelihood import variational_bound
from ddpm.demo.equations import whiteboard
from ddpm.demo.requests import SampleRequest
from ddpm.demo.trajectory import frames
from ddpm.training.validation import times_in_bands
from runs import assert_same, metrics, tensors

PROCESSES = {
    "flow": DiffusionConfig("flow", target="u"),
    "edm": DiffusionConfig("edm", target="F", time_sampling="log-normal"),
    "edm, stratified": DiffusionConfig("edm", 100, "F", time_sampling="stratified"),
    "cosine to noise": DiffusionConfig(
        "cosine",
        100,
        "v",
        weight="min-snr",
        min_weight=0.5,
        zero_snr=True,
        time_sampling="stratified",
    ),
    "learned variance": DiffusionConfig("cosine", 100, "eps", learned_variance=True),
    "flow by min-snr": DiffusionConfig("flow", 100, "v", weight="min-snr", min_weight=0.5),
}
LONG = ("edm, stratified", "flow by min-snr")  # to be trained: others have a part each of these


@pytest.fixture
def config(tiny, process):
    sample = SampleConfig(steps=3, spacing="rho", guidance=2.0)
    return replace(tiny, diffusion=PROCESSES[process], sample=sample)


@pytest.mark.parametrize(
    "process",
    [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in PROCESSES],
)
def test_it_trains_resumes_bit_for_bit_and_is_shown(config, tmp_path):
    train(replace(config, steps=4), tmp_path / "whole")
    train(replace(config, steps=2), tmp_path / "run")
    train(replace(config, steps=4), tmp_path / "run", resume=True)
    assert_same(tensors(tmp_path / "whole"), tensors(tmp_path / "run"))
    assert all(torch.tensor(line["loss"]).isfinite() for line in metrics(tmp_path / "run"))
    checkpoint = load(tmp_path / "run")
    assert times_in_bands(checkpoint.diffusion)
    for sampler in ("ddpm", "heun", "dpm++"):
        settings = replace(config.sample, sampler=sampler)
        made = generate(checkpoint, 2, settings=settings)
        assert torch.equal(made.images, generate(checkpoint, 2, settings=settings).images)
    image = load_images("mnist5k").images[0]
    T = checkpoint.diffusion.T
    for t in (1, T // 2, T):
        assert "nan" not in str(whiteboard(checkpoint, image, t)["numbers"])
    *_, last = frames(checkpoint, SampleRequest("run", n=2))
    assert last["step"] == 3


@pytest.mark.parametrize("process", PROCESSES)
def test_it_is_bounded(config):
    """The bound of a network that sees nothing but what it is given, at every time."""
    diffusion = build_diffusion(config)
    x0 = load_images("mnist5k").images[:4].float() / 127.5 - 1
    both = 2 if diffusion.learned_variance else 1
    denoise = diffusion.denoiser(lambda x, t, y: torch.cat([0 * x] * both, dim=1))
    times = list(range(diffusion.T, -1, -1 if diffusion.T == 100 else -10))
    draws = torch.Generator().manual_seed(0)
    bound = variational_bound(
        diffusion, denoise, x0, lambda: torch.randn(x0.shape, generator=draws), times
    )
    assert bound.total.isfinite().all()
    assert len(bound.steps) == len(list(pairwise(times))) - 1
