"""Checkpoints as folders that diffusers loads as a DDPMPipeline, and back. It is not needed here.

Our U-Net and a `UNet2DModel` are the same function under other names, but for time: ours is 1 … T,
theirs 0 … T − 1. As sin and cos of (t + 1) ω are those of t ω rotated by ω, a rotation of the first
linear layer of the time embedding makes up for it exactly.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from ..config import (
    Below1,
    Config,
    Count,
    DataInfo,
    DiffusionConfig,
    Few,
    SampleConfig,
    Steps,
    UNetConfig,
    Width,
    short,
    validated,
)
from ..core.schedule import SCHEDULES
from ..utils.errors import UserError
from ..utils.files import atomic_write, read_text, require_writable
from .checkpoint import Checkpoint, Header, rebuild
from .tensors import VERSION, as_os_error, read_tensors, renamed_header

DIFFUSERS = "0.31.0"  # the oldest whose configs are written here
WEIGHTS = "diffusion_pytorch_model.safetensors"
TARGETS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
VARIANCES = {"beta": "fixed_large", "beta-tilde": "fixed_small"}
SCHEDULE_NAMES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
Fixed = dict[str, tuple[Any, tuple[Any, ...]]]
# What a UNet2DModel must have to be one of ours: diffusers' default, and what is allowed.
FIXED_UNET: Fixed = {
    "_class_name": ("UNet2DModel", ("UNet2DModel",)), "act_fn": ("silu", ("silu", "swish")),
    "add_attention": (True, (True,)), "center_input_sample": (False, (False,)),
    "class_embed_type": (None, (None,)), "downsample_type": ("conv", ("conv",)),
    "upsample_type": ("conv", ("conv",)), "mid_block_scale_factor": (1, (1, 1.0)),
    "mid_block_type": ("UNetMidBlock2D", ("UNetMidBlock2D",)),
    "time_embedding_type": ("positional", ("positional",)), "time_embedding_dim": (None, (None,)),
    "downsample_padding": (1, (0,)), "flip_sin_to_cos": (True, (False,)), "freq_shift": (0, (1,)),
    "norm_eps": (1e-5, (1e-6,)),
}  # fmt: skip
# The same of a scheduler; a DDIMScheduler has the same process as a DDPMScheduler.
FIXED_SCHEDULER: Fixed = {
    "_class_name": ("DDPMScheduler", ("DDPMScheduler", "DDIMScheduler")),
    "rescale_betas_zero_snr": (False, (False,)), "clip_sample": (True, (True,)),
    "clip_sample_range": (1.0, (1.0,)), "thresholding": (False, (False,)),
}  # fmt: skip
# The attention layers' names before diffusers 0.18.
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
MAX_BYTES = 10_000_000  # of a file of settings, which may list 100,000 betas


@dataclass(frozen=True)
class UNet2DConfig:
    """What is read of the config of a UNet2DModel, with diffusers' defaults."""

    sample_size: Width | tuple[Width, Width] | None = None
    in_channels: Width = 3
    out_channels: Width = 3
    block_out_channels: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] = (
        224, 448, 672, 896,
    )  # fmt: skip
    layers_per_block: Few = 2
    down_block_types: tuple[str, ...] = ()
    up_block_types: tuple[str, ...] = ()
    attention_head_dim: Width | None = 8
    norm_num_groups: Width = 32
    attn_norm_num_groups: Width | None = None
    dropout: Below1 = 0.0
    resnet_time_scale_shift: str = "default"
    num_class_embeds: Annotated[int, Field(ge=0, le=100_000)] | None = None


@dataclass(frozen=True)
class SchedulerConfig:
    """What is read of the config of a DDPMScheduler, with diffusers' defaults."""

    num_train_timesteps: Steps = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str = "epsilon"
    variance_type: str = "fixed_small"


# ---- names -----------------------------------------------------------------------------------


