"""Weights on disk, and the only place where a config meets a class.

A checkpoint is a safetensors file: loading it executes nothing. Its header holds all that is
needed to use it, as JSON under the key "ddpm".
"""

import errno
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..config import Config, DataInfo, NonNegative, Positive, Whole, renamed, validated
from ..core.diffusion import Diffusion
from ..core.ema import EMA
from ..core.loss import Loss
from ..core.schedule import SCHEDULES
from ..core.unet import UNet
from ..utils.errors import UserError
from ..utils.files import atomic_write, link_or_copy
from .shard import put_weights, shared_as, whole

VERSION = 2
OLD_NAMES = {"images": "images_seen", "caution": "lr_scale"}  # of version 1
MAX_HEADER = 4_000_000  # bytes of a file's header: the names of a great many classes
Weights = Literal["ema", "as given"]  # averaged; or from elsewhere, where who knows
WEIGHTS = Path(__file__).parents[1] / "weights"
PRETRAINED = ("mnist", "cifar10", "celeba64")
FIXED = (  # for the whole life of a run
    "size", "flip", "labels", "held_out", "seed", "unet", "train.batch",
    "diffusion.schedule", "diffusion.T", "diffusion.target",
)  # fmt: skip

Version = Annotated[int, Field(strict=True, ge=1)]
T = TypeVar("T")


@dataclass(frozen=True)
class Header:
    """What model.safetensors says of itself."""

    version: Version
    weights: Weights
    step: Whole
    images_seen: Whole
    data: DataInfo
    config: Config


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


@dataclass(frozen=True)
class BatchHeader:
    """What a batch that was skipped says of itself."""

    version: Version
    step: Whole
    first: Whole
    data: DataInfo
    config: Config


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with the process and the data it was trained for."""

    net: UNet
    diffusion: Diffusion
    config: Config
    data: DataInfo
    step: int
    images_seen: int
    weights: Weights = "ema"

    @property
    def conditional(self) -> bool:
        return bool(self.data.classes)


def build(config: Config, data: DataInfo) -> tuple[UNet, Diffusion]:
    """The network and the diffusion that a config describes, for data of this shape."""
    try:
        return build_net(config, data), build_diffusion(config)
    except ValueError as error:
        raise UserError(f"the settings do not fit together: {error}") from None


def build_net(config: Config, data: DataInfo) -> UNet:
    return UNet(data.channels, len(data.classes), **asdict(config.unet))


def build_diffusion(config: Config) -> Diffusion:
    d = config.diffusion
    return Diffusion(SCHEDULES[d.schedule](d.T), d.target)


def build_loss(config: Config, diffusion: Diffusion) -> Loss:
    """Return the loss that a config describes, on the device of the diffusion."""
    d = config.diffusion
    return Loss(diffusion, d.weight, d.gamma, d.min_weight, d.time_sampling)


def save(
    path: str | Path,
    net: nn.Module,
    config: Config,
    data: DataInfo,
    step: int,
    images_seen: int,
    write: bool = True,
    weights: Weights = "ema",
) -> None:
    """Write a checkpoint, whole or not at all. `weights`: which those of `net` are. Where several
    processes have parts of it all of them call this, and one of them is to `write`."""
    header = Header(VERSION, weights, step, images_seen, data, config)
    save_tensors(Path(path), net.state_dict(), header, write)


def load(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`, a file or a run's folder, or the name of one that comes with the
    package, as a str ("mnist"; a folder of that name is "./mnist"). The network is on the CPU.

    Raises UserError where there is none, or it is damaged, of another kind, or too new.
    """
    path = WEIGHTS / f"{path}.safetensors" if path in PRETRAINED else Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    tensors, header = load_tensors(path, Header)
    net, diffusion = rebuild(path, header.config, header.data, tensors)
    return Checkpoint(
        net.eval().requires_grad_(False),
        diffusion,
        header.config,
        header.data,
        header.step,
        header.images_seen,
        header.weights,
    )


