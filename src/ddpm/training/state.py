"""What a run keeps: its checkpoints, the batches that gave no number, and the way back."""

from pathlib import Path

import torch
from torch import nn

from ..checkpoint.checkpoint import load_state, save, save_batch, save_state
from ..config import Config, DataInfo
from ..core.ema import EMA
from ..data.load import Batches
from ..utils.distributed import Processes
from ..utils.errors import UserError
from ..utils.random import STEP, derive_seed
from .log import MetricsLog

MAX_ROLLBACKS = 3  # in a row, before it gives up


class Keeper:
    """state/ and model.safetensors in a run's folder, and bad/.

    Of several processes one writes, and all of them call; `sharded`: each has a part of what is
    written.
    """

    def __init__(
        self,
        out: Path,
        config: Config,
        data: DataInfo,
        processes: Processes,
        raw: nn.Module,
        ema: EMA,
        optimizer: torch.optim.Optimizer,
        sharded: bool = False,
    ):
        self.out, self.config, self.data, self.processes = out, config, data, processes
        self.raw, self.ema, self.optimizer = raw, ema, optimizer
        self.state = out / "state" / "state.safetensors"
        self.needed = processes.is_main or sharded

    def restore(self) -> tuple[int, float, float]:
        """Set the weights and the optimizer to the last checkpoint; its step, the seconds it took,
        and its lr_scale."""
        return load_state(
            self.state,
            self.raw,
            self.ema,
            self.optimizer,
            self.config,
            self.data,
            self.processes.is_main,
        )

    def keep_state(self, step: int, seconds: float, lr_scale: float) -> None:
        if self.needed:
            save_state(
                self.state, step, seconds, lr_scale, self.raw, self.ema, self.optimizer,
                self.config, self.data, write=self.processes.is_main,
            )  # fmt: skip

    def save(self, step: int, seconds: float, lr_scale: float) -> None:
        """A checkpoint: what going on needs, and what is of use."""
        self.keep_state(step, seconds, lr_scale)
        images_seen = step * self.config.train.batch
        if self.needed:
            path = self.out / "model.safetensors"
            save(
                path,
                self.ema.model,
                self.config,
                self.data,
                step,
                images_seen,
                write=self.processes.is_main,
            )

    def dump_batch(self, steps: list[int], batches: Batches) -> None:
        """The batches of these steps, and the weights of now, for `ddpm replay` to look into."""
        for k in steps:
            torch.manual_seed(derive_seed(self.config.seed, STEP, k))
            whose = f"-{self.processes.rank}" if self.processes.world_size > 1 else ""
            path = self.out / "bad" / f"step-{k:07}{whose}.safetensors"
            first = batches.part.start or 0
            save_batch(path, *batches(k), self.raw, self.config, self.data, k, first)

    def rollback(self, log: MetricsLog, step: int, lr_scale: float) -> tuple[int, float]:
        """To the last checkpoint, with half the learning rate: its step, and the new lr_scale.
        Raises UserError where that has not helped so far."""
        if log.rollbacks == MAX_ROLLBACKS:
            raise UserError(
                f"the loss is not a number at step {step}, even at {lr_scale:g} of the learning "
                f"rate: try a lower --train.lr (the last checkpoint is kept)"
            )
        back, _, before = self.restore()
        lr_scale = min(lr_scale, before) / 2
        log.rolled_back(back, lr_scale)
        return back, lr_scale
