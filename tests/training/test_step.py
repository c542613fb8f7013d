"""One step of training: Algorithm 1, without a wait for the device and without float64."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm import (
    EMA,
    Batches,
    Diffusion,
    Loss,
    UNet,
    build,
    build_loss,
    generate,
    linear,
    load_images,
    train,
)
from ddpm.config import TrainConfig, preset
from ddpm.core.ema import warm_decay
from ddpm.training.augment import AUGMENT_DIM
from ddpm.training.optimizers import build_optimizer
from ddpm.training.step import learning_rate, train_step
from ddpm.training.train import make_accelerator


@pytest.mark.parametrize("augment", [0.0, 0.5])
def test_accumulated_parts_are_one_batch(augment):
    """With one noise for the whole batch, its gradient is the mean of those of its parts."""
    norms, weights = [], []
    for parts in (1, 4):
        config = TrainConfig(batch=16, lr=1e-3, accumulate=parts, augment=augment)
        torch.manual_seed(0)
        small = {"channels": 8, "mults": (1, 2), "blocks": 1, "attention": (), "groups": 4}
        net = UNet(1, **small, augment_dim=AUGMENT_DIM)
        whole = replace(preset("first-run"), train=config)
        accelerator = make_accelerator(whole, "cpu")
        net, optimizer = accelerator.prepare(net, build_optimizer(net, config))
        x0 = torch.randn(16, 1, 8, 8)
        objective = Loss(Diffusion(linear()))
        torch.manual_seed(1)
        for _ in range(2):
            loss, norm = train_step(
                accelerator, net, objective, optimizer, 0, x0, None, 1e-3, config
            )
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
    train_config = replace(tiny_dropout.train, accumulate=2, augment=0.5)
    config = replace(tiny_dropout, flip=True, train=train_config)
    accelerator = make_accelerator(config, "cpu")
    data = load_images("mnist5k")
    config = replace(config, diffusion=replace(config.diffusion, time_sampling=times))
    net, diffusion = build(config, data.info, AUGMENT_DIM)
    loss = build_loss(config, diffusion)
    ema = EMA(net, 0.99)
    net, optimizer = accelerator.prepare(net, build_optimizer(net, config.train))
    batches = Batches(data, 16, flip=True)
    batches(0)  # the first of an epoch shuffles
    with NoReading():
        for k in range(1, 3):
            x0, y = batches(k)
            train_step(accelerator, net, loss, optimizer, 10, x0, y, 1e-3, config.train)
            ema.update(net)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "schedule", ["cosine", pytest.param("linear", marks=LONG), pytest.param("sigmoid", marks=LONG)]
)
def test_no_float64_in_training_or_sampling(tiny, tmp_path, schedule):
    config = replace(
        tiny,
        flip=True,
        train=replace(tiny.train, augment=0.5),
        diffusion=replace(
            tiny.diffusion, schedule=schedule, weight="min-snr", time_sampling="logit-normal"
        ),
        sample=replace(tiny.sample, steps=3, eta=0.5),
    )
    with NoFloat64():
        train(config, tmp_path / "run")
        for sampler in ("ddpm", "ddim", "dpm++"):
            settings = replace(config.sample, sampler=sampler)
            generate(tmp_path / "run", n=3, settings=settings)


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
