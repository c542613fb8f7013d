"""Numbers that are not finite: their steps are skipped and written, and the run goes back to its
last checkpoint where they persist."""

import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ddpm import Loss, UserError, load, train
from ddpm.cli.main import main
from ddpm.training.replay import replay
from runs import metrics, tensors


@pytest.fixture
def poisoned(monkeypatch):
    """A loss that is not a number at the steps in a set."""
    steps, seen = set(), {"step": -1}
    honest = Loss.__call__
    module = sys.modules["ddpm.training.train"]
    keyed = module.derive_seed

    def derive_seed(seed, purpose, index=0):
        if purpose == module.STEP:
            seen["step"] = index
        return keyed(seed, purpose, index)

    def poisoned_loss(self, *args, **kwargs):
        loss = honest(self, *args, **kwargs)
        bad = seen["step"] in steps and torch.is_grad_enabled()  # of the step, and no other look
        return loss * float("nan") if bad else loss

    monkeypatch.setattr(module, "derive_seed", derive_seed)
    monkeypatch.setattr(Loss, "__call__", poisoned_loss)
    return steps


def finite(run):
    return all(t.isfinite().all() for t in tensors(run).values())


def test_a_bad_step_is_skipped_counted_and_kept(tiny, tmp_path, poisoned, caplog):
    config = replace(tiny, steps=12, train=replace(tiny.train, log_every=4))
    poisoned |= {5}
    result = train(config, tmp_path / "run", device="cpu")
    assert result.finished
    assert finite(tmp_path / "run")
    assert [line.get("skipped") for line in metrics(tmp_path / "run")] == [None, 1, None]
    assert all(line["loss"] < 5 for line in metrics(tmp_path / "run"))
    assert "1 of 4 steps up to 8 were skipped" in caplog.text
    assert [p.name for p in (tmp_path / "run" / "bad").iterdir()] == ["step-0000005.safetensors"]


@pytest.fixture
def few_may_be_bad(monkeypatch):
    monkeypatch.setattr("ddpm.training.nonfinite.MAX_NONFINITE_STEPS", 5)


def test_a_skipped_step_changes_nothing(tiny, tmp_path, poisoned):
    """Weights and moments, bit for bit. The average alone goes on towards the weights."""
    config = replace(tiny, train=replace(tiny.train, decay=0))  # a rate that no budget changes
    train(replace(config, steps=6), tmp_path / "whole", device="cpu")
    poisoned |= {6, 7}
    train(replace(config, steps=8), tmp_path / "run", device="cpu")
    poisoned.clear()
    short = load_file(tmp_path / "whole" / "state" / "state.safetensors")
    skipped = load_file(tmp_path / "run" / "state" / "state.safetensors")
    assert short.keys() == skipped.keys()
    for name, tensor in short.items():
        if not name.startswith("ema."):
            assert torch.equal(tensor, skipped[name]), name
    assert all(t.isfinite().all() for t in skipped.values())


def test_after_many_the_run_goes_back_at_half_of_the_rate(
    tiny, tmp_path, poisoned, few_may_be_bad, caplog
):
    poisoned |= set(range(3, 12))
    with pytest.raises(UserError, match=r"even at 0\.125 of the learning rate"):
        train(replace(tiny, steps=20), tmp_path / "run")
    assert "back to step 0, and on with 0.5 of the learning rate" in caplog.text
    kept = load_file(tmp_path / "run" / "state" / "state.safetensors")
    assert all(t.isfinite().all() for t in kept.values())
    assert not (tmp_path / "run" / "model.safetensors").exists()  # of weights that learned nothing


def test_bad_numbers_that_do_not_come_back(tiny, tmp_path, poisoned, few_may_be_bad):
    """The second time there, the numbers are good: the run ends as if nothing had been, with half
    the rate from there on."""
    module = sys.modules["ddpm.training.nonfinite"]
    back = module.restore_latest

    def heal(*args, **options):
        poisoned.clear()
        return back(*args, **options)

    poisoned |= set(range(3, 12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "restore_latest", heal)
        result = train(replace(tiny, steps=12), tmp_path / "run", device="cpu")
    assert result.finished
    assert result.step == 12
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, 13))
    assert load(tmp_path / "run").step == 12


