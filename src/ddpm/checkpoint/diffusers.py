"""To and from diffusers: a folder that it loads as a DDPMPipeline, and back. It is not needed here.

A U-Net of ours and a `UNet2DModel` are the same function under other names, but for time: ours runs
1 … T, theirs 0 … T − 1. sin and cos of (t + 1) ω are those of t ω turned by ω, so the first linear
layer of the time embedding takes up the difference, exactly.
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
from .tensors import VERSION, read_tensors, renamed_header

DIFFUSERS = "0.31.0"  # the oldest whose configs are written here
WEIGHTS = "diffusion_pytorch_model.safetensors"
TARGETS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
VARIANCES = {"beta": "fixed_large", "beta-tilde": "fixed_small"}
SCHEDULE_NAMES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
# What a UNet2DModel must be to be one of ours; where its config says nothing, it is the first.
FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"), "add_attention": (True,), "center_input_sample": (False,),
    "class_embed_type": (None,), "downsample_type": ("conv",), "upsample_type": ("conv",),
    "mid_block_scale_factor": (1, 1.0), "mid_block_type": ("UNetMidBlock2D",),
    "time_embedding_type": ("positional",), "time_embedding_dim": (None,),
}  # fmt: skip
# The same of a scheduler; a DDIMScheduler's process is a DDPMScheduler's.
FIXED_PROCESS: dict[str, tuple[Any, ...]] = {
    "_class_name": ("DDPMScheduler", "DDIMScheduler"), "rescale_betas_zero_snr": (False,),
    "clip_sample": (True,), "clip_sample_range": (1, 1.0), "thresholding": (False,),
}  # fmt: skip
MAX_BYTES = 10_000_000  # of a file of settings, which may list 100,000 betas


@dataclass(frozen=True)
class TheirUNet:
    """What is read of the config of a UNet2DModel; what it leaves out is what diffusers takes."""

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
class TheirScheduler:
    """The same of a DDPMScheduler."""

    num_train_timesteps: Steps = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str = "epsilon"
    variance_type: str = "fixed_small"


# ---- names -----------------------------------------------------------------------------------


def modules(c: UNetConfig) -> Iterator[tuple[str, str]]:
    """(our module, theirs) for each that has a weight and a bias, but for q, k and v."""

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


def to_theirs(tensors: dict[str, Tensor], c: UNetConfig) -> dict[str, Tensor]:
    """The weights of a U-Net under their names."""
    out = {}
    for ours, theirs in modules(c):
        for part in ("weight", "bias"):
            tensor = tensors[f"{ours}.{part}"]
            out[f"{theirs}.{part}"] = linear(tensor) if theirs.endswith("to_out.0") else tensor
        if ours.endswith("attention.norm"):
            for part in ("weight", "bias"):
                qkv = linear(tensors[f"{ours.removesuffix('norm')}qkv.{part}"])
                for name, tensor in zip(("to_q", "to_k", "to_v"), qkv.chunk(3), strict=True):
                    out[f"{theirs.removesuffix('group_norm')}{name}.{part}"] = tensor
    if "label.weight" in tensors:
        out["class_embedding.weight"] = tensors["label.weight"]
    first = "time_embedding.linear_1.weight"
    out[first] = turn(out[first], +1)
    return {name: tensor.contiguous() for name, tensor in out.items()}


def to_ours(tensors: dict[str, Tensor], c: UNetConfig) -> dict[str, Tensor]:
    """The reverse; q, k, v and out may have the names they had before diffusers 0.18."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def get(module: str, part: str) -> Tensor:
        for new, was in old.items():
            if module.endswith(new) and f"{module}.{part}" not in tensors:
                module = module.removesuffix(new) + was
        return tensors[f"{module}.{part}"]

    out = {}
    for ours, theirs in modules(c):
        for part in ("weight", "bias"):
            tensor = get(theirs, part)
            out[f"{ours}.{part}"] = conv1x1(tensor) if theirs.endswith("to_out.0") else tensor
        if ours.endswith("attention.norm"):
            at = theirs.removesuffix("group_norm")
            for part in ("weight", "bias"):
                qkv = torch.cat([get(f"{at}{name}", part) for name in ("to_q", "to_k", "to_v")])
                out[f"{ours.removesuffix('norm')}qkv.{part}"] = conv1x1(qkv)
    if "class_embedding.weight" in tensors:
        out["label.weight"] = tensors["class_embedding.weight"]
    out["time.0.weight"] = turn(out["time.0.weight"], -1)
    return out


