"""Checkpoints as folders that diffusers loads as a pipeline, and back. It is not needed here.

What a `UNet2DModel` can be becomes one, and a DDPMPipeline. For every other network, and
where there are classes to ask for, the folder has a pipeline and a model of its own: files with our
own code in them, so that they are the same function and sample in the same way.
"""

import json
from contextlib import suppress
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
from ..core.schedule import Schedule, named_schedule, zero_terminal_snr
from ..core.types import Conventions
from ..utils.errors import UserError
from ..utils.files import atomic_write, read_text, require_writable
from .checkpoint import Checkpoint, checkpoint_from_tensors, without_guide
from .header import VERSION, Header, renamed_header
from .layouts import DIFFUSERS as DIFFUSERS_NAMES
from .layouts import LABELS, Layout, from_layout, to_layout, with_null_label
from .single_file import EXPORTED, single_file_source
from .tensors import as_os_error, read_tensors, under_prefix, with_prefix

DIFFUSERS = "0.31.0"  # the oldest whose configs are written here
MODEL = "ddpm_unet"  # the module of a network that a UNet2DModel cannot be
WEIGHTS = "diffusion_pytorch_model.safetensors"
TARGETS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
VARIANCES = {"beta": "fixed_large", "beta-tilde": "fixed_small"}
LEARNED = "learned_range"
SCHEDULE_NAMES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
Fixed = dict[str, tuple[Any, tuple[Any, ...]]]
# A UNet2DModel's downsample_padding, freq_shift and norm_eps.
CONVENTIONS: dict[Conventions, tuple[int, float, float]] = {
    "ddpm": (0, 1, 1e-6), "improved-diffusion": (1, 0, 1e-5),
}  # fmt: skip
# What a UNet2DModel must have to be one of ours: diffusers' default, and what is allowed.
FIXED_UNET: Fixed = {
    "_class_name": ("UNet2DModel", ("UNet2DModel",)), "act_fn": ("silu", ("silu", "swish")),
    "add_attention": (True, (True,)), "center_input_sample": (False, (False,)),
    "class_embed_type": (None, (None,)), "downsample_type": ("conv", ("conv",)),
    "upsample_type": ("conv", ("conv",)), "mid_block_scale_factor": (1, (1, 1.0)),
    "mid_block_type": ("UNetMidBlock2D", ("UNetMidBlock2D",)),
    "time_embedding_type": ("positional", ("positional",)), "time_embedding_dim": (None, (None,)),
}  # fmt: skip
# The same of a scheduler; a DDIMScheduler has the same process as a DDPMScheduler.
FIXED_SCHEDULER: Fixed = {
    "_class_name": ("DDPMScheduler", ("DDPMScheduler", "DDIMScheduler")),
    "clip_sample": (True, (True,)),
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
    norm_eps: float = 1e-5
    downsample_padding: int = 1
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
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
    rescale_betas_zero_snr: bool = False
    variance_type: str = "fixed_small"


# ---- writing ---------------------------------------------------------------------------------


def write_diffusers(checkpoint: Checkpoint, folder: Path) -> bool:
    """Write a folder, new or empty, that diffusers loads as a pipeline. Return whether it has code
    of its own, which diffusers runs only if it is told to trust it."""
    require_new(folder)
    c = without_guide(checkpoint)
    header = asdict(c.header)
    tensors = {name: t.detach().cpu().contiguous() for name, t in c.net.state_dict().items()}
    plain = is_plain(c)
    library, kind = ("diffusers", "UNet2DModel") if plain else (MODEL, "DDPMUNet")
    index: dict[str, Any] = {"_diffusers_version": DIFFUSERS, "unet": [library, kind]}
    texts: dict[str, str] = {}
    tables = {"unet/config": unet_table(c) if plain else own_table(c), "model_index": index}
    if custom := not plain or c.conditional or not is_ddpm(c):
        index |= {"_class_name": ["pipeline", "DDPMFromScratchPipeline"], "header": header}
        texts["pipeline.py"] = single_file_source(EXPORTED / "pipeline.py")
    else:
        index |= {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"]}
        tables["scheduler/scheduler_config"] = scheduler_table(c)
    if plain:
        tensors = to_layout(tensors, c.config.unet, DIFFUSERS_NAMES)
    else:
        tensors = with_prefix("net.", tensors)
        texts[f"unet/{MODEL}.py"] = single_file_source(EXPORTED / "unet.py")
    texts |= {f"{name}.json": json.dumps(tables[name], indent=2) + "\n" for name in tables}
    for part in sorted({(folder / name).parent for name in texts}):
        require_writable(part)
    about = {"format": "pt", "ddpm": json.dumps(header)}
    with atomic_write(folder / "unet" / WEIGHTS) as beside, as_os_error(folder):
        save_file(tensors, beside, metadata=about)
    for name, text in texts.items():
        with atomic_write(folder / name) as beside:
            beside.write_text(text, encoding="utf-8")
    return custom


def require_new(folder: Path) -> None:
    if any(not path.is_dir() for path in (folder, *folder.rglob("*")) if path.exists()):
        raise UserError(f"{folder} is there already: name a folder that is new or empty")


def is_plain(checkpoint: Checkpoint) -> bool:
    """Return whether a UNet2DModel can be this network: its pixels are not folded, its sides can
    be halved at each level, its first level is as wide as its first convolution, and its attention
    heads are all of one width."""
    c, data = checkpoint.config.unet, checkpoint.data
    halvings = 2 ** (len(c.mults) - 1)
    even = data.height % halvings == data.width % halvings == 0
    widths = {m for i, m in enumerate(c.mults) if 2**i in c.attention} | {c.mults[-1]}
    one_width = c.heads == 1 or len(widths) == 1
    return c.patch == 1 and not c.fine and even and c.mults[0] == 1 and one_width


def is_ddpm(checkpoint: Checkpoint) -> bool:
    """Return whether a DDPMPipeline, which takes 1,000 steps if it is not told otherwise, can be
    this process."""
    diffusion = checkpoint.diffusion
    in_steps = diffusion.T % 1000 == 0
    return in_steps and diffusion.target in TARGETS and diffusion.schedule.scale is None


def own_table(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the config of a network that a folder has code for."""
    data = checkpoint.data
    return {
        "_class_name": "DDPMUNet", "_diffusers_version": DIFFUSERS, "sample_size": side(data),
        "in_channels": data.channels, "num_classes": len(data.classes),
        "settings": asdict(checkpoint.config.unet) | {"out_channels": out_channels(checkpoint)},
    }  # fmt: skip


def out_channels(checkpoint: Checkpoint) -> int:
    return checkpoint.data.channels * (1 + checkpoint.diffusion.learned_variance)


def side(data: DataInfo) -> int | list[int]:
    return data.height if data.height == data.width else [data.height, data.width]


def unet_table(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the config of a UNet2DModel."""
    c, data = checkpoint.config.unet, checkpoint.data
    widths = [c.channels * m for m in c.mults]
    attends = [2**i in c.attention for i in range(len(widths))]
    down = ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends]
    up = ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)]
    padding, shift, eps = CONVENTIONS[c.conventions]
    return {
        **{name: allowed[0] for name, (_, allowed) in FIXED_UNET.items()},
        "_diffusers_version": DIFFUSERS, "flip_sin_to_cos": False,
        "downsample_padding": padding, "freq_shift": shift, "norm_eps": eps,
        "sample_size": side(data), "in_channels": data.channels,
        "out_channels": out_channels(checkpoint),
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
    variance = checkpoint.config.sample.variance
    named = d.schedule == "cosine" or d.schedule == "linear" and d.T == 1000
    betas = None if named else (1 - alpha_bar[1:] / alpha_bar[:-1]).tolist()
    return {
        **{name: allowed[0] for name, (_, allowed) in FIXED_SCHEDULER.items()},
        "_diffusers_version": DIFFUSERS,
        "num_train_timesteps": d.T, "beta_start": 1e-4, "beta_end": 0.02,
        "beta_schedule": SCHEDULE_NAMES.get(d.schedule, "linear"), "trained_betas": betas,
        "prediction_type": TARGETS[d.target], "rescale_betas_zero_snr": d.zero_snr,
        "variance_type": LEARNED if d.learned_variance else VARIANCES[variance],
        "timestep_spacing": "trailing",  # begins at T, where x is noise alone
    }  # fmt: skip


# ---- reading ---------------------------------------------------------------------------------


def read_diffusers(folder: Path) -> Checkpoint:
    """Return the checkpoint in a folder of a DDPMPipeline, or one that `write_diffusers` wrote. No
    code that lies in it is run.

    Raise UserError where it is damaged, or a network that our U-Net cannot be.
    """
    parts = folder / "unet", folder / "scheduler"
    unet, process = (part if part.is_dir() else folder for part in parts)
    model, path = read_json(unet / "config.json"), unet / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"there is no {WEIGHTS} in {unet}; a .bin file is a pickle, which could run anything: "
            f"load and save it with diffusers, which writes safetensors"
        )
    tensors, about = read_tensors(path)
    header = find_header(folder, about, path)
    if model.get("_class_name") == "DDPMUNet":
        if header is None:
            raise UserError(f"{folder} does not say what its network is: its header is missing")
        config, data = header.config, header.data
        ours = under_prefix("net.", tensors)
    else:
        learned = header is not None and header.config.diffusion.learned_variance
        scheduler = {"variance_type": LEARNED} if learned else {}
        if not header:
            scheduler = read_json(process / "scheduler_config.json")
        config, data = read_config(model, scheduler, folder.name)
        if header:  # written by us: the header has what diffusers' configs lack
            config, data = replace(header.config, unet=config.unet), header.data
        ours = our_names(path, tensors, config.unet, layout_of(model), bool(header))
    header = header or Header(VERSION, "as given", 0, 0, data, config)
    return checkpoint_from_tensors(path, replace(header, config=config, data=data), ours)


