"""Training: the same weights from the same seed, through any stop, on any device."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm import (
    EMA,
    Batches,
    Diffusion,
    Loss,
    UNet,
    UserError,
    build,
    build_loss,
    generate,
    linear,
    load,
    load_images,
    train,
)
from ddpm.checkpoint.checkpoint import VERSION, read_tensors
from ddpm.checkpoint.checkpoint import before as before_it
from ddpm.config import TrainConfig, preset, read_toml
from ddpm.core.ema import warm_decay
from ddpm.training.log import budget_spent, hold
from ddpm.training.optimizers import build_optimizer
from ddpm.training.train import learning_rate, start, train_step
from ddpm.utils.random import derive_seed


def steps(config, n):
    return replace(config, steps=n)


def tensors(run):
    return load_file(run / "state" / "state.safetensors") | load_file(run / "model.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a), "weights differ"


def log(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything(tiny, tmp_path):
    result = train(tiny, tmp_path / "run")
    assert (result.step, result.images_seen, result.finished) == (4, 64, True)
    names = {p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").rglob("*")}
    assert names == {
        "config.toml", "metrics.jsonl", "model.safetensors", "state", "state/state.safetensors",
        "state/state-before.safetensors", "state/lock", "held-out.jsonl",
        "samples", "samples/0000004-raw.png", "samples/0000004-ema.png",
    }  # fmt: skip
    lines = log(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]) == {"step", "images", "seconds", "loss", "lr", "grad_norm"}
    checkpoint = load(tmp_path / "run")
    assert checkpoint.config == tiny
    assert checkpoint.data.classes == tuple("0123456789")
    assert checkpoint.data.fingerprint
    assert checkpoint.images_seen == 64


def test_the_loss_falls(tiny, tmp_path):
    train(replace(tiny, steps=150, train=replace(tiny.train, lr=5e-3)), tmp_path / "run")
    losses = [line["loss"] for line in log(tmp_path / "run")]
    assert sum(losses[-50:]) / 50 < 0.75 * sum(losses[:5]) / 5


def test_one_seed_one_result(tiny_dropout, tmp_path):
    for name in ("a", "b"):
        train(tiny_dropout, tmp_path / name)
    train(replace(tiny_dropout, seed=1), tmp_path / "c")
    assert_same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    a, c = tensors(tmp_path / "a"), tensors(tmp_path / "c")
    assert not torch.equal(a["raw.conv_in.weight"], c["raw.conv_in.weight"])


def start_process(config, run, *more):
    """`ddpm train` in a process of its own, on a config given as a file."""
    code = (
        "import sys, pathlib; from ddpm.config import read_toml; from ddpm import train;"
        "train(read_toml(pathlib.Path(sys.argv[1])), sys.argv[2], resume=len(sys.argv) > 3)"
    )
    from ddpm.config import write_toml

    path = run.with_suffix(".toml")
    write_toml(config, path)
    return subprocess.Popen(
        [sys.executable, "-c", code, path, run, *more], stderr=subprocess.PIPE, text=True
    )


def wait_for_step(run, step, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "metrics.jsonl").exists() and len(log_lines(run)) >= step:
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} was never reached: {process.stderr.read()}")


def log_lines(run):
    return (run / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("how", "optimizer"),
    [(signal.SIGINT, "adamw"), (signal.SIGTERM, "adamw"), (signal.SIGKILL, "adamw"),
     (signal.SIGTERM, "muon")],
)  # fmt: skip
def test_a_stopped_run_goes_on_bit_for_bit(how, optimizer, tiny_dropout, tmp_path):
    config = steps(tiny_dropout, 60)
    config = replace(config, train=replace(config.train, optimizer=optimizer))
    train(config, tmp_path / "whole")
    saving = replace(config, train=replace(config.train, save_minutes=1e-4))  # at every step
    run = tmp_path / "stopped"
    process = start_process(saving if how == signal.SIGKILL else config, run)
    wait_for_step(run, 10, process)
    process.send_signal(how)
    process.wait(timeout=60)
    stopped_at = load(run).step
    assert 0 < stopped_at < 60
    result = train(config, run, resume=True)
    assert (result.step, result.finished) == (60, True)
    assert_same(tensors(tmp_path / "whole"), tensors(run))
    assert [line["step"] for line in log(run)] == list(range(1, 61))


def test_a_run_can_begin_from_weights(tiny, tmp_path):
    train(tiny, tmp_path / "first")
    still = replace(tiny, steps=1, init=str(tmp_path / "first"))
    still = replace(still, train=replace(tiny.train, lr=1e-12, warmup=0, decay=0.0))
    train(still, tmp_path / "second")
    a, b = load(tmp_path / "first").net, load(tmp_path / "second").net
    for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y)


def test_a_fine_stage_can_be_put_on_trained_weights(tiny, tmp_path):
    train(tiny, tmp_path / "first")
    still = replace(tiny, steps=1, init=str(tmp_path / "first"))
    still = replace(
        still,
        unet=replace(tiny.unet, fine=4),
        train=replace(tiny.train, lr=1e-12, warmup=0, decay=0.0),
    )
    train(still, tmp_path / "second")
    a, b = load(tmp_path / "first").net.state_dict(), load(tmp_path / "second").net.state_dict()
    assert {name.split(".")[0] for name in set(b) - set(a)} == {"fine"}
    for name in a:
        torch.testing.assert_close(a[name], b[name])


def test_with_other_classes_only_their_embedding_is_new(tiny, tmp_path):
    train(tiny, tmp_path / "first")
    few = replace(tiny, steps=1, init=str(tmp_path / "first"), labels=False)
    with pytest.raises(UserError, match="another network"):
        train(replace(few, unet=replace(tiny.unet, channels=16)), tmp_path / "wider")
    still = replace(few, train=replace(tiny.train, lr=1e-12, warmup=0, decay=0.0))
    train(still, tmp_path / "second")
    a, b = load(tmp_path / "first").net.state_dict(), load(tmp_path / "second").net.state_dict()
    assert set(a) - set(b) == {"label.weight"}
    for name in b:
        torch.testing.assert_close(a[name], b[name])


def test_a_finished_run_can_be_given_more(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    result = train(steps(tiny, 6), tmp_path / "run", resume=True)
    assert result.step == 6
    assert load(tmp_path / "run").step == 6


def test_a_run_stopped_before_its_first_checkpoint_begins_again(tiny, tmp_path):
    train(tiny, tmp_path / "whole")
    train(tiny, tmp_path / "run")
    (tmp_path / "run" / "state" / "state.safetensors").unlink()
    train(tiny, tmp_path / "run", resume=True)
    assert_same(tensors(tmp_path / "whole"), tensors(tmp_path / "run"))


def test_a_folder_that_is_in_use_is_left_alone(tiny, tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match="in use"):
        train(tiny, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["diary.txt"]


def test_a_run_may_go_on_with_another_weight_of_its_loss(tiny, tmp_path):
    train(tiny, tmp_path)
    other = replace(tiny.diffusion, weight="min-snr", min_weight=0.5, time_sampling="by-weight")
    result = train(replace(steps(tiny, 6), diffusion=other), tmp_path, resume=True)
    assert result.step == 6
    assert load(tmp_path).config.diffusion == other


def test_a_floor_is_not_for_eps(tiny, tmp_path):
    eps = replace(tiny.diffusion, target="eps", weight="min-snr", min_weight=0.5)
    with pytest.raises(UserError, match="errors of x_0, not of eps"):
        train(replace(tiny, diffusion=eps), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resuming_refuses_what_would_not_be_the_same_run(tiny, tmp_path):
    with pytest.raises(UserError, match="there is no run to go on with"):
        train(tiny, tmp_path / "none", resume=True)
    train(tiny, tmp_path / "run")
    before = tensors(tmp_path / "run")
    for other in (
        replace(tiny, seed=5),
        replace(tiny, unet=replace(tiny.unet, channels=16)),
        replace(tiny, train=replace(tiny.train, batch=8)),
        replace(tiny, diffusion=replace(tiny.diffusion, target="x0")),
    ):
        with pytest.raises(UserError, match="cannot go on with another"):
            train(other, tmp_path / "run", resume=True)
    state = tmp_path / "run" / "state" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    before_it(state).unlink()
    with pytest.raises(UserError, match="not a whole safetensors file"):
        train(steps(tiny, 6), tmp_path / "run", resume=True)
    assert torch.equal(load(tmp_path / "run").net.conv_in.weight, before["conv_in.weight"])


def test_accumulated_parts_are_one_batch(tmp_path):
    """With one noise for the whole batch, its gradient is the mean of those of its parts."""
    norms, weights = [], []
    for parts in (1, 4):
        config = TrainConfig(batch=16, lr=1e-3, accumulate=parts)
        torch.manual_seed(0)
        net = UNet(1, channels=8, mults=(1, 2), blocks=1, attention=(), groups=4, dropout=0.0)
        whole = replace(preset("first-run"), train=config)
        accelerator = start(whole, "cpu")
        net, optimizer = accelerator.prepare(net, build_optimizer(net, config))
        x0 = torch.randn(16, 1, 8, 8)
        loss_fn = Loss(Diffusion(linear()))
        torch.manual_seed(1)
        for _ in range(2):
            loss, norm = train_step(accelerator, net, loss_fn, optimizer, x0, None, 1e-3, config)
        norms.append((loss.item(), norm.item()))
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)


class NoFloat64(TorchDispatchMode):
    """A stand-in for a device without float64, such as Apple's MPS: it refuses any."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64:
                raise TypeError(f"float64 in {function}")
        return out


