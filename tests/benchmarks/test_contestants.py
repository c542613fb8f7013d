"""The contestants of the benchmark train and sample, each by its own library."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import contestants


def check(job, y):
    x0 = torch.rand(4, 1, 16, 16) * 2 - 1
    for k in range(3):
        job.step(x0, y, k / 3)
    images = job.sample(y)
    assert images.shape == (4, 1, 16, 16)
    assert images.dtype == torch.uint8
    assert job.parameters > 0


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("solver", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_diffusers(classes, solver):
    pytest.importorskip("diffusers")
    settings = contestants.DiffusersSettings(
        (8, 16), (1,), lr=1e-3, classes=classes, groups=4, heads=4, steps=2, guidance=2.0,
        prediction="v_prediction", schedule="squaredcos_cap_v2", decay=True, channels_last=True,
        solver=solver, spacing="trailing",
    )  # fmt: skip
    check(contestants.Diffusers(settings, 1, 16), torch.tensor([0, 3, 5, 9]))


@pytest.mark.parametrize("classes", [0, 10])
def test_denoising_diffusion_pytorch(classes):
    pytest.importorskip("denoising_diffusion_pytorch")
    settings = contestants.LucidrainsSettings(
        8,
        (1, 2),
        lr=1e-3,
        classes=classes,
        steps=2,
        guidance=2.0,
        ema_every=1,
        decay=True,
        schedule="cosine",
    )
    check(contestants.Lucidrains(settings, 1, 16), torch.tensor([0, 3, 5, 9]))


def test_ours_steps():
    job = contestants.Ours("small", channels=3, classes=0)
    before = [p.clone() for p in job.ema.model.parameters()]
    job.step(torch.rand(2, 3, 32, 32) * 2 - 1, torch.zeros(2, dtype=torch.long), 0.0)
    after = list(job.ema.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
