"""The state of a run: all that changes while it trains, saved and restored whole."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.checkpoint import save
from ..checkpoint.run_dir import RunDir, inspect_run
from ..checkpoint.tensors import (
    VERSION,
    Version,
    load_tensors,
    require_real,
    save_tensors,
    under_prefix,
    with_prefix,
)
from ..config import Config, DataInfo, NonNegative, Positive, Whole
from ..core.ema import EMA
from ..core.unet import UNet
from ..utils.errors import UserError
from ..utils.files import link_or_copy

FIXED = (  # settings that a run keeps for its whole life
    "size", "flip", "labels", "held_out", "seed", "unet", "train.batch",
    "diffusion.schedule", "diffusion.T", "diffusion.target",
)  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StateHeader:
    """What state.safetensors says of itself."""

    version: Version
    step: Whole
    seconds: NonNegative
    ema_updates: Whole
    data: DataInfo
    config: Config
    lr_scale: Positive = 1.0


@dataclass
class TrainState:
    """The weights, their average and the optimizer of a run, and how far it has come.

    `seconds` is the time it has trained; the learning rate is multiplied by `lr_scale`. Nothing
    random is kept: every draw follows from the seed and the step.
    """

    net: UNet
    ema: EMA
    optimizer: torch.optim.Optimizer
    config: Config
    data: DataInfo
    step: int = 0
    seconds: float = 0.0
    lr_scale: float = 1.0

    @property
    def images_seen(self) -> int:
        return self.step * self.config.train.batch

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        moments = self.optimizer.state_dict()["state"]
        tensors = with_prefix("raw.", self.net.state_dict())
        tensors |= with_prefix("ema.", self.ema.model.state_dict())
        for i, values in moments.items():
            tensors |= with_prefix(f"optimizer.{i}.", values)
        header = StateHeader(
            VERSION, self.step, self.seconds, self.ema.updates, self.data, self.config,
            self.lr_scale,
        )  # fmt: skip
        save_tensors(path, tensors, header)

    def save_average(self, path: Path) -> None:
        """Write the averaged weights as a checkpoint, for use."""
        save(path, self.ema.model, self.config, self.data, self.step, self.images_seen)

    def restore(self, path: Path) -> None:
        """Set everything to what `save` wrote.

        Raises UserError where the file is damaged, or of a run with other settings or images.
        """
        self._restore(path, *load_tensors(path, StateHeader))

    def _restore(self, path: Path, tensors: Mapping[str, Tensor], header: StateHeader) -> None:
        changed = [k for k in FIXED if attrgetter(k)(header.config) != attrgetter(k)(self.config)]
        if changed:
            raise UserError(
                f"this run cannot go on with another {changed[0]}: start a new one for it"
            )
        if header.data.fingerprint != self.data.fingerprint:
            raise UserError("the images are not those that this run began with: start a new one")
        try:
            require_real(tensors)
            self.net.load_state_dict(under_prefix("raw.", tensors))
            self.ema.model.load_state_dict(under_prefix("ema.", tensors))
            load_moments(self.optimizer, tensors if header.step else {})
        except (RuntimeError, KeyError, TypeError):
            raise UserError(f"{path} is damaged: it does not fit this run's config") from None
        self.step, self.seconds, self.lr_scale = header.step, header.seconds, header.lr_scale
        self.ema.updates = header.ema_updates


def load_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Set the moments of AdamW, or Muon's momentum; without tensors, clear them. Raises KeyError or
    RuntimeError where they are not those of the optimizer's parameters."""
    groups = optimizer.state_dict()["param_groups"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    muon = {i for group in groups if "momentum" in group for i in group["params"]}
    moments: dict[int, dict[str, Tensor]] = {}
    for i, parameter in enumerate(parameters) if tensors else ():
        step = torch.zeros(()) if i in muon else tensors[f"optimizer.{i}.step"].view(())
        moments[i] = {"step": step}
        for name in ("momentum_buffer",) if i in muon else ("exp_avg", "exp_avg_sq"):
            value = tensors[f"optimizer.{i}.{name}"].view(parameter.shape)
            # The fused step walks through memory: a moment must lie as its parameter does.
            moments[i][name] = torch.empty_like(parameter).copy_(value)
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def save_checkpoint(run: RunDir, state: TrainState) -> None:
    """Write what the run needs to be resumed, keep the state before it, and write the averaged
    weights."""
    save_state(run, state)
    state.save_average(run.model)


def save_state(run: RunDir, state: TrainState) -> None:
    link_or_copy(run.state, run.previous_state)
    state.save(run.state)


def restore_latest(run: RunDir, state: TrainState, repair: bool = True) -> bool:
    """Restore the newest state that is whole; return False where there is none to restore.

    Where the newest is damaged the one before it serves, with a note. With `repair` that takes its
    place too: the next to be written must not replace the only one that is whole. Raises UserError
    where all are damaged, or of another run.
    """
    states = inspect_run(run.path).states
    for path in states:
        try:
            loaded = load_tensors(path, StateHeader)
        except UserError as error:
            if path == states[-1]:
                raise
            if repair:
                logger.warning("%s; going on from the checkpoint before it", error)
            continue
        if repair and path != run.state:
            link_or_copy(path, run.state)
        state._restore(path, *loaded)
        return True
    return False
