"""One U-Net under the names of several libraries: theirs for ours, and the arithmetic of time.

Ours counts time 1 … T, the others 0 … T − 1. As sin and cos of (t + 1) ω are those of t ω rotated
by ω, a rotation of the first linear layer of the time embedding makes up for it exactly.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import UNetConfig
from ..core.types import Conventions

LABELS = "label.weight"
TIME = "time.0.weight"


@dataclass(frozen=True)
class Layout:
    """What a library calls the modules of a U-Net, and how its numbers lie.

    The names of places are filled with: `i` the level, from the first on the way down or up; `j`
    the block in it; `k` the layer, on the way down or up; `m` that, one more; `n` the block, on the
    way up; `a` the layers of that block.
    """

    down: str
    down_attention: str
    halve: str
    mid: tuple[str, str, str]
    up: str
    up_attention: str
    double: str
    block: Mapping[str, str]
    attention: Mapping[str, tuple[str, ...]]
    others: Mapping[str, str]
    labels: str
    times: str = "sin, cos"  # or "cos, sin"; or "interleaved", sin and cos of each frequency
    heads_first: bool = False  # q, k and v of the first head, then of the next


DIFFUSERS = Layout(
    "down_blocks.{i}.resnets.{j}", "down_blocks.{i}.attentions.{j}",
    "down_blocks.{i}.downsamplers.0.conv",
    ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    "up_blocks.{i}.resnets.{j}", "up_blocks.{i}.attentions.{j}", "up_blocks.{i}.upsamplers.0.conv",
    {"norm1": "norm1", "conv1": "conv1", "norm2.project": "time_emb_proj", "norm2.norm": "norm2",
     "conv2": "conv2", "skip": "conv_shortcut"},
    {"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)},
    {"time.0": "time_embedding.linear_1", "time.2": "time_embedding.linear_2",
     "conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"},
    "class_embedding.weight",
)  # fmt: skip
IMPROVED_DIFFUSION = Layout(
    "input_blocks.{m}.0", "input_blocks.{m}.1", "input_blocks.{m}.0.op",
    ("middle_block.0", "middle_block.1", "middle_block.2"),
    "output_blocks.{n}.0", "output_blocks.{n}.1", "output_blocks.{n}.{a}.conv",
    {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2.project": "emb_layers.1",
     "norm2.norm": "out_layers.0", "conv2": "out_layers.3", "skip": "skip_connection"},
    {"norm": ("norm",), "qkv": ("qkv",), "out": ("proj_out",)},
    {"time.0": "time_embed.0", "time.2": "time_embed.2", "conv_in": "input_blocks.0.0",
     "norm_out": "out.0", "conv_out": "out.2"},
    "label_emb.weight", "cos, sin", heads_first=True,
)  # fmt: skip
PYTORCH_DDPM = Layout(
    "downblocks.{k}", "downblocks.{k}.attn", "downblocks.{k}.main",
    ("middleblocks.0", "middleblocks.0.attn", "middleblocks.1"),
    "upblocks.{k}", "upblocks.{k}.attn", "upblocks.{k}.main",
    {"norm1": "block1.0", "conv1": "block1.2", "norm2.project": "temb_proj.1",
     "norm2.norm": "block2.0", "conv2": "block2.3", "skip": "shortcut"},
    {"norm": ("group_norm",), "qkv": ("proj_q", "proj_k", "proj_v"), "out": ("proj",)},
    {"time.0": "time_embedding.timembedding.1", "time.2": "time_embedding.timembedding.3",
     "conv_in": "head", "norm_out": "tail.0", "conv_out": "tail.2"},
    "", "interleaved",
)  # fmt: skip


def modules(c: UNetConfig, layout: Layout) -> Iterator[tuple[str, ...]]:
    """Yield (our name, theirs) of each module with a weight and a bias; where q, k and v are three
    modules of theirs and one of ours, all three."""

    def block(
        ours: str, theirs: str, attention: str, attends: bool, skip: bool
    ) -> Iterator[tuple[str, ...]]:
        for name, its in layout.block.items():
            if name != "skip" or skip:
                yield f"{ours}.res.{name}", f"{theirs}.{its}"
        for name, parts in layout.attention.items():
            if attends:
                yield f"{ours}.attention.{name}", *(f"{attention}.{its}" for its in parts)

    yield from layout.others.items()
    levels, attends = len(c.mults), [c.patch * 2**i in c.attention for i in range(len(c.mults))]
    k, width, skips = 0, 1, [1]  # in multiples of c.channels
    for i, mult in enumerate(c.mults):
        for j in range(c.blocks):
            places = {"i": i, "j": j, "k": k, "m": k + 1}
            res, at = layout.down.format(**places), layout.down_attention.format(**places)
            yield from block(f"down.{k}", res, at, attends[i], width != mult)
            k, width = k + 1, mult
            skips.append(width)
        if i < levels - 1:
            yield f"down.{k}.conv", layout.halve.format(i=i, k=k, m=k + 1)
            k += 1
            skips.append(width)
    first, attention, second = layout.mid
    yield from block("mid.0", first, attention, True, False)
    yield from block("mid.1", second, "", False, False)
    k = 0
    for i, mult in enumerate(reversed(c.mults)):
        attend = attends[levels - 1 - i]
        for j in range(c.blocks + 1):
            skip = width + skips.pop() != mult
            places = {"i": i, "j": j, "k": k, "n": k - i}
            res, at = layout.up.format(**places), layout.up_attention.format(**places)
            yield from block(f"up.{k}", res, at, attend, skip)
            k, width = k + 1, mult
        if i < levels - 1:
            yield f"up.{k}.conv", layout.double.format(i=i, k=k, n=k - i - 1, a=1 + attend)
            k += 1


def to_layout(
    tensors: Mapping[str, Tensor], c: UNetConfig, layout: Layout, later: float = 1
) -> dict[str, Tensor]:
    """Return the weights of our U-Net under the names of a library; the reverse of `from_layout`.
    The 1x1 convolutions of attention become linear."""
    out = {}
    tensors = dict(tensors)
    tensors[TIME] = order_times(shift_time(tensors[TIME], later, c.conventions), layout.times)
    for ours, *theirs in modules(c, layout):
        for part in ("weight", "bias"):
            tensor = tensors[f"{ours}.{part}"]
            if ".attention." in ours and tensor.ndim == 4:
                tensor = tensor.flatten(1)
            if layout.heads_first and ours.endswith(".qkv"):
                tensor = swap_heads(tensor, 3, c.heads)
            for name, piece in zip(theirs, tensor.chunk(len(theirs)), strict=True):
                out[f"{name}.{part}"] = piece
    if LABELS in tensors and layout.labels:
        out[layout.labels] = tensors[LABELS]
    return {name: tensor.contiguous() for name, tensor in out.items()}


def from_layout(
    tensors: Mapping[str, Tensor], c: UNetConfig, layout: Layout, later: float = 1
) -> dict[str, Tensor]:
    """Return the weights of a U-Net of a library under our names, for a network that at our time
    t gets t − `later` there. Raise LookupError where one is missing."""
    out = {}
    for ours, *theirs in modules(c, layout):
        for part in ("weight", "bias"):
            tensor = torch.cat([tensors[f"{name}.{part}"] for name in theirs])
            if layout.heads_first and ours.endswith(".qkv"):
                tensor = swap_heads(tensor, c.heads, 3)
            if ".attention." in ours and part == "weight" and tensor.ndim in (2, 3):
                tensor = tensor.flatten(1)[:, :, None, None]
            out[f"{ours}.{part}"] = tensor
    if layout.labels in tensors:
        out[LABELS] = tensors[layout.labels]
    out[TIME] = shift_time(order_times(out[TIME], layout.times, back=True), -later, c.conventions)
    return out


def with_null_label(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights, of our names, with a row for "no class", which the network never learned:
    the mean of all classes."""
    labels = tensors[LABELS]
    return tensors | {LABELS: torch.cat([labels, labels.mean(0, keepdim=True)])}