def linear(tensor: Tensor) -> Tensor:
    """The weight of a 1x1 convolution as that of a linear layer; a bias as it is."""
    return tensor.flatten(1) if tensor.ndim == 4 else tensor


def conv1x1(tensor: Tensor) -> Tensor:
    """The reverse."""
    return tensor[:, :, None, None] if tensor.ndim == 2 else tensor


def turn(weight: Tensor, by: int) -> Tensor:
    """W′ with W′ E(t) = W E(t + by), E(t) = [sin t ω_i …, cos t ω_i …] as in timestep_embedding."""
    half = weight.shape[1] // 2
    i = torch.arange(half, dtype=torch.float64)
    omega = by * torch.exp(-math.log(10_000.0) / (half - 1) * i)
    of_sin, of_cos = weight.double().chunk(2, dim=1)
    turned_sin = of_sin * omega.cos() - of_cos * omega.sin()
    turned_cos = of_sin * omega.sin() + of_cos * omega.cos()
    return torch.cat([turned_sin, turned_cos], dim=1).to(weight.dtype)


# ---- out -------------------------------------------------------------------------------------


def write_diffusers(checkpoint: Checkpoint, folder: Path) -> None:
    """A folder that `DDPMPipeline.from_pretrained` loads. `folder` must be empty or new.

    Raises UserError for a network that a UNet2DModel cannot be.
    """
    unet, scheduler = their_unet(checkpoint), their_scheduler(checkpoint)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is there already: name a folder that is new or empty")
    for sub in ("unet", "scheduler"):
        require_writable(folder / sub)
    c = checkpoint
    header = Header(VERSION, c.weights, c.step, c.images_seen, c.data, c.config)
    about = {"format": "pt", "ddpm": json.dumps(asdict(header))}
    state = {name: t.detach().cpu() for name, t in c.net.state_dict().items()}
    with atomic_write(folder / "unet" / WEIGHTS) as beside:
        save_file(to_theirs(state, c.config.unet), beside, metadata=about)
    index = {
        "_class_name": "DDPMPipeline", "_diffusers_version": DIFFUSERS,
        "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"],
    }  # fmt: skip
    for name, table in (
        ("unet/config.json", unet),
        ("scheduler/scheduler_config.json", scheduler),
        ("model_index.json", index),
    ):
        with atomic_write(folder / name) as beside:
            beside.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def their_unet(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config of a UNet2DModel."""
    c, data = checkpoint.config.unet, checkpoint.data
    if c.patch > 1:
        raise UserError(
            f"this network folds pixels in patches of {c.patch}, which diffusers' UNet2DModel does "
            f"not do; one trained with --unet.patch 1 can be converted"
        )
    halvings = 2 ** (len(c.mults) - 1)
    if data.height % halvings or data.width % halvings:
        raise UserError(
            f"a UNet2DModel of {len(c.mults)} levels takes images whose sides can be divided by "
            f"{halvings}, and these are {data.width}x{data.height}"
        )
    if c.mults[0] != 1:
        raise UserError(
            "in diffusers the first level is as wide as the first convolution: mults[0] = 1"
        )
    widths = [c.channels * m for m in c.mults]
    attends = [2**i in c.attention for i in range(len(widths))]
    if (
        c.heads > 1
        and len({w for w, a in zip(widths, attends, strict=True) if a} | {widths[-1]}) > 1
    ):
        raise UserError("diffusers gives all attention heads one width; here they have several")
    down = ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends]
    up = ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)]
    side: Any = data.height if data.height == data.width else [data.height, data.width]
    return {
        "_class_name": "UNet2DModel", "_diffusers_version": DIFFUSERS,
        **{name: allowed[0] for name, allowed in FIXED.items()},
        "sample_size": side, "in_channels": data.channels, "out_channels": data.channels,
        "block_out_channels": widths, "layers_per_block": c.blocks, "dropout": c.dropout,
        "down_block_types": down, "up_block_types": up, "downsample_padding": 0,
        "attention_head_dim": widths[-1] // c.heads if c.heads > 1 else None,
        "norm_num_groups": c.groups, "attn_norm_num_groups": c.groups if c.film else None,
        "norm_eps": 1e-6, "freq_shift": 1, "flip_sin_to_cos": False,
        "resnet_time_scale_shift": "scale_shift" if c.film else "default",
        "num_class_embeds": len(data.classes) + 1 if data.classes else None,
    }  # fmt: skip


def their_scheduler(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config of a DDPMScheduler."""
    d, alpha_bar = checkpoint.config.diffusion, checkpoint.diffusion.schedule.alpha_bar.double()
    named = d.schedule == "cosine" or d.schedule == "linear" and d.T == 1000
    betas = None if named else (1 - alpha_bar[1:] / alpha_bar[:-1]).tolist()
    return {
        "_class_name": "DDPMScheduler", "_diffusers_version": DIFFUSERS,
        "num_train_timesteps": d.T, "beta_start": 1e-4, "beta_end": 0.02,
        "beta_schedule": SCHEDULE_NAMES.get(d.schedule, "linear"), "trained_betas": betas,
        "prediction_type": TARGETS[d.target], "clip_sample": True, "clip_sample_range": 1.0,
        "variance_type": VARIANCES[checkpoint.config.sample.variance],
    }  # fmt: skip


# ---- in --------------------------------------------------------------------------------------


def is_diffusers(path: Path) -> bool:
    """Whether this is a folder that diffusers wrote."""
    return any((path / name).is_file() for name in ("model_index.json", "config.json"))


def read_diffusers(folder: Path) -> Checkpoint:
    """What a folder of diffusers' holds, a DDPMPipeline's or one written by `write_diffusers`.

    Raises UserError where it is damaged, or a network that is not one of ours.
    """
    root = folder / "unet" if (folder / "unet").is_dir() else folder
    model = read_json(root / "config.json")
    at = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    scheduler = read_json(at / "scheduler_config.json")
    path = root / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"there is no {WEIGHTS} in {root}; a .bin file is a pickle, which could run anything: "
            f"load and save it with diffusers, which writes safetensors"
        )
    tensors, about = read_tensors(path)
    header = our_header(about["ddpm"], path) if about.get("ddpm") else None
    config, data = our_config(model, scheduler, folder.name)
    if header:  # it was ours: all that theirs has no place for
        config, data = replace(header.config, unet=config.unet), header.data
    try:
        ours = to_ours(tensors, config.unet)
        if data.classes and not header:  # a row for no class, which this network was never taught
            label = ours["label.weight"]
            ours["label.weight"] = torch.cat([label, label.mean(0, keepdim=True)])
    except (RuntimeError, LookupError, ArithmeticError):  # tensors of other names or shapes
        raise UserError(f"{path} is damaged: its weights do not fit its own config") from None
    net, diffusion = rebuild(path, config, data, ours)
    net = net.eval().requires_grad_(False)
    if header:
        return Checkpoint(
            net, diffusion, config, data, header.step, header.images_seen, header.weights
        )
    return Checkpoint(net, diffusion, config, data, 0, 0, "as given")