def layout_of(model: dict[str, Any]) -> Layout:
    flipped = model.get("flip_sin_to_cos", True)
    return replace(DIFFUSERS_NAMES, times="cos, sin" if flipped else "sin, cos")


def our_names(
    path: Path, tensors: dict[str, Tensor], c: UNetConfig, layout: Layout, null: bool
) -> dict[str, Tensor]:
    """Return the weights under our names, for a network whose time is one behind ours. Where
    there are classes and `null` says that none stands for no class, a row for it is added, which
    the network never learned. Raise UserError where they do not fit."""
    for old, new in OLD_NAMES.items():
        tensors = {name.replace(f".{old}.", f".{new}."): t for name, t in tensors.items()}
    try:
        ours = from_layout(tensors, c, layout, 1)
        if LABELS in ours and not null:
            ours = with_null_label(ours)
    except (RuntimeError, LookupError, ArithmeticError):  # tensors of other names or shapes
        raise UserError(f"{path} is damaged: its weights do not fit its own config") from None
    return ours


def find_header(folder: Path, about: dict[str, str], path: Path) -> Header | None:
    """Return what we wrote of the checkpoint, beside the tensors or in the pipeline's index, which
    is kept where diffusers saved it again; None where it was not ours."""
    if text := about.get("ddpm"):
        return read_header(text, path)
    index = folder / "model_index.json"
    header = read_json(index).get("header") if index.is_file() else None
    return None if header is None else read_header(json.dumps(header), index)


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
    learned, sample = process.variance_type == LEARNED, {"steps": process.num_train_timesteps}
    if not learned:
        sample["variance"] = look_up(VARIANCES, process.variance_type, name)
    config = Config(
        unet=validated(UNetConfig, unet_settings(net, name, 1 + learned), name),
        diffusion=replace(read_diffusion(process, name), learned_variance=learned),
        sample=validated(SampleConfig, {"sampler": "ddpm", **sample}, name),
    )
    side = net.sample_size or 1
    height, width = side if isinstance(side, tuple) else (side, side)
    classes = tuple(map(str, range(net.num_class_embeds or 0)))
    return config, DataInfo(name, 1, net.in_channels, height, width, classes, "")


