"""The state of a run: all that changes while it trains, saved and restored whole."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.checkpoint import save
from ..checkpoint.header import VERSION, NewerVersion, Score, Version
from ..checkpoint.run_dir import RunDir, inspect_run
from ..checkpoint.tensors import (
    all_finite,
    load_tensors,
    require_finite,
    require_real,
    save_tensors,
    under_prefix,
    with_prefix,
)
from ..config import Config, DataInfo, NonNegative, Positive, Whole
from ..core.ema import EMA
from ..core.unet import UNet
from ..utils.errors import UserError
from ..utils.files import atomic_write, link_or_copy, sync_file, sync_folder

FIXED = (  # settings that a run keeps for its whole life
    "size", "flip", "init", "labels", "held_out", "seed", "unet", "train.batch", "train.augment",
    "train.optimizer",
    "diffusion.schedule", "diffusion.T", "diffusion.zero_snr", "diffusion.target",
    "diffusion.sigma_data", "diffusion.learned_variance",
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
    random is kept: every draw follows from the seed and the step. Of training in fp16 the scale of
    the loss is not kept, and begins anew.
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

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights, their average and the optimizer's moments, by name."""
        moments = self.optimizer.state_dict()["state"]
        tensors = with_prefix("raw.", self.net.state_dict())
        tensors |= with_prefix("ema.", self.ema.model.state_dict())
        for i, values in moments.items():
            tensors |= with_prefix(f"optimizer.{i}.", values)
        return tensors

    def is_finite(self) -> bool:
        """Return whether it holds numbers, and no NaN or infinity."""
        return all_finite(self.tensors().values())

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        header = StateHeader(
            VERSION, self.step, self.seconds, self.ema.updates, self.data, self.config,
            self.lr_scale,
        )  # fmt: skip
        save_tensors(path, self.tensors(), header)

    def save_average(self, path: Path, score: Score | None = None) -> None:
        """Write the averaged weights as a checkpoint, for use."""
        save(path, self.ema.model, self.config, self.data, self.step, self.images_seen, score=score)

    def restore(self, path: Path, tensors: Mapping[str, Tensor], header: StateHeader) -> None:
        """Set everything to what `save` wrote into the file at `path`.

        Raise UserError where it is damaged, or of a run with other settings or images.
        """
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
    """Set the moments of AdamW, or Muon's momentum; without tensors, clear them. Raise KeyError or
    RuntimeError where they are not those of the optimizer's parameters."""
    groups = optimizer.state_dict()["param_groups"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    muon = {i for group in groups if "momentum" in group for i in group["params"]}
    moments: dict[int, dict[str, Tensor]] = {}
    for i, parameter in enumerate(parameters) if tensors else ():
        step = torch.zeros(()) if i in muon else tensors[f"optimizer.{i}.step"].view(()).clone()
        moments[i] = {"step": step}
        for name in ("momentum_buffer",) if i in muon else ("exp_avg", "exp_avg_sq"):
            value = tensors[f"optimizer.{i}.{name}"].view(parameter.shape)
            # The fused step walks through memory: a moment must lie as its parameter does.
            moments[i][name] = torch.empty_like(parameter).copy_(value)
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def save_guide(run: RunDir, state: TrainState) -> None:
    """Write the averaged weights as the run's early ones, where there are none yet."""
    run.require_held()
    if not run.guide.exists():
        state.save_average(run.guide)


def save_checkpoint(run: RunDir, state: TrainState, rotate: bool = True) -> None:
    """Write what the run needs to be resumed, and the averaged weights. With `rotate`, the state
    that this replaces becomes the one before. The logs up to here are on disk before."""
    run.require_held()
    for log in run.logs:
        if log.exists():
            sync_file(log)
    sync_folder(run.path)
    save_state(run, state, rotate)
    run.require_held()
    state.save_average(run.model)


def save_state(run: RunDir, state: TrainState, rotate: bool = True) -> None:
    run.require_held()
    if rotate:
        link_or_copy(run.state, run.previous_state)
    state.save(run.state)


def restore_latest(
    run: RunDir, state: TrainState, repair: bool = True, skip_newest: bool = False
) -> bool:
    """Restore the newest state that is whole; return False where there is none to restore. With
    `skip_newest`, rather the one before it, where there is one.

    Where the newest is missing, damaged or not of finite numbers the one before it serves, with a
    note. With `repair` what is restored is the newest from then on: the next to be written must not
    replace the only one that is whole, and the logs follow on it; the newest that was skipped is
    then the one before. Raise UserError where all are damaged, or of another run or a newer
    version, and OSError where one cannot be read.
    """
    states = inspect_run(run.path).states
    if repair and states == (run.previous_state,):
        logger.warning("%s is missing; going on from the checkpoint before it", run.state)
    states = states[1:] + states[:1] if skip_newest else states
    for path in states:
        with path.open("rb"):  # what may not be read is not for that damaged
            pass
        try:
            loaded = load_tensors(path, StateHeader)
            require_finite(path, loaded[0])
        except NewerVersion:
            raise
        except UserError as error:
            if path == states[-1]:
                raise
            if repair:
                logger.warning("%s; going on from the checkpoint before it", error)
            continue
        state.restore(path, *loaded)
        del loaded  # Windows replaces no file that is still mapped
        if repair and path != run.state:
            swap_states(run) if skip_newest else link_or_copy(path, run.state)
        return True
    return False


def swap_states(run: RunDir) -> None:
    """Exchange the newest state and the one before it; nothing where there is but one."""
    if run.state.exists() and run.previous_state.exists():
        with atomic_write(run.previous_state) as newest:
            link_or_copy(run.state, newest)
            link_or_copy(run.previous_state, run.state)