def test_the_stand_in_refuses_float64():
    with pytest.raises(TypeError, match="float64"), NoFloat64():
        torch.ones(2).double()


class NoReading(TorchDispatchMode):
    """A stand-in for a device that runs behind the host: it refuses to be waited for."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select"):
            raise TypeError(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


def test_the_stand_in_refuses_to_be_read():
    with pytest.raises(TypeError, match="waits for the device"), NoReading():
        torch.ones(1).item()


@pytest.mark.parametrize("times", ["uniform", "stratified", "by-weight", "logit-normal"])
def test_no_step_waits_for_the_device(tiny_dropout, times):
    config = replace(tiny_dropout, flip=True, train=replace(tiny_dropout.train, accumulate=2))
    accelerator = start(config, "cpu")
    data = load_images("mnist5k")
    config = replace(config, diffusion=replace(config.diffusion, time_sampling=times))
    net, diffusion = build(config, data.info)
    loss_fn = build_loss(config, diffusion)
    ema = EMA(net, 0.99)
    net, optimizer = accelerator.prepare(net, build_optimizer(net, config.train))
    batches = Batches(data, 16, flip=True)
    batches(0)  # the first of an epoch shuffles
    with NoReading():
        for k in range(1, 3):
            x0, y = batches(k)
            train_step(accelerator, net, loss_fn, optimizer, x0, y, 1e-3, config.train)
            ema.update(net)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_no_float64_in_training_or_sampling(tiny, tmp_path, schedule, sampler):
    config = replace(
        tiny,
        flip=True,
        diffusion=replace(
            tiny.diffusion, schedule=schedule, weight="min-snr", time_sampling="logit-normal"
        ),
        sample=replace(tiny.sample, sampler=sampler, steps=3, eta=0.5),
    )
    with NoFloat64():
        train(config, tmp_path / "run")
        generate(tmp_path / "run", n=3)


def test_without_bfloat16_a_run_is_in_float32_and_says_so(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["ddpm.training.train"], "has_bfloat16", lambda device: False)
    config = replace(tiny, train=replace(tiny.train, precision="bf16"))
    train(config, tmp_path / "run", device="cpu")
    assert read_toml(tmp_path / "run" / "config.toml").train.precision == "no"
    assert "training in float32" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_mixed_precision_keeps_float32_weights(tiny, tmp_path, precision, monkeypatch):
    monkeypatch.setattr(sys.modules["ddpm.training.train"], "has_bfloat16", lambda device: True)
    config = replace(tiny, train=replace(tiny.train, precision=precision))
    train(config, tmp_path / "run")
    state = tensors(tmp_path / "run")
    assert {t.dtype for t in state.values()} == {torch.float32}
    assert all(line["loss"] < 2 for line in log(tmp_path / "run"))


def test_two_trainings_in_one_folder_are_one_too_many(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    more = steps(tiny, 8)
    with hold(tmp_path / "run"), pytest.raises(UserError, match="another process is training in"):
        train(more, tmp_path / "run", resume=True)
    assert train(more, tmp_path / "run", resume=True).step == 8


def test_a_loss_that_is_not_a_number_ends_the_run_with_a_word(tiny, tmp_path):
    config = replace(tiny, steps=150, train=replace(tiny.train, lr=1e30, warmup=0))
    with pytest.raises(UserError, match="the loss is"):
        train(config, tmp_path / "run")


def test_budgets_in_images_and_minutes(tiny, tmp_path):
    by_images = replace(tiny, steps=None, images=48)
    assert train(by_images, tmp_path / "images").images_seen == 48
    by_minutes = replace(tiny, steps=None, minutes=0.02)
    result = train(by_minutes, tmp_path / "minutes")
    assert result.step > 0
    assert result.seconds >= 1.2
    assert budget_spent(by_minutes, 0, 0.6) == pytest.approx(0.5)
    for budget in ({"steps": None}, {"minutes": 1.0}):
        with pytest.raises(UserError, match="one budget"):
            train(replace(tiny, **budget), tmp_path / "none")


def test_the_learning_rate_rises_and_falls():
    config = TrainConfig(lr=1.0, warmup=10, decay=0.5, final_lr=0.1)
    rate = [learning_rate(config, k, k / 100) for k in range(101)]
    assert rate[0] == pytest.approx(0.1)
    assert rate[9] == rate[50] == 1.0
    assert rate[75] == pytest.approx(0.55)
    assert rate[100] == pytest.approx(0.1)
    assert learning_rate(TrainConfig(lr=2e-4), 0, 0.0) == 2e-4  # no warm-up, no decay


def test_the_average_is_warm_and_honest():
    net = torch.nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0.0)
    ema = EMA(net, decay=0.99)
    net.weight.data.fill_(1.0)
    expected = 0.0
    for k in range(1, 3000):
        ema.update(net)
        decay = min(0.99, (1 + k) / (10 + k))
        expected = decay * expected + 1 - decay
        if k in (1, 10, 100, 2999):
            assert ema.model.weight.item() == pytest.approx(expected, rel=1e-3)
    assert warm_decay(0.99, ema.updates) == 0.99
    assert not ema.model.weight.requires_grad


def test_grids_do_not_disturb_the_training(tiny_dropout, tmp_path):
    train(tiny_dropout, tmp_path / "plain")
    often = replace(tiny_dropout, train=replace(tiny_dropout.train, sample_minutes=1e-5))
    train(often, tmp_path / "often")
    assert len(list((tmp_path / "often" / "samples").iterdir())) >= 4
    assert_same(tensors(tmp_path / "plain"), tensors(tmp_path / "often"))


def test_a_diverged_run_does_not_replace_its_last_good_checkpoint(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    good = tensors(tmp_path / "run")
    wild = replace(tiny.train, lr=1e30, warmup=0, decay=0, log_every=1000, save_minutes=1e-6)
    with pytest.raises(UserError, match="the last checkpoint is kept"):
        train(replace(tiny, steps=400, train=wild), tmp_path / "run", resume=True)
    assert all(t.isfinite().all() for t in tensors(tmp_path / "run").values())
    assert good.keys() == tensors(tmp_path / "run").keys()


def test_settings_edited_by_hand_are_seen(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    path.write_text("# mine\n" + path.read_text())
    train(tiny, tmp_path / "run", resume=True)
    assert path.read_text().startswith("# mine")  # the same settings: the file is left alone
    path.write_text(path.read_text().replace('target = "v"', 'target = "eps"'))
    with pytest.raises(UserError, match="another diffusion"):
        train(read_toml(path), tmp_path / "run", resume=True)


def test_a_run_follows_its_images_to_another_place(tiny, tmp_path):
    images = torch.randint(0, 256, (20, 12, 12), dtype=torch.uint8).numpy()
    np.savez(tmp_path / "here.npz", images=images)
    config = replace(tiny, data=str(tmp_path / "here.npz"))
    train(config, tmp_path / "run")
    (tmp_path / "here.npz").rename(tmp_path / "there.npz")
    moved = replace(steps(config, 6), data=str(tmp_path / "there.npz"))
    assert train(moved, tmp_path / "run", resume=True).step == 6
    np.savez(tmp_path / "other.npz", images=255 - images)
    other = replace(steps(config, 8), data=str(tmp_path / "other.npz"))
    with pytest.raises(UserError, match="the images are not those"):
        train(other, tmp_path / "run", resume=True)


def test_a_finished_run_without_its_model_gets_it_back(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    before = tensors(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    assert train(tiny, tmp_path / "run", resume=True).finished
    assert_same(before, tensors(tmp_path / "run"))


@pytest.mark.parametrize(
    ("key", "value"), [("step", None), ("step", -5), ("seconds", 1e999), ("ema_updates", "many")]
)
def test_a_damaged_state_is_a_sentence(tiny, tmp_path, key, value):
    train(tiny, tmp_path / "run")
    path = tmp_path / "run" / "state" / "state.safetensors"
    before_it(path).unlink()
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["ddpm"]) | {key: value}
    save_file(load_file(path), path, metadata={"ddpm": json.dumps(header)})
    with pytest.raises(UserError, match=f"damaged header: {key}"):
        train(steps(tiny, 6), tmp_path / "run", resume=True)


@pytest.mark.parametrize("lost", ["optimizer.0.", "optimizer.", "raw.conv_in", "ema."])
def test_a_state_that_lacks_a_part_is_refused(tiny, tmp_path, lost):
    train(tiny, tmp_path / "run")
    path = tmp_path / "run" / "state" / "state.safetensors"
    before_it(path).unlink()
    with safe_open(path, "pt") as file:
        metadata = {"ddpm": file.metadata()["ddpm"]}
    kept = {k: v for k, v in load_file(path).items() if not k.startswith(lost)}
    save_file(kept, path, metadata=metadata)
    with pytest.raises(UserError, match="is damaged"):
        train(steps(tiny, 6), tmp_path / "run", resume=True)


def test_a_full_disk_is_a_sentence_and_the_old_checkpoint_stays(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    before = tensors(tmp_path / "run")
    code = (
        "import resource, signal, sys; from ddpm.cli.main import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "sys.exit(main(['train', '--resume', '--steps', '6', '--out', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert_same(before, tensors(tmp_path / "run"))
    assert not list((tmp_path / "run").rglob(".part*"))
    assert train(steps(tiny, 6), tmp_path / "run", resume=True).step == 6


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


def test_own_data_in_colour_without_classes(shared, tiny, tmp_path):
    """The same settings, another source: nothing is edited."""
    for name, shape, classes in (
        ("celeba64-train.zip", (3, 64, 64), 0),
        ("cifar10-train.zip", (3, 32, 32), 10),
    ):
        config = replace(tiny, data=str(shared / name), steps=3)
        train(config, tmp_path / name)
        info = load(tmp_path / name).data
        assert (info.channels, info.height, info.width, len(info.classes)) == (*shape, classes)
        assert generate(tmp_path / name, n=2).images.shape == (2, *shape)


def test_files_with_the_names_of_before_still_load(tiny, tmp_path):
    weighted = replace(tiny.diffusion, weight="min-snr", min_weight=0.5)
    config, run = replace(tiny, diffusion=weighted), tmp_path / "run"
    train(config, run, device="cpu")
    wanted = load(run)
    renamed = {"min_weight": "floor", "images_seen": "images", "lr_scale": "caution"}
    for path in (run / "model.safetensors", run / "state" / "state.safetensors"):
        tensors, about = read_tensors(path)
        for new, old in renamed.items():
            about["ddpm"] = about["ddpm"].replace(f'"{new}"', f'"{old}"')
        about["ddpm"] = about["ddpm"].replace(f'"version": {VERSION}', '"version": 1')
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, about)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("min_weight", "floor"))

    assert "floor" in (run / "config.toml").read_text()
    assert read_toml(run / "config.toml") == config
    checkpoint = load(run)
    assert (checkpoint.config, checkpoint.images_seen) == (wanted.config, wanted.images_seen)
    assert train(replace(config, steps=config.steps + 2), run, device="cpu", resume=True).finished
