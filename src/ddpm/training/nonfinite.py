"""What a run does about losses and gradients that are not finite, and weights that explode."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoint.header import VERSION, Version
from ..checkpoint.run_dir import RunDir
from ..checkpoint.tensors import save_tensors, with_prefix
from ..config import Config, DataInfo, Whole
from ..core.diffusion import Diffusion
from ..data.batches import Batches
from ..utils.distributed import Processes
from ..utils.errors import UserError, counted
from ..utils.files import atomic_write
from ..utils.random import STEP, derive_seed
from .log import rewind_logs
from .state import TrainState, restore_latest, swap_states

MAX_NONFINITE_STEPS = 20  # since the last checkpoint, after which the run goes back to it
MAX_ROLLBACKS = 3  # in a row, before it gives up
MAX_LOSS = 5  # on a fixed batch, in losses of a network that says 0: beyond, it has exploded
FIXED_BATCH = 16  # images
MAX_BATCHES = 10  # that are written in a run
MAX_BATCHES_AT_ONCE = 3
JUMP = 3  # times its lowest, and the loss has jumped

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchHeader:
    """What the file of a batch says of itself."""

    version: Version
    step: Whole
    first: Whole
    data: DataInfo
    config: Config
    device: str = ""  # its kind, whose random numbers they were


class NonFiniteGuard:
    """Counts the steps that were skipped because a number in them was not finite, writes their
    batches for `ddpm replay`, and takes the run back where they persist.

    After MAX_NONFINITE_STEPS since the last checkpoint, or where there is nothing sound to save,
    the run goes back to it with half of the learning rate; where that does not help, to the one
    before. Both are kept until the run is beyond where it failed. After MAX_ROLLBACKS in a row it
    gives up, and leaves the checkpoints and the logs as they were.
    """

    def __init__(self, run: RunDir, processes: Processes, batches: Batches):
        self.run, self.processes, self.batches = run, processes, batches
        self.nonfinite_steps = self.rollbacks = self.dumped = self.failed_at = 0
        self.all_finite = True  # no step was skipped between the last two checks
        self.lowest, self.noted_jump = math.inf, False
        self.logs: dict[Path, str] = {}  # up to the newest checkpoint, as it went back to that

    @property
    def exhausted(self) -> bool:
        return self.nonfinite_steps >= MAX_NONFINITE_STEPS

    def check(
        self, state: TrainState, losses: Sequence[tuple[float, float]]
    ) -> list[tuple[float, float]]:
        """Return those of the last steps' (loss, norm of the gradient) that are finite; count the
        other steps, and write their batches."""
        # fp16 skips the steps whose gradients overflow by design: their loss alone is telling.
        exact = state.config.train.precision != "fp16"
        finite = [math.isfinite(a) and (math.isfinite(b) or not exact) for a, b in losses]
        first = state.step - len(losses)
        skipped = [first + i for i, ok in enumerate(finite) if not ok]
        self.all_finite = not skipped
        self.nonfinite_steps += len(skipped)
        if skipped:
            self.note(
                f"{len(skipped)} of {counted(len(losses), 'step')} up to {state.step:,} were "
                f"skipped, as their loss or gradient is not finite; the first of their batches are "
                f"in bad/"
            )
        for step in skipped[: min(MAX_BATCHES_AT_ONCE, MAX_BATCHES - self.dumped)]:
            self.dump_batch(state, step)
        good = [pair for pair, ok in zip(losses, finite, strict=True) if ok]
        if good:
            self.watch_jumps(state.step, sum(loss for loss, _ in good) / len(good))
        return good

    def is_sound(self, state: TrainState, diffusion: Diffusion) -> bool:
        """Return whether a state may replace a sound one: all of it is finite, and on a batch that
        is always the same neither the weights nor their average have exploded.

        Every process must call it. Nothing that is random in a step depends on it.
        """
        loss = math.nan
        if self.processes.is_main and state.is_finite():
            nets = (state.net, state.ema.model)
            loss = max(self.fixed_loss(net, diffusion) for net in nets)
        (loss,), _ = self.processes.broadcast([loss], False)
        if loss <= MAX_LOSS:
            return True
        self.note(
            f"the weights of step {state.step:,} have exploded (loss {loss:.3g} on a fixed batch) "
            f"and are not saved"
        )
        return False

    @torch.no_grad()
    def fixed_loss(self, net: nn.Module, diffusion: Diffusion) -> float:
        """Return the error of the target at times from 1 to T, on images and in noise that are
        always the same, by that of a network that says 0 (or by 1, where that is less)."""
        torch.manual_seed(0)
        x0, y = self.batches(0)
        x0, y = x0[:FIXED_BATCH], None if y is None else y[:FIXED_BATCH]
        t = torch.linspace(1, diffusion.T, len(x0), device=x0.device).long()
        eps = torch.randn_like(x0)
        target = diffusion.target_of(x0, eps, t)
        training = net.training
        net.eval()
        out, _ = diffusion.output(net, diffusion.q_sample(x0, t, eps), t, y)
        value = ((out - target).square().mean() / target.square().mean().clamp(min=1)).item()
        net.train(training)
        return value if math.isfinite(value) else math.nan

    def dump_batch(self, state: TrainState, step: int) -> None:
        """Write the batch of a step, and the weights as they are now."""
        self.run.require_held()
        self.dumped += 1
        torch.manual_seed(derive_seed(state.config.seed, STEP, step))
        rank = self.processes.rank if self.processes.world_size > 1 else None
        first = self.batches.part.start or 0
        device = next(state.net.parameters()).device.type
        header = BatchHeader(VERSION, step, first, state.data, state.config, device)
        save_batch(self.run.bad_batch(step, rank), *self.batches(step), state.net, header)

    def rollback(self, state: TrainState) -> None:
        """Restore the last checkpoint, or the one before where the last has not helped, and halve
        the learning rate. Raise UserError where neither has helped so far."""
        if self.rollbacks == MAX_ROLLBACKS:
            text = (
                f"the loss is not a number, or far too large, at step {state.step}, even at "
                f"{state.lr_scale:g} of the learning rate: try a lower --train.lr (the last "
                f"checkpoint is kept)"
            )
            self.leave_as_it_was(state)
            raise UserError(text)
        self.run.require_held()
        self.failed_at = max(self.failed_at, state.step)
        lr_scale, skip = state.lr_scale, self.rollbacks == 1
        main = self.processes.is_main
        restored = main or restore_latest(self.run, state, repair=False, skip_newest=skip)
        self.processes.broadcast([], False)  # all have read it before one moves it
        if main:
            restored = restore_latest(self.run, state, skip_newest=skip)
        if not restored:
            raise UserError(f"there is no checkpoint left in {self.run.path} to go back to")
        state.lr_scale = min(lr_scale, state.lr_scale) / 2
        if self.processes.is_main:
            rewind_logs(self.run, state.step)
            if not self.rollbacks:
                self.logs = {path: path.read_text() for path in self.run.logs if path.exists()}
        self.nonfinite_steps, self.rollbacks = 0, self.rollbacks + 1
        self.note(
            f"back to step {state.step:,}, and on with {state.lr_scale:g} of the learning rate"
        )

    def leave_as_it_was(self, state: TrainState) -> None:
        """Where the run has gone back further, have the later checkpoint be the newest again."""
        if self.logs:
            self.run.require_held()
            swap_states(self.run)
        for path, text in self.logs.items():
            with atomic_write(path) as beside:
                beside.write_text(text)
        if self.logs and self.run.model.exists() and restore_latest(self.run, state, repair=False):
            state.save_average(self.run.model)

    def saved(self, step: int) -> None:
        """Begin to count anew: there is a sound checkpoint of that step."""
        self.nonfinite_steps = 0
        if step > self.failed_at:
            self.rollbacks, self.logs = 0, {}

    def watch_jumps(self, step: int, loss: float) -> None:
        """Say once where the loss is finite and yet far above what it was."""
        if loss > JUMP * self.lowest and not self.noted_jump:
            self.noted_jump = True
            self.note(
                f"the loss has jumped from {self.lowest:.3g} to {loss:.3g} by step {step:,}: if it "
                f"stays there, begin anew with a lower --train.lr or a longer --train.warmup"
            )
        self.lowest = min(self.lowest, loss)

    def note(self, text: str) -> None:
        if self.processes.is_main:
            logger.warning(text)


def save_batch(
    path: Path, x0: Tensor, y: Tensor | None, net: nn.Module, header: BatchHeader
) -> None:
    """Write a batch and the weights of the network, for `ddpm replay`.

    It may be one process's part of the whole: `header.first` is where that begins.
    """
    path.parent.mkdir(exist_ok=True)
    tensors = with_prefix("raw.", net.state_dict()) | {"x0": x0}
    save_tensors(path, tensors if y is None else tensors | {"y": y}, header)
