"""Training: Algorithm 1, with a clock, a log, and a way to stop and go on."""

import logging
import math
import os
import time
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from ..checkpoint.checkpoint import build, build_diffusion, build_loss, config_errors, load_initial
from ..checkpoint.header import header_of
from ..checkpoint.run_dir import RunDir, check_trainable, inspect_run
from ..config import Config, DataInfo, checked, write_toml
from ..core.diffusion import Diffusion
from ..core.ema import EMA
from ..data.batches import Batches
from ..data.dataset import ImageDataset
from ..data.inspect import inspection_notes
from ..data.listing import holds_files
from ..data.load import load_images
from ..generation.settings import check_guidance
from ..utils.device import compile_failure, has_bfloat16, resolve_device, to_device
from ..utils.distributed import TIMEOUT, Processes
from ..utils.errors import UserError, counted
from ..utils.random import INIT, STEP, derive_seed
from .augment import augment_dim
from .clock import Clock, catch_signals
from .log import MetricsLog, rewind_logs
from .monitor import Monitor, is_complete
from .nonfinite import NonFiniteGuard
from .optimizers import build_optimizer
from .state import (
    FIXED,
    StateHeader,
    TrainState,
    restore_latest,
    save_checkpoint,
    save_guide,
    save_state,
)
from .step import learning_rate, train_step
from .track import check_tracker
from .validation import split_held_out

logger = logging.getLogger(__name__)


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
    config: Config,
    out: str | Path,
    *,
    images: ImageDataset | np.ndarray | None = None,
    device: str | None = None,
    resume: bool = False,
) -> Result:
    """Train as the config says, and write everything to the folder `out`, as `RunDir` names it.

    Ctrl-C, SIGTERM and SIGHUP save and stop; `resume` goes on, on the CPU and with a budget in
    steps or images bit for bit. `images` replace those that `config.data` names. Raise UserError.
    """
    began = time.monotonic()
    config = with_precision(check_config(config), resolve_device(device))
    accelerator = make_accelerator(config, device)
    processes, run = Processes(accelerator), RunDir(Path(out))
    part = processes.part(config.train.batch, config.train.accumulate)
    main = processes.is_main  # of several processes one writes
    if ended := finished_before(run, config, resume, own=images is not None, main=main):
        return ended
    config, data = load_data(config, images, processes, new=not (config.init or resume))
    learned, held_out = split_held_out(len(data), config.held_out)
    batches = training_batches(config, data, learned, part, accelerator.device)
    net, diffusion, state = initial_state(config, data.info, accelerator, run, resume)
    loss, null = build_loss(config, diffusion), len(data.classes)
    step = partial(train_step, accelerator, net, loss, state.optimizer, null)
    monitor = Monitor(run, state, diffusion, data, (learned, held_out), main)
    guard, log = NonFiniteGuard(run, processes, batches), MetricsLog(run, config, processes)
    lock = run.locked() if main else nullcontext()
    with lock, processes.peer_errors(), catch_signals() as stop, closing(log):
        restore_or_initialise(run, state, resume, write=main)
        passes, seconds = monitor.preview_passes, monitor.score_seconds
        clock = Clock(config, processes, state, began, passes, seconds, run.guide.exists())
        while True:
            due = clock.due(state.step, stop=bool(stop))
            state.seconds = due.seconds
            if due.line and (losses := log.read()):
                finite = guard.check(state, losses)
                log.write(state, finite, skipped=len(losses) - len(finite))
            if guard.exhausted or due.writes and not guard.is_sound(state, diffusion):
                guard.rollback(state)
                clock.rolled_back(state)
                continue
            if main and due.guide:
                save_guide(run, state)
            if due.over or due.save and guard.all_finite:
                log.say("saving")
                if main:
                    save_checkpoint(run, state, rotate=not guard.rollbacks)
                clock.saved()
                guard.saved(state.step)
            if due.over:
                break
            if due.preview or due.score:
                monitor.run_due(due, clock, log, stop)

            # All that is random in a step follows from the seed and the step.
            torch.manual_seed(derive_seed(config.seed, STEP, state.step))
            x0, y = batches(state.step)
            lr = state.lr_scale * learning_rate(config.train, state.step, due.progress)
            terms = step(x0, y, lr, config.train, part)
            state.ema.update(state.net)
            state.step += 1
            log.record(lr, *terms)
        if due.finished:
            monitor.finish(log, stop)
        processes.finish()
    return Result(run.path, state.step, state.images_seen, clock.seconds, log.loss, due.finished)


def finished_before(
    run: RunDir, config: Config, resume: bool, own: bool, main: bool
) -> Result | None:
    """Refuse, before any work is done, a folder that cannot be trained in; return what a run came
    to whose budget is spent, where it was to `resume`. `own`: the images are not the config's."""
    if main:
        check_trainable(run.path, resume, None if own else config)
    for path in inspect_run(run.path).states[:1] if resume else ():
        with suppress(UserError, OSError):  # which are told later, with what to do
            state = header_of(path, StateHeader)
            same = all(attrgetter(k)(state.config) == attrgetter(k)(config) for k in FIXED)
            spent = config.budget.progress(state.step, state.seconds) >= 1
            whole = run.model.exists() and is_complete(run, state.step, config, state.data.count)
            if spent and same and whole and state.config.data == config.data:
                images = state.step * config.train.batch
                return Result(run.path, state.step, images, state.seconds, math.nan, True)
    return None