def check_fixed(table: dict[str, Any], fixed: Fixed, what: str) -> None:
    for key, (default, allowed) in fixed.items():
        if (value := table.get(key, default)) not in allowed:
            raise UserError(f"{what} with {key} = {short(value)} is not one of ours")


def unet_settings(net: UNet2DConfig, name: str, outputs: int = 1) -> dict[str, Any]:
    """Return the settings of our U-Net. Raise UserError, naming the setting, if there are none."""
    widths, down, up = net.block_out_channels, net.down_block_types, net.up_block_types
    attends = [kind == "AttnDownBlock2D" for kind in down]
    known = {"AttnDownBlock2D", "DownBlock2D", "AttnUpBlock2D", "UpBlock2D"}
    head, film = net.attention_head_dim, net.resnet_time_scale_shift == "scale_shift"
    with_attention = [w for w, a in zip(widths, attends, strict=False) if a] + [widths[-1]]
    heads = {w // head if head else 1 for w in with_attention}
    unfit = {
        "out_channels": net.out_channels != outputs * net.in_channels,
        "down_block_types": not set(down) | set(up) <= known or len(down) != len(widths),
        "up_block_types": [kind == "AttnUpBlock2D" for kind in reversed(up)] != attends,
        "block_out_channels": any(w % widths[0] for w in widths),
        "attention_head_dim": len(heads) > 1,
        "resnet_time_scale_shift": net.resnet_time_scale_shift not in ("default", "scale_shift"),
        "attn_norm_num_groups": net.attn_norm_num_groups
        not in ([net.norm_num_groups] if film else [None, net.norm_num_groups]),
        "sample_size": net.sample_size is None,
    }
    for key, value in ((key, getattr(net, key)) for key in unfit if unfit[key]):
        raise UserError(f"{name}: a network with {key} = {short(value)} is not one of ours")
    conventions = net.downsample_padding, net.freq_shift, net.norm_eps
    known_conventions = {value: name for name, value in CONVENTIONS.items()}
    if conventions not in known_conventions:
        raise UserError(
            f"{name}: downsample_padding, freq_shift and norm_eps of {conventions} are together "
            f"not those of ours, {' or '.join(map(str, known_conventions))}"
        )
    return {
        "conventions": known_conventions[conventions],
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
    zero, betas = process.rescale_betas_zero_snr, process.trained_betas
    if betas is None and kind == "linear":
        betas = tuple(torch.linspace(first, last, T).tolist())
    for ours in ("linear", "cosine", "sigmoid"):
        same = betas is None and SCHEDULE_NAMES.get(ours) == kind
        with suppress(ValueError):  # betas that no schedule has
            same = same or has_betas(named_schedule(ours, T, zero), betas or (), zero)
        if same:
            given = {"schedule": ours, "T": T, "target": target, "zero_snr": zero}
            return validated(DiffusionConfig, given)
    raise UserError(f"{name}: its schedule, {kind} from {first} to {last}, is none of ours")


def has_betas(schedule: Schedule, betas: tuple[float, ...], zero: bool) -> bool:
    """Return whether a schedule is that of these betas, if `zero` after they are rescaled to a
    terminal SNR of zero. Raise ValueError for betas that are of none."""
    theirs = Schedule((1 - torch.tensor([0.0, *betas])).cumprod(0))
    a, b = (zero_terminal_snr(theirs) if zero else theirs).alpha_bar, schedule.alpha_bar
    return len(a) == len(b) and torch.allclose(a, b, rtol=0, atol=1e-4)


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