def test_replay_finds_where(tiny, tmp_path, poisoned, capsys):
    poisoned |= {2}
    train(tiny, tmp_path / "run", device="cpu")
    poisoned.clear()
    (path,) = (tmp_path / "run" / "bad").iterdir()
    assert main(["replay", str(path), "--device", "cpu"]) == 0
    assert "it is finite on this device" in capsys.readouterr().out
    found = replay(path)
    assert found.step == 2
    assert found.where is None
    assert 0 < found.loss < 5


def test_replay_is_the_step_that_was(tiny_dropout, tmp_path, poisoned):
    """The same loss as in training: mirroring, augmentation, hidden labels, times and noise."""
    config = replace(tiny_dropout, steps=4, unet=replace(tiny_dropout.unet, dropout=0.0))
    config = replace(config, train=replace(config.train, augment=0.5))
    train(config, tmp_path / "sound", device="cpu")
    wanted = metrics(tmp_path / "sound")[0]["loss"]
    poisoned |= {0}
    train(config, tmp_path / "run", device="cpu")
    poisoned.clear()
    (path,) = (tmp_path / "run" / "bad").iterdir()
    assert replay(path).loss == pytest.approx(wanted, rel=1e-5)


def test_replay_names_weights_images_and_layers(tiny, tmp_path, poisoned):
    from ddpm.checkpoint.tensors import load_tensors, save_tensors
    from ddpm.training.nonfinite import BatchHeader

    poisoned |= {1}
    train(tiny, tmp_path / "run", device="cpu")
    poisoned.clear()
    (path,) = (tmp_path / "run" / "bad").iterdir()
    batch, header = load_tensors(path, BatchHeader)
    broken = {**batch, "raw.conv_in.weight": batch["raw.conv_in.weight"] * float("inf")}
    save_tensors(path, broken, header)
    assert "the weights of conv_in.weight" in replay(path).where
    save_tensors(path, {**batch, "x0": batch["x0"] / 0}, header)
    assert "the images of the batch" in replay(path).where
    huge = {**batch, "raw.conv_in.weight": batch["raw.conv_in.weight"] + 3e38}
    save_tensors(path, huge, header)
    assert "the output of conv_in, Conv2d" in replay(path).where
    save_tensors(path, {"x0": batch["x0"]}, header)
    with pytest.raises(UserError, match="do not fit its own config"):
        replay(path)


def test_a_rate_far_too_high_ends_with_a_word(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.training.nonfinite.MAX_NONFINITE_STEPS", 5)
    config = replace(tiny, steps=500, train=replace(tiny.train, lr=1e30, warmup=0))
    with pytest.raises(UserError, match=r"try a lower --train\.lr"):
        train(config, tmp_path / "run", device="cpu")


def test_a_target_that_is_large_has_not_exploded(tiny, tmp_path):
    """F is x_0/σ_data at much noise: with a σ_data of 0.1, a network that says 0 loses dozens."""
    edm = replace(tiny.diffusion, schedule="edm", target="F", sigma_data=0.1)
    learned = replace(tiny.diffusion, target="x0", learned_variance=True)  # whose L_0 is hundreds
    for name, diffusion in (("edm", edm), ("learned", learned)):
        config = replace(tiny, steps=3, diffusion=diffusion)
        assert train(config, tmp_path / name, device="cpu").finished


def test_skipping_costs_no_look_at_the_device(tiny):
    """The optimizer's fused step is told on the device."""
    net = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(net.parameters(), 0.1, fused=True)
    before = net.weight.clone()
    net(torch.ones(3)).sum().backward()
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert torch.equal(net.weight, before)
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    assert not torch.equal(net.weight, before)
