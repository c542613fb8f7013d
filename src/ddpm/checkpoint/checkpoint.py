"""Trained networks on disk, and the only place where a config meets a class."""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import Config, DataInfo, read_toml
from ..core.diffusion import Diffusion
from ..core.ema import warm_decay
from ..core.loss import Loss
from ..core.schedule import named_schedule
from ..core.unet import UNet
from ..utils.errors import UserError, counted
from .header import PRETRAINED, VERSION, Header, Score, Weights
from .run_dir import RunDir, find_checkpoint
from .tensors import (
    load_tensors,
    require_finite,
    require_real,
    save_tensors,
    under_prefix,
    with_prefix,
)

GUIDE = "guide."  # before the names of the guide's weights

MADE_ANEW = {  # where a run begins from weights that do not have it
    "label": "the embedding of the classes",
    "conv_in": "the layers that meet the image", "conv_out": "the layers that meet the image",
    "fine": "the stage at full resolution", "augment": "the labels of augmentation",
}  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A trained network with the process and the data it was trained for."""

    net: UNet
    diffusion: Diffusion
    config: Config
    data: DataInfo
    step: int
    images_seen: int
    weights: Weights = "ema"
    trusted: bool = False
    """Whether the data that its config names were named by the user: the config is that of the run
    beside it, or comes with ddpm. Else nothing that it names is opened unasked."""
    guide: "Checkpoint | None" = None
    """A weaker version of the network that its file carries, to guide it by."""

    @property
    def conditional(self) -> bool:
        return bool(self.data.classes)

    @property
    def parameters(self) -> int:
        """How many numbers the network has learned, without those of the guide."""
        return sum(p.numel() for p in self.net.parameters())

    @property
    def header(self) -> Header:
        """What a file says of the network, without a guide."""
        return Header(
            VERSION, self.weights, self.step, self.images_seen, self.data, self.config
        )  # fmt: skip

    def __repr__(self) -> str:
        data, millions = self.data, self.parameters / 1e6
        classes = f", {counted(len(data.classes), 'class', 'classes')}" if data.classes else ""
        return (
            f"Checkpoint({data.source}, {data.channels}x{data.height}x{data.width}{classes}, "
            f"{millions:.1f} M parameters, step {self.step:,})"
        )

    def weights_hash(self) -> str:
        """Return the first 16 digits of a SHA-256 of all weights, in order."""
        digest = hashlib.sha256()
        for tensor in self.net.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]


def build(config: Config, data: DataInfo, augment_dim: int = 0) -> tuple[UNet, Diffusion]:
    """Return the network and the diffusion that a config describes, for data of this shape.

    `augment_dim`: the size of the labels of augmentation, which is in training alone.
    Raise UserError where its settings do not fit together.
    """
    with config_errors():
        return build_net(config, data, augment_dim), build_diffusion(config)


@contextmanager
def config_errors(where: str = "") -> Iterator[None]:
    """Raise UserError where settings, of the file `where`, turn out not to fit together."""
    try:
        yield
    except ValueError as error:
        of = f" of {where}" if where else ""
        raise UserError(f"the settings{of} do not fit together: {error}") from None


def build_net(config: Config, data: DataInfo, augment_dim: int = 0) -> UNet:
    out = data.channels * (2 if config.diffusion.learned_variance else 1)
    settings = asdict(config.unet) | {"out_channels": out, "augment_dim": augment_dim}
    return UNet(data.channels, len(data.classes), **settings)


def build_diffusion(config: Config) -> Diffusion:
    d = config.diffusion
    schedule = named_schedule(d.schedule, d.T, d.zero_snr)
    return Diffusion(
        schedule, d.target, sigma_data=d.sigma_data, learned_variance=d.learned_variance
    )


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
    weights: Weights = "ema",
    score: Score | None = None,
    guide: Checkpoint | None = None,
) -> None:
    """Write a checkpoint, whole or not at all. `weights` says which those of `net` are, and `guide`
    is a weaker version of it for the file to carry. The layer for the labels of augmentation is
    left out: it has no bias, and what is sampled has labels of zeros."""
    tensors = {k: v for k, v in net.state_dict().items() if not k.startswith("augment.")}
    if guide is not None:
        tensors |= with_prefix(GUIDE, guide.net.state_dict())
    of_guide = None if guide is None else guide.config.unet
    header = Header(VERSION, weights, step, images_seen, data, config, score, of_guide)
    save_tensors(Path(path), tensors, header)


def load(path: str | Path) -> Checkpoint:
    """Return the checkpoint at `path`, with its network on the CPU.

    `path` is a file, a run's folder, or the name of bundled weights as a str ("mnist"; a folder of
    that name is "./mnist"). Raise UserError where there is none, or it is damaged, of another
    program, or from a newer version.
    """
    bundled, path = path in PRETRAINED, find_checkpoint(path)
    tensors, header = load_tensors(path, Header)
    guide = None
    if header.guide is not None:
        config = replace(header.config, unet=header.guide)
        of_guide = replace(header, config=config, step=0, images_seen=0)
        guide = checkpoint_from_tensors(path, of_guide, under_prefix(GUIDE, tensors))
        tensors = {name: t for name, t in tensors.items() if not name.startswith(GUIDE)}
    trusted = bundled or is_of_run(path, header.config)
    return replace(checkpoint_from_tensors(path, header, tensors), guide=guide, trusted=trusted)


def checkpoint_from_tensors(
    path: Path, header: Header, tensors: Mapping[str, Tensor]
) -> Checkpoint:
    """Return the network of the file at `path` that a header describes, for use. Raise UserError
    where the weights are not those of it, or no numbers."""
    net, diffusion = network_from_tensors(path, header.config, header.data, tensors)
    require_finite(path, net.state_dict())
    return Checkpoint(
        net.eval().requires_grad_(False),
        diffusion,
        header.config,
        header.data,
        header.step,
        header.images_seen,
        header.weights,
    )


def is_of_run(path: Path, config: Config) -> bool:
    """Return whether beside a checkpoint lie a run's settings, with the names of data that are in
    its own, and it is not as `ddpm publish` made it of somebody's run."""
    if (path.parent / "model_index.json").exists():
        return False
    try:
        given = read_toml(RunDir(path.parent).config)
    except UserError:
        return False
    return (given.data, given.root) == (config.data, config.root)


