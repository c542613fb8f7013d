"""Training: Algorithm 1, with a clock, a log, and a way to stop and go on."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL.Image import Image
from torch import Tensor, nn

from ..checkpoint.checkpoint import build, build_loss, load_initial
from ..checkpoint.shard import shard, whole
from ..config import Config, DataInfo, TrainConfig, checked
from ..core.diffusion import Diffusion
from ..core.ema import EMA
from ..core.guidance import drop_labels
from ..core.loss import Loss
from ..data.inspect import inspection_notes
from ..data.load import Batches, ImageDataset, load_images
from ..generation.generate import cycle_labels, denoise_trajectory
from ..utils.device import best_device, check_device, has_bfloat16, place
from ..utils.distributed import Processes, rejoin
from ..utils.errors import UserError
from ..utils.images import grid, to_uint8, zoom_for
from ..utils.random import INIT, STEP, ImageNoise, derive_seed
from .log import MetricsLog, budget_spent, catch_signals, check_folder, hold, restarted
from .optimizers import build_optimizer
from .state import Keeper
from .validation import HeldOut, split_held_out

SAMPLES = 40  # in a grid while training: four of each class, where there are ten
PREVIEW_STEPS = 50
MAX_NONFINITE_STEPS = (
    20  # steps skipped since the last checkpoint, after which the run goes back to it
)


@dataclass(frozen=True)
class Result:
    """What a run came to. `finished` is False where it was stopped and can go on."""

    out: Path
    step: int
    images_seen: int
    seconds: float
    loss: float
    finished: bool


def train(
    config: Config, out: str | Path, *, device: str | None = None, resume: bool = False
) -> Result:
    """Train as the config says, and leave everything in the folder `out`:

    config.toml, metrics.jsonl, held-out.jsonl, samples/, model.safetensors (the EMA weights, for
    use) and state/ (for going on). Ctrl-C and SIGTERM save and end; `resume` goes on from there,
    bit for bit on the CPU. `device` is chosen where it is None. Raises UserError, a sentence for
    the person.
    """
    out = Path(out)
    config = with_precision(check(config), device or best_device())
    accelerator = start(config, device)
    processes = Processes(accelerator)
    part = processes.part(config.train.batch, config.train.accumulate)
    if processes.is_main:
        resume = resume or restarted(out)
        check_folder(out, resume)
    (resume,) = map(bool, processes.broadcast([resume]))
    with processes.main_process_first():  # who decodes the images for all
        data = load_data(config, quiet=not processes.is_main)

    torch.manual_seed(derive_seed(config.seed, INIT))
    raw, diffusion = build(config, data.info)
    if config.init and not resume:
        load_initial(raw, data.info, config.init)
    place(raw, accelerator.device)
    diffusion = diffusion.to(accelerator.device)
    loss_fn = build_loss(config, diffusion)
    ema = EMA(raw, config.train.ema)
    sharded = config.train.shard and processes.world_size > 1
    if sharded:
        for part_of in (raw, ema.model):
            shard(part_of, processes.world_size, config.train.precision == "bf16")
    optimizer = accelerator.prepare(build_optimizer(raw, config.train))
    net = raw if sharded else accelerator.prepare(raw)
    if config.train.compile:  # `raw` is not: grids of samples come in other batches
        net = torch.compile(net, dynamic=False)
    learned, held = split_held_out(len(data), config.held_out)
    batches = Batches(
        data, config.train.batch, config.seed, config.flip, accelerator.device, part, learned
    )
    held_out = HeldOut(data, held, learned, diffusion, config.seed)

    keeper = Keeper(out, config, data.info, processes, raw, ema, optimizer, sharded)

    lock = hold(out) if processes.is_main else None
    step, seconds, lr, lr_scale = 0, 0.0, config.train.lr, 1.0
    if resume and keeper.state.exists():  # else it was stopped before its first checkpoint
        step, seconds, lr_scale = keeper.restore()
    log = MetricsLog(out, config, processes, step, seconds, lock)

    def draw_grids(stop: list[int]) -> None:
        stop = [] if sharded else stop  # which not all may have heard of as yet
        for name, model in (("ema", ema.model), ("raw", raw)) if keeper.needed else ():
            picture = sample_grid(model, diffusion, config, data.info, stop)
            if picture and processes.is_main:
                picture.save(out / "samples" / f"{step:07}-{name}.png")
        if keeper.needed and not stop:
            log.look(step, held_out.look(ema.model, config.train.batch))
        log.sampled()

    with closing(log), catch_signals() as stop, processes.together():
        if not keeper.state.exists():
            keeper.keep_state(step, log.seconds, lr_scale)
        while True:
            now = log.now(step, bool(stop))
            progress = budget_spent(config, step, now.seconds)
            over = progress >= 1 or now.stop
            if over or now.save:
                log.write(step, lr)
            keeper.dump_batch(log.skipped_now(), batches)
            if log.nonfinite_steps >= MAX_NONFINITE_STEPS:
                step, lr_scale = keeper.rollback(log, step, lr_scale)
                continue
            if over or now.save and log.all_finite:
                keeper.save(step, log.seconds, lr_scale)
                log.saved()
            if over:
                break
            if now.sample:
                draw_grids(stop)
            # All that is random in a step follows from the seed and the step.
            torch.manual_seed(derive_seed(config.seed, STEP, step))
            x0, y = batches(step)
            lr = lr_scale * learning_rate(config.train, step, progress)
            loss, norm = train_step(
                accelerator, net, loss_fn, optimizer, x0, y, lr, config.train, part
            )
            ema.update(raw)
            step += 1
            log.step(step, loss, norm, lr)
        draw_grids(stop)
        processes.finish()
    images = step * config.train.batch
    return Result(out, step, images, log.seconds, log.loss, finished=progress >= 1)


def train_step(
    accelerator: Accelerator,
    net: nn.Module,
    loss_fn: Loss,
    optimizer: torch.optim.Optimizer,
    x0: Tensor,
    y: Tensor | None,
    lr: float,
    config: TrainConfig,
    part: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """Take a gradient step on ∇_θ ‖ε − ε_θ(√ᾱ_t x_0 + √(1−ᾱ_t) ε, t)‖²   [DDPM, Algorithm 1]

    The batch may be cut into pieces to save memory; `part` is what this process has of it. Returns
    the loss and the norm of the gradient on the device: when to wait for them is the caller's
    choice. Where the norm is not a number, the weights stay as they are.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    null = accelerator.unwrap_model(net).num_classes
    y, t, eps = draw(loss_fn, x0, y, null, config, part)
    if accelerator.process_index:  # dropout is of each process's own
        torch.manual_seed(torch.initial_seed() + accelerator.process_index)
    x0s, ts, epss = (a.chunk(config.accumulate) for a in (x0, t, eps))
    labels = [None] * config.accumulate if y is None else y.chunk(config.accumulate)

    total = norm = torch.zeros((), device=x0.device)
    for piece in zip(x0s, ts, epss, labels, strict=True):
        with accelerator.accumulate(net):
            loss = loss_fn(net, *piece).mean()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                norm = whole(accelerator.clip_grad_norm_(net.parameters(), config.grad_clip))
                # The fused step reads this on the device, and leaves all as it is where it is 1.
                fused: Any = getattr(optimizer, "optimizer", optimizer)
                fused.found_inf = 1 - norm.isfinite().float()
            if x0.device.type != "mps" or norm.isfinite():  # where it is not read, we wait for it
                optimizer.step()
            optimizer.zero_grad()
        total = total + loss.detach() / config.accumulate
    return total, norm


