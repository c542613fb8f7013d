"""Files of PyTorch that other programs wrote: two are read, and of the others it is told what they
are. Only tensors and plain tables are unpickled, which runs nothing.

Read are the networks of improved-diffusion (Nichol and Dhariwal 2021) and of w86763777's
pytorch-ddpm. Such a file does not say how its network is to be used: their programs' defaults are
taken, or a Recipe says it.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import (
    Config,
    DataInfo,
    DiffusionConfig,
    SampleConfig,
    Steps,
    UNetConfig,
    Width,
    short,
    validated,
)
from ..core.types import ScheduleName, Target
from ..core.unet import UNet
from ..utils.errors import UserError, counted
from .checkpoint import Checkpoint, checkpoint_from_tensors, load
from .diffusers import read_diffusers
from .header import FOREIGN, PRETRAINED, VERSION, Header, is_whole
from .layouts import (
    IMPROVED_DIFFUSION,
    LABELS,
    PYTORCH_DDPM,
    Layout,
    from_layout,
    with_null_label,
)
from .run_dir import inspect_run, is_diffusers
from .tensors import require_real

ZIP = b"PK\x03\x04"  # how a file of torch.save begins, since torch 1.6
MAX_BLOCKS = 500
GROUPS = 32  # of both programs' norms
SIDES = {(1, 2, 2, 2): 32, (1, 2, 3, 4): 64, (1, 1, 2, 2, 4, 4): 256}  # improved-diffusion's
TABLE = "time_embedding.timembedding.0.weight"  # pytorch-ddpm's embedding of each time
# What programs of others save, known by keys that they have in common.
KNOWN = {
    ("pytorch-lightning_version",): "a training state of PyTorch Lightning",
    ("step", "model", "opt", "ema"): "a training state of denoising-diffusion-pytorch (lucidrains)",
    ("state", "param_groups"): "the state of an optimizer; the weights lie in another file",
    ("temb.dense.0.weight", "conv_in.weight"): "a network of pesser/pytorch_diffusion",
    ("time_embedding.linear_1.weight", "conv_in.weight"): (
        "the weights of a UNet2DModel of diffusers: convert its folder, with its configs"
    ),
    ("all_modules.0.weight",): "a network of score_sde (Song et al.)",
    ("optimizer", "model"): "a training state",
    ("state_dict",): "a training state",
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How a network that does not say it is to be used; None where its program's default holds.

    side      of its images, height and width
    heads     of attention, improved-diffusion alone: 4
    schedule  linear
    T         times that it was trained with: 1000
    target    what it predicts: eps
    """

    side: tuple[Width, ...] = ()
    heads: Width | None = None
    schedule: ScheduleName | None = None
    T: Steps | None = None
    target: Target | None = None


def is_foreign(path: Path) -> bool:
    """Return whether this is a file, by its ending or its contents, that torch.save may have
    written."""
    return path.is_file() and (path.suffix.lower() in FOREIGN or first_bytes(path) == ZIP)


def holds_diffusers_alone(path: Path) -> bool:
    """Return whether this is a folder of diffusers without weights of ours, which publish puts
    beside."""
    return is_diffusers(path) and inspect_run(path).model is None


def load_any(name: str, side: tuple[int, ...] = (32,)) -> Checkpoint:
    """Return the checkpoint that a name means, of ours or of another program; `side` is of its
    images, where it does not say it. Raise UserError as the functions that read them do."""
    path = Path(name)
    if name not in PRETRAINED:
        if is_foreign(path):
            return read_foreign(path, Recipe(side))
        if holds_diffusers_alone(path):
            return read_diffusers(path)
    return load(name)


