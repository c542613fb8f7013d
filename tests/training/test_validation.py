"""The loss on held-out images tells when the others are memorized."""

import json
import math
from dataclasses import replace

import pytest
import torch

from ddpm import Batches, Diffusion, ImageDataset, cosine, linear, load, preset, train
from ddpm.checkpoint.checkpoint import average_note
from ddpm.checkpoint.run_dir import RunDir
from ddpm.cli.main import main
from ddpm.training.validation import (
    BANDS,
    Validation,
    overfitting_note,
    split_held_out,
    times_in_bands,
)
from pictures import folder_of, photos


@pytest.mark.parametrize(
    ("n", "most", "held"), [(60_000, 256, 256), (1000, 256, 50), (20, 256, 1), (19, 256, 0),
                            (1000, 0, 0)]
)  # fmt: skip
def test_images_are_set_apart(n, most, held):
    learned, apart = split_held_out(n, most)
    assert len(apart) == held
    assert torch.equal(torch.cat([learned, apart]).sort().values, torch.arange(n))
    if held > 1:  # spread over the whole set, whose classes may lie one after the other
        assert (apart.diff() - n / held).abs().max() <= 1


def test_what_is_apart_is_never_learned():
    data = ImageDataset(
        torch.arange(40, dtype=torch.uint8)[:, None, None, None], None, (), "numbers"
    )
    learned, apart = split_held_out(40, 2)
    batches = Batches(data, 19, subset=learned)
    seen = torch.cat([batches.indices(k) for k in range(4)])
    assert set(seen.tolist()) == set(learned.tolist())
    assert not set(seen.tolist()) & set(apart.tolist())


@pytest.mark.parametrize("schedule", [linear(), cosine()])
def test_bands_share_out_the_times(schedule):
    diffusion = Diffusion(schedule)
    bands = times_in_bands(diffusion)
    assert torch.cat(list(bands.values())).sort().values.tolist() == list(range(1, 1001))
    for name, times in bands.items():
        snr = diffusion.schedule.snr(times)
        low, high = BANDS[name]
        assert (snr >= low).all()
        assert (snr < high).all()


def test_a_loss_of_which_the_answer_is_known(tmp_path):
    """A network that says 0 for ε misses by E ε² = 1 in every band."""
    diffusion = Diffusion(cosine(), target="eps")
    data = ImageDataset(photos(64), None, (), "photos")
    learned, apart = split_held_out(64, 3)
    validation = Validation(RunDir(tmp_path), data, learned, apart, diffusion, seed=0)
    measured = validation.losses(lambda x, t, y: torch.zeros_like(x), batch=2)
    assert set(measured) == {"held out", "learned"}
    for losses in measured.values():
        assert list(losses) == list(BANDS)
        assert all(loss == pytest.approx(1, abs=0.1) for loss in losses.values())
    again = validation.losses(lambda x, t, y: torch.zeros_like(x), batch=3)
    for name in measured:
        assert again[name] == pytest.approx(measured[name], rel=1e-5)


def line(step, held, learned):
    return {"step": step, "held out": {"SNR over 10": held}, "learned": {"SNR over 10": learned}}


def test_a_rise_is_told():
    falling = [line(1, 0.5, 0.5), line(2, 0.4, 0.4)]
    assert overfitting_note(falling[:1]) is None
    assert overfitting_note(falling) is None
    assert overfitting_note([*falling, line(3, 0.405, 0.3)]) is None  # within what chance does
    assert (
        overfitting_note([*falling, line(3, 0.5, 0.45)]) is None
    )  # both rise: that is something else
    note = overfitting_note([*falling, line(3, 0.44, 0.3)])
    assert "at SNR over 10 the loss on held-out images is 10% above its lowest (step 2)" in note
    assert "memorize images" in note


@pytest.mark.long
def test_a_network_that_memorizes_is_caught(tmp_path, caplog):
    """For real: noise, of which nothing can be learned but each image."""
    noise = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    data = folder_of(noise.to(torch.uint8), tmp_path / "noise")
    base = preset("first-run")
    config = replace(
        base, data=str(data), minutes=None, steps=300, seed=1,
        unet=replace(base.unet, channels=32, patch=1),
        train=replace(base.train, batch=16, ema=0.9, sample_minutes=0.02, decay=0.0, lr=2e-3),
        sample=replace(base.sample, steps=1),
    )  # fmt: skip
    train(config, tmp_path / "run", device="cpu")
    lines = [
        json.loads(line) for line in (tmp_path / "run/held-out.jsonl").read_text().splitlines()
    ]
    assert len(lines) > 2
    assert all(math.isfinite(v) for line in lines for v in line["held out"].values())
    assert caplog.text.count("memorize images. Stop here") == 1


def test_an_average_that_is_young(trained, tmp_path, capsys):
    assert average_note(0, 0.999) is None  # unknown, as in what others wrote
    assert average_note(1000, 0.999) is None
    assert "step 90 and average 11 steps; in a longer run they average 1,000" in average_note(
        90, 0.999
    )
    assert load(trained).step == 4
    capsys.readouterr()
    assert main(["generate", str(trained), "--n", "1", "--out", str(tmp_path / "a.png")]) == 0
    assert "note: these weights are of step 4" in capsys.readouterr().err