def draw(
    loss_fn: Loss,
    x0: Tensor,
    y: Tensor | None,
    null: int,
    config: TrainConfig,
    part: slice = slice(None),
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Which labels are hidden, t and ε: drawn for the whole batch, then cut to this process's part,
    so that any number of processes takes the same step."""
    batch = len(x0) if part == slice(None) else config.batch
    if y is not None:
        hidden = drop_labels(torch.zeros(batch, device=y.device), config.label_drop, null=1)
        y = torch.where(hidden[part] == 1, null, y)
    t = loss_fn.sample_times(batch)[part]
    eps = torch.randn(batch, *x0.shape[1:], device=x0.device)[part]
    return y, t, eps


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """lr · min(1, (step + 1)/warmup), and over the last `decay` of the budget a straight fall to
    lr · final_lr. `progress`, from 0 to 1, is the share of the budget that is spent."""
    rise = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    left = min(1.0, max(0.0, 1 - progress) / config.decay) if config.decay else 1.0
    return config.lr * rise * (config.final_lr + (1 - config.final_lr) * left)


def sample_grid(
    net: nn.Module, diffusion: Diffusion, config: Config, info: DataInfo, stop: Sequence[int] = ()
) -> Image | None:
    """The same seeds and labels each time, so that grids can be compared; None if told to stop.

    A look, not a score: where the config samples in more than PREVIEW_STEPS, DDIM in so many.
    """
    settings = config.sample
    if settings.steps > PREVIEW_STEPS:
        settings = replace(settings, sampler="ddim", eta=0.0, steps=PREVIEW_STEPS)
    device = diffusion.schedule.alpha_bar.device
    y = cycle_labels(SAMPLES, (), info)
    y = None if y is None else y.to(device)
    noise = ImageNoise(
        config.seed, range(SAMPLES), (info.channels, info.height, info.width), device
    )
    training = net.training
    net.eval()
    for state in denoise_trajectory(net, diffusion, noise, y, settings, null=len(info.classes)):
        x = state.x
        if stop:
            break
    net.train(training)
    if stop:
        return None
    images = to_uint8(x).cpu()
    columns = len(info.classes) if 1 < len(info.classes) <= 12 else 8
    return grid(images, columns, zoom=zoom_for(images))


def check(config: Config) -> Config:
    """Refuse, before any work is done, settings that could not work together."""
    config = checked(config)
    if sum(b is not None for b in (config.steps, config.images, config.minutes)) != 1:
        raise UserError("a run needs one budget: --minutes, --steps or --images")
    if config.train.shard and (config.train.precision == "fp16" or config.train.compile):
        raise UserError("--train.shard goes with float32 or bf16, not compiled")
    d = config.diffusion
    if d.min_weight and d.weight == "min-snr" and d.target == "eps":
        raise UserError(
            "diffusion.min_weight is of errors of x_0, not of eps: --diffusion.min-weight 0"
        )
    steps, T = config.sample.steps, config.diffusion.T
    if steps > T:
        raise UserError(f"sample.steps {steps} is more than diffusion.T, which is {T}")
    return config


def with_precision(config: Config, device: str) -> Config:
    """The same, in float32 where the device knows no bfloat16: a preset is for many machines."""
    if config.train.precision != "bf16" or has_bfloat16(device):
        return config
    print("note: no bfloat16 on this device: training in float32, slower", file=sys.stderr)
    return replace(config, train=replace(config.train, precision="no"))


def start(config: Config, device: str | None) -> Accelerator:
    """The device that was asked for; else CUDA, Apple's MPS or the CPU, whichever is there."""
    if device is not None:
        check_device(device)
    if "WORLD_SIZE" not in os.environ:  # Accelerate keeps its first choice for good; let it choose
        AcceleratorState._reset_state(reset_partial_state=True)
    if device is not None and device.startswith("cuda:"):
        torch.cuda.set_device(device)
    on_cpu = device is not None and torch.device(device).type == "cpu"
    rejoin(on_cpu or not torch.cuda.is_available())
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=config.train.precision,
        gradient_accumulation_steps=config.train.accumulate,
    )
    return accelerator


def load_data(config: Config, quiet: bool = False) -> ImageDataset:
    data = load_images(config.data, config.size, config.root)
    data = data if config.labels else data.without_labels()
    for note in [] if quiet else [*data.notes, *inspection_notes(data, config.flip)]:
        print(f"note: {note}", file=sys.stderr)
    return data