def our_header(text: str, path: Path) -> Header:
    try:
        return validated(Header, renamed_header(json.loads(text)), f"{path} has a damaged header")
    except (ValueError, RecursionError):
        raise UserError(f"{path} has a damaged header: it is not JSON") from None


def our_config(
    model: dict[str, Any], scheduler: dict[str, Any], name: str
) -> tuple[Config, DataInfo]:
    """Our config for theirs. Raises UserError, naming the setting, where there is none."""

    def refuse(key: str, value: Any) -> UserError:
        return UserError(f"{name}: a network with {key} = {short(value)} is not one of ours")

    if model.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise refuse("_class_name", model["_class_name"])
    known = {**FIXED, "downsample_padding": (0,), "flip_sin_to_cos": (False,), "freq_shift": (1,),
             "norm_eps": (1e-6,)}  # fmt: skip
    theirs = {"flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1, "norm_eps": 1e-5}
    for key, allowed in known.items():
        if (value := model.get(key, theirs.get(key, allowed[0]))) not in allowed:
            raise refuse(key, value)
    for key, allowed in FIXED_PROCESS.items():
        if (value := scheduler.get(key, allowed[0])) not in allowed:
            raise UserError(f"{name}: a scheduler with {key} = {short(value)} is not one of ours")
    net = validated(TheirUNet, model, name)
    if net.out_channels != net.in_channels:
        raise refuse("out_channels", net.out_channels)
    widths, down, up = net.block_out_channels, net.down_block_types, net.up_block_types
    attends = [kind == "AttnDownBlock2D" for kind in down]
    plain = {"AttnDownBlock2D", "DownBlock2D", "AttnUpBlock2D", "UpBlock2D"}
    if not set(down) | set(up) <= plain or len(down) != len(widths):
        raise refuse("down_block_types", down)
    if [kind == "AttnUpBlock2D" for kind in reversed(up)] != attends:
        raise refuse("up_block_types", up)
    if any(w % widths[0] for w in widths):
        raise refuse("block_out_channels", widths)
    head = net.attention_head_dim
    heads = {w // head if head else 1 for w, a in zip(widths, attends, strict=True) if a}
    heads |= {widths[-1] // head if head else 1}
    if len(heads) > 1:
        raise refuse("attention_head_dim", head)
    kind = net.resnet_time_scale_shift
    if kind not in ("default", "scale_shift"):
        raise refuse("resnet_time_scale_shift", kind)
    if kind == "scale_shift" and net.attn_norm_num_groups != net.norm_num_groups:
        raise refuse("attn_norm_num_groups", net.attn_norm_num_groups)
    if net.sample_size is None:
        raise refuse("sample_size", None)
    unet = {
        "channels": widths[0], "mults": [w // widths[0] for w in widths],
        "blocks": net.layers_per_block,
        "attention": [2**i for i, a in enumerate(attends) if a], "heads": heads.pop(),
        "groups": net.norm_num_groups, "dropout": net.dropout,
        "film": kind == "scale_shift",
    }  # fmt: skip
    process = validated(TheirScheduler, scheduler, name)
    config = Config(
        unet=validated(UNetConfig, unet, name), diffusion=our_diffusion(process, name),
        sample=SampleConfig(
            sampler="ddpm", steps=process.num_train_timesteps,
            variance=reverse(VARIANCES, process.variance_type, name),
        ),
    )  # fmt: skip
    side = net.sample_size
    height, width = side if isinstance(side, tuple) else (side, side)
    classes = tuple(map(str, range(net.num_class_embeds or 0)))
    return config, DataInfo(name, 1, net.in_channels, height, width, classes, "")


def our_diffusion(process: TheirScheduler, name: str) -> DiffusionConfig:
    """The schedule of ours that has their ᾱ, to 1e-4, and what the network predicts."""
    T, kind, given = process.num_train_timesteps, process.beta_schedule, process.trained_betas
    first, last = process.beta_start, process.beta_end
    target = reverse(TARGETS, process.prediction_type, name)
    for ours, make in SCHEDULES.items():
        alpha_bar = make(T).alpha_bar[1:]
        if given is not None:
            theirs = (1 - torch.tensor(given)).cumprod(0)
        elif kind == "linear":
            theirs = (1 - torch.linspace(first, last, T)).cumprod(0)
        elif kind == SCHEDULE_NAMES.get(ours):
            theirs = alpha_bar
        else:
            continue
        if theirs.shape == alpha_bar.shape and (theirs - alpha_bar).abs().max() < 1e-4:
            return validated(DiffusionConfig, {"schedule": ours, "T": T, "target": target}, name)
    raise UserError(f"{name}: its schedule, {kind} from {first} to {last}, is none of ours")


def reverse(names: dict[str, str], theirs: str, where: str) -> Any:
    for ours, name in names.items():
        if name == theirs:
            return ours
    raise UserError(f"{where}: {short(theirs)} is not {' or '.join(names.values())}")


def read_json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(read_text(path, MAX_BYTES))
    except FileNotFoundError:
        raise UserError(f"there is no {path}: is this a folder of diffusers'?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(table, dict):
        raise UserError(f"{path} cannot be read: it holds no table")
    return table
