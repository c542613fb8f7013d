"""A training run: what it leaves, and the same weights from the same seed."""

import sys
from dataclasses import replace

import pytest
import torch

from ddpm import ImageDataset, UserError, generate, load, train
from ddpm.checkpoint.run_dir import RunDir
from ddpm.config import read_toml
from ddpm.utils.random import derive_seed
from pictures import photos
from runs import assert_same, metrics, tensors


def test_a_run_leaves_everything(tiny, tmp_path):
    result = train(tiny, tmp_path / "run")
    assert (result.step, result.images_seen, result.finished) == (4, 64, True)
    names = {p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").rglob("*")}
    assert names == {
        "config.toml", "metrics.jsonl", "model.safetensors", "state", "state/state.safetensors",
        "state/state-before.safetensors", "state/lock", "held-out.jsonl", "guide.safetensors",
        "samples", "samples/0000004-raw.png", "samples/0000004-ema.png",
    }  # fmt: skip
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]) == {"step", "images", "seconds", "loss", "lr", "grad_norm"}
    checkpoint = load(tmp_path / "run")
    assert checkpoint.config == tiny
    assert checkpoint.data.classes == tuple("0123456789")
    assert checkpoint.data.fingerprint
    assert checkpoint.images_seen == 64


def test_a_guide_is_the_average_early_in_the_run(tiny, tmp_path):
    config = replace(tiny, steps=25)
    train(config, tmp_path / "run")
    guide = load(RunDir(tmp_path / "run").guide)
    assert (guide.step, guide.weights, guide.config) == (2, "ema", config)  # 8 % of 25 steps
    written = RunDir(tmp_path / "run").guide.read_bytes()
    longer = replace(config, steps=30, seed=0)
    train(longer, tmp_path / "run", resume=True)
    assert RunDir(tmp_path / "run").guide.read_bytes() == written
    RunDir(tmp_path / "run").guide.unlink()
    train(replace(config, steps=31), tmp_path / "run", resume=True)
    assert not RunDir(tmp_path / "run").guide.exists()  # it would not be early any more


def test_the_loss_falls(tiny, tmp_path):
    train(replace(tiny, steps=150, train=replace(tiny.train, lr=5e-3)), tmp_path / "run")
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert sum(losses[-50:]) / 50 < 0.75 * sum(losses[:5]) / 5


def test_one_seed_one_result(tiny_dropout, tmp_path):
    for name in ("a", "b"):
        train(tiny_dropout, tmp_path / name)
    train(replace(tiny_dropout, seed=1), tmp_path / "c")
    assert_same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    a, c = tensors(tmp_path / "a"), tensors(tmp_path / "c")
    assert not torch.equal(a["raw.conv_in.weight"], c["raw.conv_in.weight"])


def test_a_run_can_begin_from_weights(tiny, trained, tmp_path):
    still = replace(tiny, steps=1, init=str(trained))
    still = replace(still, train=replace(tiny.train, lr=1e-12, warmup=0, decay=0.0))
    train(still, tmp_path / "second")
    a, b = load(trained).net, load(tmp_path / "second").net
    for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y)


def test_a_fine_stage_can_be_put_on_trained_weights(tiny, trained, tmp_path):
    still = replace(tiny, steps=1, init=str(trained))
    still = replace(
        still,
        unet=replace(tiny.unet, fine=4),
        train=replace(tiny.train, lr=1e-12, warmup=0, decay=0.0),
    )
    train(still, tmp_path / "second")
    a, b = load(trained).net.state_dict(), load(tmp_path / "second").net.state_dict()
    assert {name.split(".")[0] for name in set(b) - set(a)} == {"fine"}
    for name in a:
        torch.testing.assert_close(a[name], b[name])


def test_with_other_classes_only_their_embedding_is_new(tiny, trained, tmp_path):
    few = replace(tiny, steps=1, init=str(trained), labels=False)
    with pytest.raises(UserError, match="another network"):
        train(replace(few, unet=replace(tiny.unet, channels=16)), tmp_path / "wider")
    still = replace(few, train=replace(tiny.train, lr=1e-12, warmup=0, decay=0.0))
    train(still, tmp_path / "second")
    a, b = load(trained).net.state_dict(), load(tmp_path / "second").net.state_dict()
    assert set(a) - set(b) == {"label.weight"}
    for name in b:
        torch.testing.assert_close(a[name], b[name])