def modules(c: UNetConfig) -> Iterator[tuple[str, ...]]:
    """Yield (our name, theirs) of each module with a weight and a bias; of q, k and v, one module
    of ours, all three of theirs."""

    def block(ours: str, theirs: str, j: int, attends: bool, skip: bool) -> Iterator[Any]:
        res, at = f"{theirs}.resnets.{j}", f"{theirs}.attentions.{j}"
        yield f"{ours}.res.norm1", f"{res}.norm1"
        yield f"{ours}.res.conv1", f"{res}.conv1"
        yield f"{ours}.res.norm2.project", f"{res}.time_emb_proj"
        yield f"{ours}.res.norm2.norm", f"{res}.norm2"
        yield f"{ours}.res.conv2", f"{res}.conv2"
        if skip:
            yield f"{ours}.res.skip", f"{res}.conv_shortcut"
        if attends:
            yield f"{ours}.attention.norm", f"{at}.group_norm"
            yield f"{ours}.attention.qkv", f"{at}.to_q", f"{at}.to_k", f"{at}.to_v"
            yield f"{ours}.attention.out", f"{at}.to_out.0"

    yield "time.0", "time_embedding.linear_1"
    yield "time.2", "time_embedding.linear_2"
    yield "conv_in", "conv_in"
    levels, attends = len(c.mults), [c.patch * 2**i in c.attention for i in range(len(c.mults))]
    k, width, skips = 0, 1, [1]  # in multiples of c.channels
    for i, mult in enumerate(c.mults):
        for j in range(c.blocks):
            yield from block(f"down.{k}", f"down_blocks.{i}", j, attends[i], width != mult)
            k, width = k + 1, mult
            skips.append(width)
        if i < levels - 1:
            yield f"down.{k}.conv", f"down_blocks.{i}.downsamplers.0.conv"
            k += 1
            skips.append(width)
    yield from block("mid.0", "mid_block", 0, True, False)
    yield from block("mid.1", "mid_block", 1, False, False)
    k = 0
    for i, mult in enumerate(reversed(c.mults)):
        for j in range(c.blocks + 1):
            skip = width + skips.pop() != mult
            yield from block(f"up.{k}", f"up_blocks.{i}", j, attends[levels - 1 - i], skip)
            k, width = k + 1, mult
        if i < levels - 1:
            yield f"up.{k}.conv", f"up_blocks.{i}.upsamplers.0.conv"
            k += 1
    yield "norm_out", "conv_norm_out"
    yield "conv_out", "conv_out"


def to_diffusers(tensors: dict[str, Tensor], c: UNetConfig) -> dict[str, Tensor]:
    """Return the weights of a U-Net under diffusers' names; 1x1 convolutions become linear."""
    out = {}
    for ours, *theirs in modules(c):
        for part in ("weight", "bias"):
            tensor = tensors[f"{ours}.{part}"]
            if ".attention." in ours and tensor.ndim == 4:
                tensor = tensor.flatten(1)
            for name, piece in zip(theirs, tensor.chunk(len(theirs)), strict=True):
                out[f"{name}.{part}"] = piece
    if "label.weight" in tensors:
        out["class_embedding.weight"] = tensors["label.weight"]
    first = "time_embedding.linear_1.weight"
    out[first] = shift_time(out[first], +1)
    return {name: tensor.contiguous() for name, tensor in out.items()}


def from_diffusers(tensors: dict[str, Tensor], c: UNetConfig) -> dict[str, Tensor]:
    """Return the weights of a UNet2DModel under our names."""
    for old, new in OLD_NAMES.items():
        tensors = {name.replace(f".{old}.", f".{new}."): t for name, t in tensors.items()}
    out = {}
    for ours, *theirs in modules(c):
        for part in ("weight", "bias"):
            tensor = torch.cat([tensors[f"{name}.{part}"] for name in theirs])
            if ".attention." in ours and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
            out[f"{ours}.{part}"] = tensor
    if "class_embedding.weight" in tensors:
        out["label.weight"] = tensors["class_embedding.weight"]
    out["time.0.weight"] = shift_time(out["time.0.weight"], -1)
    return out


