"""One step of training: Algorithm 1, and the learning rate it is taken at."""

from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..config import TrainConfig
from ..core.guidance import drop_labels
from ..core.loss import Loss
from .augment import augment


def train_step(
    accelerator: Accelerator,
    net: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    null: int,
    x0: Tensor,
    y: Tensor | None,
    lr: float,
    config: TrainConfig,
    part: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """Take a gradient step on ∇_θ ‖ε − ε_θ(√ᾱ_t x_0 + √(1−ᾱ_t) ε, t)‖²   [DDPM, Algorithm 1]

    The batch is cut into `config.accumulate` pieces to save memory; `part` is what this process has
    of it, and `null` the label for "no class". Return the loss and the norm of the gradient, on the
    device: when to wait for them is the caller's choice. Where the norm is not finite, the weights
    stay as they are.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    x0, a, y, t, eps = draw_inputs(loss, x0, y, null, config, part)
    if accelerator.process_index:  # each process has dropout of its own
        torch.manual_seed(torch.initial_seed() + accelerator.process_index)
    x0s, ts, epss = (z.chunk(config.accumulate) for z in (x0, t, eps))
    labels, changes = (
        [None] * config.accumulate if z is None else z.chunk(config.accumulate) for z in (y, a)
    )

    total = norm = torch.zeros((), device=x0.device)
    for x, t, eps, y, a in zip(x0s, ts, epss, labels, changes, strict=True):
        with accelerator.accumulate(net):
            mean = loss(partial(net, a=a), x, t, eps, y).mean()
            accelerator.backward(mean)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(net.parameters(), config.grad_clip)
                # The fused step reads this on the device, and leaves all as it is where it is 1.
                fused: Any = getattr(optimizer, "optimizer", optimizer)
                fused.found_inf = 1 - norm.isfinite().float()
            if x0.device.type != "mps" or norm.isfinite():  # where it is not read, we wait for it
                optimizer.step()
            elif accelerator.sync_gradients and accelerator.scaler is not None:
                accelerator.scaler.update()  # the step would have done so
            optimizer.zero_grad()
        total = total + mean.detach() / config.accumulate
    return total, norm


def draw_inputs(
    loss: Loss,
    x0: Tensor,
    y: Tensor | None,
    null: int,
    config: TrainConfig,
    part: slice = slice(None),
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor]:
    """Return what a step learns: the images, augmented, and the labels of that; the classes, some
    of them hidden; the times t and the noise ε.

    They are drawn for the whole batch and then cut to this process's part, so that any number of
    processes takes the same step.
    """
    batch = len(x0) if part == slice(None) else config.batch
    x0, a = augment(x0, config.augment, batch, part)
    if y is not None:
        dropped = drop_labels(torch.zeros(batch, device=y.device), config.label_drop, null=1)
        y = torch.where(dropped[part] == 1, null, y)
    t = loss.sample_times(batch)[part]
    eps = torch.randn(batch, *x0.shape[1:], device=x0.device)[part]
    return x0, a, y, t, eps


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Return lr · min(1, (step + 1)/warmup), and over the last `decay` of the budget a straight
    fall to lr · final_lr. `progress`, from 0 to 1, is the share of the budget that is spent."""
    rise = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    left = min(1.0, max(0.0, 1 - progress) / config.decay) if config.decay else 1.0
    return config.lr * rise * (config.final_lr + (1 - config.final_lr) * left)