def swap_heads(qkv: Tensor, outer: int, inner: int) -> Tensor:
    """Return rows that are `outer` groups of `inner` groups as `inner` groups of `outer` groups."""
    return qkv.unflatten(0, (outer, inner, -1)).transpose(0, 1).flatten(0, 2)


def order_times(weight: Tensor, times: str, back: bool = False) -> Tensor:
    """Return the layer that takes [sin t ω_i …, cos t ω_i …], for the order that is called `times`;
    with `back`, the reverse."""
    if times == "cos, sin":
        return torch.cat(weight.chunk(2, dim=1)[::-1], dim=1)
    if times == "interleaved":
        shape = (-1, 2) if back else (2, -1)
        return weight.unflatten(1, shape).transpose(1, 2).flatten(1)
    return weight


def shift_time(weight: Tensor, by: float, conventions: Conventions = "ddpm") -> Tensor:
    """Return W′ with W′ E(t) = W E(t + by), where E(t) = [sin t ω_i …, cos t ω_i …]."""
    half = weight.shape[1] // 2
    i = torch.arange(half, dtype=torch.float64)
    intervals = half - 1 if conventions == "ddpm" else half
    omega = by * torch.exp(-math.log(10_000.0) / intervals * i)
    of_sin, of_cos = weight.double().chunk(2, dim=1)
    new_sin = of_sin * omega.cos() - of_cos * omega.sin()
    new_cos = of_sin * omega.sin() + of_cos * omega.cos()
    return torch.cat([new_sin, new_cos], dim=1).to(weight.dtype)