def read_foreign(path: Path, recipe: Recipe = Recipe()) -> Checkpoint:
    """Return the network in a file of improved-diffusion or pytorch-ddpm. Raise UserError that says
    what it is where it is another one, or where the recipe does not fit it."""
    stored = read_pickle(path)
    if not isinstance(stored, Mapping):
        raise unreadable(path, f"it holds {describe(stored)}")
    side = tuple(recipe.side) * 2 if len(recipe.side) == 1 else tuple(recipe.side)
    if "ema_model" in stored and "net_model" in stored:
        x = stored.get("x_T")
        if not side and isinstance(x, Tensor) and x.ndim == 4:
            side = tuple(x.shape[-2:])
        stored = stored["ema_model"]
        if not isinstance(stored, Mapping):
            raise unreadable(path, f"its ema_model holds {describe(stored)}")
    tensors = {k: v for k, v in stored.items() if isinstance(v, Tensor)}
    check_sizes(path, tensors)
    if len(tensors) == len(stored) and "input_blocks.0.0.weight" in tensors:
        layout, heads = IMPROVED_DIFFUSION, recipe.heads or 4
    elif len(tensors) == len(stored) and TABLE in tensors:
        layout, heads = PYTORCH_DDPM, 1
        if recipe.heads not in (None, 1):
            raise UserError(f"the network in {path} has one attention head: leave out --heads")
    else:
        raise unreadable(path, what_it_is(stored))
    try:
        return checkpoint_of(path, tensors, layout, heads, side, recipe)
    except (LookupError, RuntimeError, TypeError, ValueError, ArithmeticError):
        raise unreadable(path, f"its names are those of {name_of(layout)}, but not all") from None


def name_of(layout: Layout) -> str:
    return "improved-diffusion" if layout is IMPROVED_DIFFUSION else "pytorch-ddpm"


def checkpoint_of(
    path: Path, tensors: dict[str, Tensor], layout: Layout, heads: int, side: tuple[int, ...],
    recipe: Recipe,
) -> Checkpoint:  # fmt: skip
    """Return the network of these weights. Raise LookupError or RuntimeError where they are not all
    of one network of this layout."""
    tensors = dict(require_real(tensors))
    unet = validated(UNetConfig, unet_settings(tensors, layout, heads), str(path))
    last = f"{layout.others['conv_out']}.weight"
    colours = tensors[f"{layout.others['conv_in']}.weight"].shape[1]
    if tensors[last].shape[0] == 2 * colours:  # the others are variances that it has learned
        for name in (last, last.replace("weight", "bias")):
            tensors = tensors | {name: tensors[name][:colours]}
    if TABLE in tensors:  # it has a row for each time
        T = len(tensors[TABLE])
        if recipe.T not in (None, T):
            raise UserError(
                f"{path} was trained with {T} times, not with {recipe.T}: leave out --T"
            )
        recipe = replace(recipe, T=T)
    config, later = process_of(path, unet, layout, recipe)
    ours = from_layout(tensors, unet, layout, later)
    if {k: v.shape for k, v in ours.items() if k != LABELS} != shapes_of(unet, colours):
        raise LookupError("they are of another network")
    used = sum(t.numel() for t in ours.values()) + (
        tensors[TABLE].numel() if TABLE in tensors else 0
    )
    if used != sum(t.numel() for t in tensors.values()):
        raise LookupError("it has weights that the layout has no place for")
    side = side or (SIDES.get(unet.mults, 0),) * 2
    if len(side) != 2 or not all(side):
        raise UserError(f"{path} does not say how large its images are: give --size")
    if LABELS in ours:
        ours = with_null_label(ours)
    classes = tuple(map(str, range(len(ours[LABELS]) - 1))) if LABELS in ours else ()
    info = DataInfo(path.name, 1, colours, *side, classes, "")
    data = validated(DataInfo, asdict(info), str(path))
    return checkpoint_from_tensors(path, Header(VERSION, "as given", 0, 0, data, config), ours)


def shapes_of(unet: UNetConfig, colours: int) -> dict[str, torch.Size]:
    with torch.device("meta"):
        net = UNet(colours, **asdict(unet))
    return {name: tensor.shape for name, tensor in net.state_dict().items()}