def initial_state(
    config: Config, data: DataInfo, accelerator: Accelerator, run: RunDir, resume: bool
) -> tuple[nn.Module, Diffusion, TrainState]:
    """Return the network as it is trained, the diffusion, and the state at step 0, which shares the
    network's weights. They are random, or those that `config.init` names where the run has none of
    its own to `resume` from."""
    torch.manual_seed(derive_seed(config.seed, INIT))
    raw, diffusion = build(config, data, augment_dim(config.train))
    if config.init and not (resume and inspect_run(run.path).states):
        load_initial(raw, data, config.init, config)
    to_device(raw, accelerator.device)
    ema = EMA(raw, config.train.ema)
    optimizer = accelerator.prepare(build_optimizer(raw, config.train))
    net = accelerator.prepare(raw)
    if config.train.compile and can_compile(accelerator.device):
        net = torch.compile(net, dynamic=False)  # `raw` is not: grids come in other batches
    state = TrainState(raw, ema, optimizer, config, data)
    return net, diffusion.to(accelerator.device), state


def restore_or_initialise(run: RunDir, state: TrainState, resume: bool, write: bool) -> None:
    """Restore the last checkpoint, or write a first one to return to; write the config, and drop
    what was logged beyond the checkpoint. One process may `write`: it looks at the folder once
    more, as another run may have been there while the images were read."""
    if write:
        check_trainable(run.path, resume, state.config)
    restored = resume and restore_latest(run, state, repair=write)
    if write:
        write_toml(state.config, run.config)
        if not restored:
            if resume:
                logger.info("%s has no checkpoint yet: starting from scratch", run.path)
            save_state(run, state)
        rewind_logs(run, state.step)


def check_label_drop(config: Config, data: ImageDataset) -> None:
    """Refuse guidance for a new network that will not have learned any image without its class."""
    everyone_has_one = data.labels is not None and bool((data.labels < len(data.classes)).all())
    if everyone_has_one and config.train.label_drop == 0 and config.sample.guidance != 1:
        raise UserError(
            "with --train.label-drop 0 no image is learned without its class, and guidance needs "
            "that: add --sample.guidance 1"
        )


def training_batches(
    config: Config, data: ImageDataset, learned: Tensor, part: slice, device: torch.device
) -> Batches:
    """Return the batches of the images that are not held out; `part`: this process's of each."""
    return Batches(data, config.train.batch, config.seed, config.flip, device, part, learned)


def check_config(config: Config) -> Config:
    """Refuse, before any work is done, settings that cannot work together."""
    config = checked(config)
    _ = config.budget  # there is exactly one
    check_tracker(config.track)
    with config_errors():
        build_loss(config, build_diffusion(config))
    d = config.diffusion
    if d.min_weight and d.weight == "min-snr" and d.target == "eps":
        raise UserError(
            "diffusion.min_weight is of errors of x_0, not of eps: --diffusion.min-weight 0"
        )
    steps, T = config.sample.steps, config.diffusion.T
    if steps > T:
        raise UserError(f"sample.steps {steps} is more than diffusion.T, which is {T}")
    check_guidance(config.sample, guide=False)
    if config.labels and config.train.label_drop == 1:
        raise UserError("with train.label_drop 1 no class is learned: use --no-labels for that")
    return config


def with_precision(config: Config, device: str) -> Config:
    """Return the config, in float32 where the device has no bfloat16, or for fp16 is neither CUDA
    nor XPU: a preset is for many machines."""
    precision, scales = config.train.precision, torch.device(device).type in ("cuda", "xpu")
    if precision == "no" or (has_bfloat16(device) if precision == "bf16" else scales):
        return config
    name = "bfloat16" if precision == "bf16" else "training in float16"
    logger.info(f"no {name} on this device: training in float32, slower")
    return replace(config, train=replace(config.train, precision="no"))


def can_compile(device: torch.device) -> bool:
    """Return whether the device has a compiler that works, and log why not."""
    if failure := compile_failure(device):
        logger.info("torch.compile does not work here (%s): training without it, slower", failure)
    return not failure


def make_accelerator(config: Config, device: str | None) -> Accelerator:
    """Return an Accelerator on the device, or on the best there is."""
    if "WORLD_SIZE" not in os.environ:  # Accelerate keeps its first choice for good; let it choose
        AcceleratorState._reset_state(reset_partial_state=True)
    if device is not None and device.startswith("cuda:"):
        torch.cuda.set_device(device)
    return Accelerator(
        cpu=device is not None and torch.device(device).type == "cpu",
        mixed_precision=config.train.precision,
        gradient_accumulation_steps=config.train.accumulate,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)],
    )


def read_images(config: Config) -> ImageDataset:
    """Return the images that the config names."""
    if config.classes_from != "auto" and not holds_files(Path(os.path.expanduser(config.data))):
        raise UserError(
            f"classes come from names or folders where there are files, in a folder or a zip, and "
            f"{config.data} is neither: leave out --classes-from"
        )
    return load_images(
        config.data, config.size, config.root, channels=config.channels,
        background=config.background, classes_from=config.classes_from,
    )  # fmt: skip


def load_data(
    config: Config,
    images: ImageDataset | np.ndarray | None,
    processes: Processes,
    new: bool = False,
) -> tuple[Config, ImageDataset]:
    """Return the images to learn, and the config with their name; note what is odd about them.

    They are `images`, as they are, or else those that the config names. A `new` network has not
    learned anything as yet.
    """
    if images is None:
        with processes.main_process_first():  # it decodes them, and the others read its cache
            data = read_images(config)
    else:
        data = images if isinstance(images, ImageDataset) else ImageDataset.from_array(images)
        config = replace(config, data=data.source, size=())
    if not config.labels:
        if data.classes and processes.is_main:
            n = counted(len(data.classes), "class", "classes")
            logger.info(f"classes are not learned, though the images have {n}: labels is false")
        data = data.without_labels()
    if new:
        check_label_drop(config, data)
    if processes.is_main:
        for note in [*data.notes, *inspection_notes(data, config.flip)]:
            logger.info(note)
    return config, data