def shift_time(weight: Tensor, by: int) -> Tensor:
    """Return W′ with W′ E(t) = W E(t + by), where E(t) = [sin t ω_i …, cos t ω_i …]."""
    half = weight.shape[1] // 2
    i = torch.arange(half, dtype=torch.float64)
    omega = by * torch.exp(-math.log(10_000.0) / (half - 1) * i)
    of_sin, of_cos = weight.double().chunk(2, dim=1)
    new_sin = of_sin * omega.cos() - of_cos * omega.sin()
    new_cos = of_sin * omega.sin() + of_cos * omega.cos()
    return torch.cat([new_sin, new_cos], dim=1).to(weight.dtype)


# ---- writing ---------------------------------------------------------------------------------


def write_diffusers(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a folder, new or empty, that `DDPMPipeline.from_pretrained` loads.

    Raise UserError for a network that a UNet2DModel cannot be.
    """
    unet, scheduler = unet_table(checkpoint), scheduler_table(checkpoint)
    if any(not path.is_dir() for path in (folder, *folder.rglob("*")) if path.exists()):
        raise UserError(f"{folder} is there already: name a folder that is new or empty")
    require_writable(folder / "unet")
    require_writable(folder / "scheduler")
    c = checkpoint
    header = Header(VERSION, c.weights, c.step, c.images_seen, c.data, c.config)
    about = {"format": "pt", "ddpm": json.dumps(asdict(header))}
    state = {name: t.detach().cpu() for name, t in c.net.state_dict().items()}
    with atomic_write(folder / "unet" / WEIGHTS) as beside, as_os_error(folder):
        save_file(to_diffusers(state, c.config.unet), beside, metadata=about)
    index = {
        "_class_name": "DDPMPipeline", "_diffusers_version": DIFFUSERS,
        "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"],
    }  # fmt: skip
    files = {"unet/config": unet, "scheduler/scheduler_config": scheduler, "model_index": index}
    for name, table in files.items():
        with atomic_write(folder / f"{name}.json") as beside:
            beside.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def unet_table(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the config of a UNet2DModel."""
    c, data = checkpoint.config.unet, checkpoint.data
    if c.patch > 1:
        raise UserError(
            f"this network folds pixels in patches of {c.patch}, which diffusers' UNet2DModel does "
            f"not do; one trained with --unet.patch 1 can be converted"
        )
    if c.fine:
        raise UserError("a UNet2DModel has no stage at full resolution, and this network has one")
    halvings = 2 ** (len(c.mults) - 1)
    if data.height % halvings or data.width % halvings:
        raise UserError(
            f"a UNet2DModel of {len(c.mults)} levels takes images whose sides can be divided by "
            f"{halvings}, and these are {data.width}x{data.height}"
        )
    if c.mults[0] != 1:
        raise UserError("a UNet2DModel's first level is as wide as its first convolution: mults 1")
    widths = [c.channels * m for m in c.mults]
    attends = [2**i in c.attention for i in range(len(widths))]
    with_attention = {w for w, a in zip(widths, attends, strict=True) if a} | {widths[-1]}
    if c.heads > 1 and len(with_attention) > 1:
        raise UserError("diffusers gives all attention heads one width; here they have several")
    down = ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends]
    up = ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)]
    side: Any = data.height if data.height == data.width else [data.height, data.width]
    return {
        **{name: allowed[0] for name, (_, allowed) in FIXED_UNET.items()},
        "_diffusers_version": DIFFUSERS,
        "sample_size": side, "in_channels": data.channels, "out_channels": data.channels,
        "block_out_channels": widths, "layers_per_block": c.blocks, "dropout": c.dropout,
        "down_block_types": down, "up_block_types": up,
        "attention_head_dim": widths[-1] // c.heads if c.heads > 1 else None,
        "norm_num_groups": c.groups, "attn_norm_num_groups": c.groups if c.film else None,
        "resnet_time_scale_shift": "scale_shift" if c.film else "default",
        "num_class_embeds": len(data.classes) + 1 if data.classes else None,
    }  # fmt: skip