def network_from_tensors(
    path: Path, config: Config, data: DataInfo, tensors: Mapping[str, Tensor], augment_dim: int = 0
) -> tuple[UNet, Diffusion]:
    """Return the network with the weights of the file at `path`, and the diffusion, as `build`
    does. Raise UserError where the weights are not those that the config describes."""
    with config_errors(str(path)):
        diffusion = build_diffusion(config)
    u = config.unet
    try:
        if len(u.mults) * (2 * u.blocks + 1) > len(tensors):  # each block has several
            raise ValueError("there are fewer weights than blocks")
        with torch.device("meta"):  # no memory is taken before the weights are known to fit
            net = build_net(config, data, augment_dim)
        net.load_state_dict(require_real(tensors), assign=True)
    except (RuntimeError, ValueError, TypeError):
        raise UserError(f"{path} is damaged: its weights do not fit its own config") from None
    return net.float(), diffusion


def load_initial(net: UNet, data: DataInfo, path: str, config: Config | None = None) -> None:
    """Set the weights of `net`, which the config describes, to those of the checkpoint that `path`
    names: one of ours, a folder of diffusers, or a .pt file that is read.

    A note says what is new: the embedding of the classes where these are others, the layers that
    meet the image where it has other channels or patches, a stage at full resolution, and the
    process that the weights were trained for. Raise UserError where the networks differ in
    anything else.
    """
    from .foreign import load_any

    given = load_any(path, (data.height, data.width))
    own, weights = net.state_dict(), given.net.state_dict()
    if given.data.classes != data.classes:
        weights.pop("label.weight", None)
    kept = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    new = {name.split(".")[0] for name in own.keys() - kept.keys()}
    alike = attrgetter("heads", "groups", "conventions")  # which no shape tells
    others = config and alike(config.unet) != alike(given.config.unet)
    if others or new - MADE_ANEW.keys() or weights.keys() - own.keys():
        raise UserError(
            f"this run cannot begin with the weights of {path}, which are of another network: "
            f"give the --unet settings that it was trained with"
        )
    net.load_state_dict(own | kept)
    parts = [text for name, text in MADE_ANEW.items() if name in new]
    if given.data.classes and not data.classes:
        parts.append("no classes any more")
    process = given.config.diffusion
    if config and (config.diffusion.schedule, config.diffusion.target) != (
        process.schedule, process.target,
    ):  # fmt: skip
        parts.append(f"another process than {process.schedule} with the target {process.target}")
    logger.info(
        "beginning from the weights of %s, of %dx%d images; new: %s",
        path, given.data.width, given.data.height, ", ".join(dict.fromkeys(parts)) or "nothing",
    )  # fmt: skip


def average_note(step: int, decay: float) -> str | None:
    """Return a note on averaged weights of so early a step that the average is still short; None
    where it has its full length, or where `step` is 0, for unknown."""
    full, length = 1 / (1 - decay), 1 / (1 - warm_decay(decay, step))
    if step == 0 or step >= full:
        return None
    return (
        f"these weights are of step {step:,} and average {counted(round(length), 'step')}; in a "
        f"longer run they average {full:,.0f}, and give better images"
    )


def without_guide(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint for a format that has no room for a guide, sampled without one; a note
    says so."""
    if checkpoint.guide is None:
        return checkpoint
    logger.info(
        "the guide of these weights is left out: what is written makes the images of --guidance 1"
    )
    c = checkpoint
    sample = replace(c.config.sample, guidance=1.0, guidance_above=0.0, guidance_below=1.0)
    return replace(c, guide=None, config=replace(c.config, sample=sample))


def without_paths(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint without the names of folders of this machine."""
    c = checkpoint

    def last(name: str) -> str:
        on_hub = re.fullmatch(r"hf:[\w.-]+(/[\w.-]+)?(:[^:/\\]+)?", name)
        return name if on_hub else re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name

    config = replace(c.config, data=last(c.config.data), root="data", init=last(c.config.init))
    return replace(c, config=config, data=replace(c.data, source=last(c.data.source)))