def test_a_folder_that_is_in_use_is_left_alone(tiny, tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match="in use"):
        train(tiny, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["diary.txt"]


def test_a_floor_is_not_for_eps(tiny, tmp_path):
    eps = replace(tiny.diffusion, target="eps", weight="min-snr", min_weight=0.5)
    with pytest.raises(UserError, match="errors of x_0, not of eps"):
        train(replace(tiny, diffusion=eps), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_guidance_needs_images_that_are_learned_without_their_class(tiny, tmp_path):
    always = replace(tiny, train=replace(tiny.train, label_drop=0.0))
    with pytest.raises(UserError, match=r"add --sample\.guidance 1"):
        train(always, tmp_path / "a")
    plain = replace(always, sample=replace(tiny.sample, guidance=1.0))
    assert train(plain, tmp_path / "b").finished
    assert train(replace(always, labels=False), tmp_path / "c").finished


def test_without_bfloat16_a_run_is_in_float32_and_says_so(tiny, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(sys.modules["ddpm.training.train"], "has_bfloat16", lambda device: False)
    config = replace(tiny, train=replace(tiny.train, precision="bf16"))
    train(config, tmp_path / "run", device="cpu")
    assert read_toml(tmp_path / "run" / "config.toml").train.precision == "no"
    assert "training in float32" in caplog.text


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_mixed_precision_keeps_float32_weights(tiny, tmp_path, precision, monkeypatch):
    monkeypatch.setattr(sys.modules["ddpm.training.train"], "has_bfloat16", lambda device: True)
    config = replace(tiny, train=replace(tiny.train, precision=precision))
    train(config, tmp_path / "run")
    state = tensors(tmp_path / "run")
    assert {t.dtype for t in state.values()} == {torch.float32}
    assert all(line["loss"] < 2 for line in metrics(tmp_path / "run"))


def test_budgets_in_images_and_minutes(tiny, tmp_path):
    by_images = replace(tiny, steps=None, images=48)
    assert train(by_images, tmp_path / "images").images_seen == 48
    by_minutes = replace(tiny, steps=None, minutes=0.1)  # a busy machine takes 3 s to begin
    result = train(by_minutes, tmp_path / "minutes")
    assert result.step > 0
    assert 3 <= result.seconds < 15
    for budget in ({"steps": None}, {"minutes": 1.0}):
        with pytest.raises(UserError, match="one budget"):
            train(replace(tiny, **budget), tmp_path / "none")


def test_a_finished_run_says_so_before_anything_is_read(tiny, finished, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    module = sys.modules["ddpm.training.train"]
    monkeypatch.setattr(module, "load_data", lambda *args: pytest.fail("images were read"))
    result = train(tiny, finished, resume=True)
    assert (result.finished, result.step) == (True, tiny.steps)
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    assert {k: v for k, v in after.items() if k.name != "lock"} == {
        k: v for k, v in before.items() if k.name != "lock"
    }


def test_grids_do_not_disturb_the_training(tiny_dropout, tmp_path):
    train(tiny_dropout, tmp_path / "plain")
    often = replace(tiny_dropout, train=replace(tiny_dropout.train, sample_minutes=1e-5))
    train(often, tmp_path / "often")
    assert len(list((tmp_path / "often" / "samples").iterdir())) >= 4
    assert_same(tensors(tmp_path / "plain"), tensors(tmp_path / "often"))


def test_seeds_for_different_ends_are_different():
    seeds = [derive_seed(s, p, i) for s in (0, 5, 2**32 + 5) for p in range(3) for i in range(50)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator here")
def test_an_accelerator_trains_and_samples(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    device = torch.accelerator.current_accelerator().type
    ours = generate(tmp_path / "run", n=4, device=device).images.int()
    assert (ours - generate(tmp_path / "run", n=4, device="cpu").images.int()).abs().max() <= 2


def test_an_unknown_device_is_refused(tiny, tmp_path):
    for device in ("abacus", "cuda:99", "meta"):
        with pytest.raises(UserError, match="there is no device"):
            train(tiny, tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()


def test_images_from_python_take_the_place_of_a_source(tiny, tmp_path):
    config = replace(tiny, size=(28,), steps=2, train=replace(tiny.train, batch=4))
    array = photos(8).permute(0, 2, 3, 1).numpy()
    train(config, tmp_path / "array", images=array, device="cpu")
    data = load(tmp_path / "array").data
    assert (data.source, data.count, data.shape, data.classes) == ("array", 8, (3, 16, 16), ())
    labelled = ImageDataset.from_array(array, [0, 1] * 4, ("cat", "dog"), source="pets")
    train(config, tmp_path / "set", images=labelled, device="cpu")
    assert load(tmp_path / "set").data == labelled.info
    config = replace(config, steps=3)
    assert train(config, tmp_path / "set", images=labelled, device="cpu", resume=True).step == 3
    with pytest.raises(UserError, match="uint8"):
        train(config, tmp_path / "bad", images=array / 20, device="cpu")


@pytest.mark.long  # 62,000 files are decoded; the test above has images in colour as well
@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("cifar10-train.zip", (3, 32, 32), 10),
        pytest.param("celeba64-train.zip", (3, 64, 64), 0, marks=pytest.mark.long),
    ],
)
def test_own_data_in_colour(shared, tiny, tmp_path, name, shape, classes):
    """The same settings, another source: nothing is edited."""
    train(replace(tiny, data=str(shared / name), steps=3), tmp_path / "run")
    info = load(tmp_path / "run").data
    assert (info.shape, len(info.classes)) == (shape, classes)
    assert generate(tmp_path / "run", n=2).images.shape == (2, *shape)