def rebuild(
    path: Path, config: Config, data: DataInfo, tensors: Mapping[str, Tensor]
) -> tuple[UNet, Diffusion]:
    """The network with the weights of a file, and the diffusion. Raises UserError where they are
    not those that its config describes."""
    try:
        diffusion = build_diffusion(config)
        with torch.device("meta"):  # no memory is taken before the weights are known to fit
            net = build_net(config, data)
        net.load_state_dict(require_real(tensors), assign=True)
    except (RuntimeError, ValueError, TypeError):
        raise UserError(f"{path} is damaged: its weights do not fit its own config") from None
    return net.float(), diffusion


def load_initial(net: UNet, data: DataInfo, path: str) -> None:
    """Set the weights of `net` to those of the checkpoint at `path`. The embedding of the classes
    stays as it is where these are others, and so does a stage at full resolution that is new.

    Raises UserError where the networks differ in anything else.
    """
    given = load(path)
    weights = given.net.state_dict()
    own = net.state_dict()
    if given.data.classes != data.classes:
        weights.pop("label.weight", None)
        weights |= {k: v for k, v in own.items() if k == "label.weight"}
    if not given.config.unet.fine:
        weights |= {k: v for k, v in own.items() if k.startswith("fine.")}
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in own.items()}:
        raise UserError(
            f"this run cannot begin with the weights of {path}, which are of another network: "
            f"give the --unet settings, and images of the channels, that it was trained with"
        )
    net.load_state_dict(weights)