def process_of(
    path: Path, unet: UNetConfig, layout: Layout, recipe: Recipe
) -> tuple[Config, float]:
    """Return the config, and by how much their time is behind ours.

    improved-diffusion tells its network t · 1000/T, whatever T is. Its cosine schedule is a
    function of t/T alone: at every fourth of 4,000 times it is that of 1,000.
    """
    T, schedule = recipe.T or 1000, recipe.schedule or "linear"
    later = 1.0
    if T != 1000:
        if layout is not IMPROVED_DIFFUSION or schedule != "cosine":
            raise UserError(
                f"{path}: of {name_of(layout)} networks of {T} times are read with the cosine "
                f"schedule alone, and improved-diffusion's; this one's is {schedule}"
            )
        T, later = 1000, 1000 / T
    diffusion = DiffusionConfig(schedule, T, recipe.target or "eps")
    sample = SampleConfig("ddpm", steps=T, variance="beta")
    return Config(unet=unet, diffusion=diffusion, sample=sample), later


def unet_settings(tensors: Mapping[str, Tensor], layout: Layout, heads: int) -> dict[str, Any]:
    """Return the settings of our U-Net that has these weights, as far as its way down tells."""
    channels = len(tensors[f"{layout.others['conv_in']}.weight"])
    conv, project = (f"{layout.block[name]}.weight" for name in ("conv1", "norm2.project"))
    qkv = f"{layout.attention['qkv'][0]}.weight"
    levels: list[list[int]] = [[]]
    attention, film = set(), False
    for k in range(MAX_BLOCKS):
        place = {"k": k, "m": k + 1}
        res = layout.down.format(**place)
        if f"{layout.halve.format(**place)}.weight" in tensors:
            levels.append([])
        elif (name := f"{res}.{conv}") in tensors:
            width = len(tensors[name])
            levels[-1].append(width)
            film = len(tensors[f"{res}.{project}"]) == 2 * width
            if f"{layout.down_attention.format(**place)}.{qkv}" in tensors:
                attention.add(2 ** (len(levels) - 1))
        else:
            break
    if not all(levels) or len({len(level) for level in levels}) > 1:
        raise LookupError("its levels have different numbers of blocks")
    if any(width % channels for level in levels for width in level):
        raise LookupError("its widths are not multiples of the first")
    return {
        "channels": channels, "mults": [level[0] // channels for level in levels],
        "blocks": len(levels[0]), "attention": sorted(attention), "heads": heads,
        "groups": GROUPS, "film": film, "conventions": "improved-diffusion",
    }  # fmt: skip


def first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def read_pickle(path: Path) -> Any:
    """Return what torch.save wrote, of tensors and plain tables alone. Raise UserError for what is
    not that."""
    start = first_bytes(path)
    zipped = start == ZIP
    if is_whole(path):
        raise unreadable(path, "it is a safetensors file: end its name in .safetensors")
    if not zipped and start[:1] != b"\x80":
        raise unreadable(path, "it is not a PyTorch file")
    try:
        with warnings.catch_warnings(action="ignore"):  # on what the file may be
            return torch.load(path, "cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # of any kind: the file says what is done with it
        text = str(error)
        if "TorchScript" in text:
            raise unreadable(path, "it is a program of TorchScript") from None
        if found := re.search(r"GLOBAL (\S+)", text):
            raise unreadable(
                path, f"it holds more than tensors, {found[1]}, which could run anything"
            ) from None
        raise unreadable(path, "it is damaged, or not a PyTorch file") from None


def check_sizes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError for tensors of more elements than the file has bytes for."""
    size = path.stat().st_size
    if any(t.layout != torch.strided or t.numel() > size for t in tensors.values()):
        raise unreadable(path, "it has tensors that are larger than the file")


def what_it_is(stored: Mapping[Any, Any]) -> str:
    """Return what a table is, as far as its keys tell."""
    keys = [str(key) for key in stored]
    for known, what in KNOWN.items():
        if set(known) <= set(keys):
            return f"it is {what}"
    tensors = sum(isinstance(value, Tensor) for value in stored.values())
    if tensors == len(keys) and keys:
        n = counted(tensors, "tensor")
        return f"it is the weights of another network: {n}, {short(keys[:3])} …"
    return f"it is a table of {short(keys[:8])}"


def describe(value: Any) -> str:
    return f"one tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else (
        f"a {type(value).__name__}"
    )  # fmt: skip


def unreadable(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} is not read: {what}. Read are checkpoints of ddpm, folders of diffusers, and .pt "
        f"files of improved-diffusion and pytorch-ddpm"
    )