def scheduler_table(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the config of a DDPMScheduler."""
    d, alpha_bar = checkpoint.config.diffusion, checkpoint.diffusion.schedule.alpha_bar.double()
    named = d.schedule == "cosine" or d.schedule == "linear" and d.T == 1000
    betas = None if named else (1 - alpha_bar[1:] / alpha_bar[:-1]).tolist()
    return {
        **{name: allowed[0] for name, (_, allowed) in FIXED_SCHEDULER.items()},
        "_diffusers_version": DIFFUSERS,
        "num_train_timesteps": d.T, "beta_start": 1e-4, "beta_end": 0.02,
        "beta_schedule": SCHEDULE_NAMES.get(d.schedule, "linear"), "trained_betas": betas,
        "prediction_type": TARGETS[d.target],
        "variance_type": VARIANCES[checkpoint.config.sample.variance],
    }  # fmt: skip


# ---- reading ---------------------------------------------------------------------------------


def is_diffusers(path: Path) -> bool:
    """Return whether this is a folder that diffusers wrote."""
    return any((path / name).is_file() for name in ("model_index.json", "config.json"))


def read_diffusers(folder: Path) -> Checkpoint:
    """Return the checkpoint in a folder of a DDPMPipeline, or one that `write_diffusers` wrote.

    Raise UserError where it is damaged, or a network that our U-Net cannot be.
    """
    parts = folder / "unet", folder / "scheduler"
    unet, process = (part if part.is_dir() else folder for part in parts)
    model, path = read_json(unet / "config.json"), unet / WEIGHTS
    scheduler = read_json(process / "scheduler_config.json")
    if not path.is_file():
        raise UserError(
            f"there is no {WEIGHTS} in {unet}; a .bin file is a pickle, which could run anything: "
            f"load and save it with diffusers, which writes safetensors"
        )
    tensors, about = read_tensors(path)
    header = read_header(about["ddpm"], path) if about.get("ddpm") else None
    config, data = read_config(model, scheduler, folder.name)
    if header:  # written by us: the header has what diffusers' configs lack
        config, data = replace(header.config, unet=config.unet), header.data
    try:
        ours = from_diffusers(tensors, config.unet)
        if data.classes and not header:  # add a row for no class, which it never learned
            label = ours["label.weight"]
            ours["label.weight"] = torch.cat([label, label.mean(0, keepdim=True)])
    except (RuntimeError, LookupError, ArithmeticError):  # tensors of other names or shapes
        raise UserError(f"{path} is damaged: its weights do not fit its own config") from None
    net, diffusion = rebuild(path, config, data, ours)
    made = Checkpoint(net.eval().requires_grad_(False), diffusion, config, data, 0, 0, "as given")
    if not header:
        return made
    return replace(made, step=header.step, images_seen=header.images_seen, weights=header.weights)


def read_header(text: str, path: Path) -> Header:
    try:
        return validated(Header, renamed_header(json.loads(text)), f"{path} has a damaged header")
    except (ValueError, RecursionError):
        raise UserError(f"{path} has a damaged header: it is not JSON") from None


def read_config(
    model: dict[str, Any], scheduler: dict[str, Any], name: str
) -> tuple[Config, DataInfo]:
    """Return our config for theirs. Raise UserError, naming the setting, if there is none."""
    check_fixed(model, FIXED_UNET, f"{name}: a network")
    check_fixed(scheduler, FIXED_SCHEDULER, f"{name}: a scheduler")
    net = validated(UNet2DConfig, model, name)
    process = validated(SchedulerConfig, scheduler, name)
    config = Config(
        unet=validated(UNetConfig, unet_settings(net, name), name),
        diffusion=read_diffusion(process, name),
        sample=SampleConfig(
            sampler="ddpm",
            steps=process.num_train_timesteps,
            variance=look_up(VARIANCES, process.variance_type, name),
        ),
    )
    side = net.sample_size or 1
    height, width = side if isinstance(side, tuple) else (side, side)
    classes = tuple(map(str, range(net.num_class_embeds or 0)))
    return config, DataInfo(name, 1, net.in_channels, height, width, classes, "")


def check_fixed(table: dict[str, Any], fixed: Fixed, what: str) -> None:
    for key, (default, allowed) in fixed.items():
        if (value := table.get(key, default)) not in allowed:
            raise UserError(f"{what} with {key} = {short(value)} is not one of ours")


def unet_settings(net: UNet2DConfig, name: str) -> dict[str, Any]:
    """Return the settings of our U-Net. Raise UserError, naming the setting, if there are none."""
    widths, down, up = net.block_out_channels, net.down_block_types, net.up_block_types
    attends = [kind == "AttnDownBlock2D" for kind in down]
    known = {"AttnDownBlock2D", "DownBlock2D", "AttnUpBlock2D", "UpBlock2D"}
    head, film = net.attention_head_dim, net.resnet_time_scale_shift == "scale_shift"
    with_attention = [w for w, a in zip(widths, attends, strict=False) if a] + [widths[-1]]
    heads = {w // head if head else 1 for w in with_attention}
    unfit = {
        "out_channels": net.out_channels != net.in_channels,
        "down_block_types": not set(down) | set(up) <= known or len(down) != len(widths),
        "up_block_types": [kind == "AttnUpBlock2D" for kind in reversed(up)] != attends,
        "block_out_channels": any(w % widths[0] for w in widths),
        "attention_head_dim": len(heads) > 1,
        "resnet_time_scale_shift": net.resnet_time_scale_shift not in ("default", "scale_shift"),
        "attn_norm_num_groups": film and net.attn_norm_num_groups != net.norm_num_groups,
        "sample_size": net.sample_size is None,
    }
    for key, value in ((key, getattr(net, key)) for key in unfit if unfit[key]):
        raise UserError(f"{name}: a network with {key} = {short(value)} is not one of ours")
    return {
        "channels": widths[0], "mults": [w // widths[0] for w in widths],
        "blocks": net.layers_per_block, "heads": heads.pop(), "groups": net.norm_num_groups,
        "attention": [2**i for i, a in enumerate(attends) if a],
        "dropout": net.dropout, "film": film,
    }  # fmt: skip


def read_diffusion(process: SchedulerConfig, name: str) -> DiffusionConfig:
    """Return the schedule of ours that has the same ᾱ, to 1e-4, and what the network predicts."""
    T, kind = process.num_train_timesteps, process.beta_schedule
    first, last = process.beta_start, process.beta_end
    target = look_up(TARGETS, process.prediction_type, name)
    for ours, make in SCHEDULES.items():
        alpha_bar = make(T).alpha_bar[1:]
        if process.trained_betas is not None:
            theirs = (1 - torch.tensor(process.trained_betas)).cumprod(0)
        elif kind == "linear":
            theirs = (1 - torch.linspace(first, last, T)).cumprod(0)
        elif kind == SCHEDULE_NAMES.get(ours):
            theirs = alpha_bar
        else:
            continue
        if theirs.shape == alpha_bar.shape and (theirs - alpha_bar).abs().max() < 1e-4:
            return validated(DiffusionConfig, {"schedule": ours, "T": T, "target": target}, name)
    raise UserError(f"{name}: its schedule, {kind} from {first} to {last}, is none of ours")


def look_up(names: dict[str, str], theirs: str, where: str) -> Any:
    """Return our name for one of diffusers'."""
    if theirs not in names.values():
        raise UserError(f"{where}: {short(theirs)} is not {' or '.join(names.values())}")
    return next(ours for ours, name in names.items() if name == theirs)


def read_json(path: Path) -> dict[str, Any]:
    try:
        if not isinstance(table := json.loads(read_text(path, MAX_BYTES)), dict):
            raise ValueError("it is not a table")
        return table
    except FileNotFoundError:
        raise UserError(f"there is no {path}: is this a folder that diffusers wrote?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
