"""Weights on disk, and the only place where a config meets a class.

A checkpoint is a safetensors file: loading it executes nothing. Its header holds all that is
needed to use it, as JSON under the key "ddpm".
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .config import Config, DataInfo, explain, from_dict, to_dict
from .diffusion import Diffusion
from .ema import EMA
from .errors import UserError
from .schedule import SCHEDULES
from .unet import UNet

VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with the process and the data it was trained for."""

    net: UNet
    diffusion: Diffusion
    config: Config
    data: DataInfo
    step: int
    images: int


def build(config: Config, data: DataInfo) -> tuple[UNet, Diffusion]:
    """The network and the diffusion that a config describes, for data of this shape."""
    d = config.diffusion
    diffusion = Diffusion(SCHEDULES[d.schedule](d.T), d.target, d.weight, d.gamma, d.time_sampling)
    try:
        net = UNet(data.channels, len(data.classes), **asdict(config.unet))
    except ValueError as error:
        raise UserError(f"unet: {error}") from None
    return net, diffusion


def save(
    path: str | Path, net: nn.Module, config: Config, data: DataInfo, step: int, images: int
) -> None:
    """Write a checkpoint, whole or not at all. `net`: the average of the weights, as a rule."""
    header = {
        "version": VERSION,
        "weights": "ema",
        "step": step,
        "images": images,
        "data": asdict(data),
        "config": to_dict(config),
    }
    save_tensors(Path(path), dict(net.state_dict()), header)


def load(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`, a file or a run's folder; the network is on the CPU, for use.

    Raises UserError where there is none, or it is damaged, of another kind, or too new.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    tensors, header = load_tensors(path)
    try:
        data = TypeAdapter(DataInfo).validate_python(header["data"])
        config = from_dict(header["config"])
        step, images = int(header["step"]), int(header["images"])
    except (KeyError, TypeError, ValueError, UserError) as error:
        why = explain(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{path} has a damaged header: {why}") from None
    net, diffusion = build(config, data)
    try:
        net.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{path} is damaged: its weights do not fit its own config") from None
    return Checkpoint(net.eval().requires_grad_(False), diffusion, config, data, step, images)


def save_state(
    path: Path,
    step: int,
    seconds: float,
    net: nn.Module,
    ema: EMA,
    optimizer: torch.optim.Optimizer,
    data: DataInfo,
) -> None:
    """Write all that going on needs: weights, their average, the optimizer's moments, the step."""
    moments = optimizer.state_dict()["state"]
    tensors = {f"raw.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.model.state_dict().items()}
    tensors |= {f"optimizer.{i}.{k}": v for i, m in moments.items() for k, v in m.items()}
    header = {"version": VERSION, "step": step, "seconds": seconds, "ema_updates": ema.updates,
              "fingerprint": data.fingerprint}  # fmt: skip
    save_tensors(path, tensors, header)


def load_state(
    path: Path, net: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer, data: DataInfo
) -> tuple[int, float]:
    """Put back what `save_state` wrote; returns the step and the seconds. Raises UserError."""
    tensors, header = load_tensors(path)
    if header.get("fingerprint") != data.fingerprint:
        raise UserError("the data are not those that this run began with: start a new run for them")

    def part(name: str) -> dict[str, Tensor]:
        return {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}

    parameters = list(net.parameters())
    moments: dict[int, dict[str, Tensor]] = {}
    try:
        for key, value in part("optimizer.").items():
            i, name = key.split(".")
            # The fused step walks through memory: a moment must lie there as its parameter does.
            like = parameters[int(i)] if value.ndim else value
            moments.setdefault(int(i), {})[name] = torch.empty_like(like).copy_(value)
        net.load_state_dict(part("raw."))
        ema.model.load_state_dict(part("ema."))
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        ema.updates = int(header["ema_updates"])
        return int(header["step"]), float(header["seconds"])
    except (RuntimeError, KeyError, ValueError, IndexError):
        raise UserError(f"{path} is damaged: it does not fit this run's config") from None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write beside, force to disk, then rename: at any moment the file is the old or the new."""
    beside = path.with_name(f".{path.name}.part")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, beside, metadata={"ddpm": json.dumps(header)})
    with open(beside, "r+b") as file:
        os.fsync(file.fileno())
    os.replace(beside, path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file of ours, checked for kind and version."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("ddpm", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file (truncated, or of another format): {error}"
        ) from None
    if not isinstance(header, dict) or not isinstance(header.get("version"), int):
        raise UserError(f"{path} is a safetensors file, but not a checkpoint of ddpm")
    if header["version"] > VERSION:
        raise UserError(
            f"{path} was written by a newer ddpm (format {header['version']}, this one reads up "
            f"to {VERSION}): upgrade ddpm to use it"
        )
    return tensors, header