def require_real(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The same, or TypeError where they are not all of real numbers."""
    if not all(t.is_floating_point() for t in tensors.values()):
        raise TypeError("weights are real numbers")
    return tensors


def save_state(
    path: Path,
    step: int,
    seconds: float,
    lr_scale: float,
    net: nn.Module,
    ema: EMA,
    optimizer: torch.optim.Optimizer,
    config: Config,
    data: DataInfo,
    write: bool = True,
) -> None:
    """Write all that going on needs: weights, their average, the optimizer's moments, the step, and
    `lr_scale`, by which the learning rate is multiplied. The one before is kept beside it. `write`
    is as for `save`."""
    moments = optimizer.state_dict()["state"]
    tensors = {f"raw.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.model.state_dict().items()}
    tensors |= {f"optimizer.{i}.{k}": v for i, m in moments.items() for k, v in m.items()}
    header = StateHeader(VERSION, step, seconds, ema.updates, data, config, lr_scale)
    if write:
        link_or_copy(path, before(path))
    save_tensors(path, tensors, header, write)


def before(path: Path) -> Path:
    """Where the state before the last one is kept."""
    return path.with_name(f"{path.stem}-before{path.suffix}")


def load_state(
    path: Path,
    net: nn.Module,
    ema: EMA,
    optimizer: torch.optim.Optimizer,
    config: Config,
    data: DataInfo,
    write: bool = True,
) -> tuple[int, float, float]:
    """Put back what `save_state` wrote; returns the step, the seconds and the lr_scale. Where the
    file is damaged the one before it serves, with a note, and where this process may `write` takes
    its place: the next to be written must not drive out the only one that is whole.

    Raises UserError where both are damaged, or the config or the data are another run's.
    """
    try:
        tensors, header = load_tensors(path, StateHeader)
    except UserError as error:
        if not before(path).exists():
            raise
        print(f"note: {error}; going on from the checkpoint before it", file=sys.stderr)
        tensors, header = load_tensors(before(path), StateHeader)
        if write:
            link_or_copy(before(path), path)
    changed = [k for k in FIXED if attrgetter(k)(header.config) != attrgetter(k)(config)]
    if changed:
        raise UserError(f"this run cannot go on with another {changed[0]}: start a new one for it")
    if header.data.fingerprint != data.fingerprint:
        raise UserError("the images are not those that this run began with: start a new one")

    groups = optimizer.state_dict()["param_groups"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    muon = {i for group in groups if "momentum" in group for i in group["params"]}
    moments: dict[int, dict[str, Tensor]] = {}
    try:
        require_real(tensors)
        put_weights(net, {k[4:]: v for k, v in tensors.items() if k.startswith("raw.")})
        put_weights(ema.model, {k[4:]: v for k, v in tensors.items() if k.startswith("ema.")})
        for i, parameter in enumerate(parameters) if header.step else ():
            step = torch.zeros(()) if i in muon else tensors[f"optimizer.{i}.step"].view(())
            moments[i] = {"step": step}
            for name in ("momentum_buffer",) if i in muon else ("exp_avg", "exp_avg_sq"):
                value = tensors[f"optimizer.{i}.{name}"].view(parameter.shape)
                # The fused step walks through memory: a moment must lie as its parameter does.
                share = shared_as(parameter, value)
                moments[i][name] = torch.empty_like(parameter).copy_(share)
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (RuntimeError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: it does not fit this run's config") from None
    ema.updates = header.ema_updates
    return header.step, header.seconds, header.lr_scale


def save_batch(
    path: Path,
    x0: Tensor,
    y: Tensor | None,
    net: nn.Module,
    config: Config,
    data: DataInfo,
    step: int,
    first: int,
) -> None:
    """Write the batch of a step, and the weights, to be looked into by `ddpm replay`. It may
    be one process's part of the whole: `first` is where that begins."""
    path.parent.mkdir(exist_ok=True)
    tensors = {f"raw.{k}": v for k, v in net.state_dict().items()} | {"x0": x0}
    if y is not None:
        tensors["y"] = y
    save_tensors(path, tensors, BatchHeader(VERSION, step, first, data, config))


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], header: Any, write: bool = True
) -> None:
    """A safetensors file with the header, a dataclass, as JSON. Raises OSError on a full disk."""
    contiguous = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if write:
            contiguous[name] = full.cpu().contiguous()
    if not write:
        return
    about = {"ddpm": json.dumps(asdict(header)), "sha256": digest(contiguous)}
    with atomic_write(path) as beside:
        try:
            save_file(contiguous, beside, metadata=about)
        except SafetensorError as error:  # it has the system's number for the fault in its text
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from None
        if header_length(beside) > MAX_HEADER:
            raise UserError(f"{len(header.data.classes):,} classes are too many for a checkpoint")


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of all tensors in the order of their names, wherever they lie in a file."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def load_tensors(path: Path, kind: type[T]) -> tuple[dict[str, Tensor], T]:
    """The tensors and the header of a file of ours, checked for kind, version and range."""
    if not path.is_file():
        names = ", ".join(PRETRAINED)
        raise UserError(
            f"there is no checkpoint at {path}; name a run's folder, a .safetensors file, or the "
            f"weights that come with ddpm: {names}"
        )
    tensors, about = read_tensors(path)
    try:
        header = json.loads(about.get("ddpm", ""))
        version = header["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(f"{path} is a safetensors file, but not a checkpoint of ddpm") from None
    if isinstance(version, int) and version > VERSION:
        raise UserError(
            f"{path} was written by a newer ddpm (format {version}; this one reads up to "
            f"{VERSION}): upgrade ddpm to use it"
        )
    if "sha256" in about and about["sha256"] != digest(tensors):
        raise UserError(f"{path} is damaged: its contents are not those that were written")
    return tensors, validated(kind, renamed_header(header), f"{path} has a damaged header")


def renamed_header(header: Any) -> Any:
    """The same, with the names of now where it is of a file that has those of before."""
    if not isinstance(header, dict):
        return header
    table = {OLD_NAMES.get(name, name): value for name, value in header.items()}
    return table | ({"config": renamed(table["config"])} if "config" in table else {})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and what it says of itself. Raises UserError where it is
    none, or its header is larger than any of ours."""
    try:
        if header_length(path) > MAX_HEADER:
            raise ValueError(f"its header would have more than {MAX_HEADER:,} bytes")
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file (truncated, or of another format): {error}"
        ) from None


def header_length(path: Path) -> int:
    """As a safetensors file tells it in its first eight bytes."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")
