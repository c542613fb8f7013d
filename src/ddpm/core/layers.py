"""The parts of the U-Net. Images are (B, C, H, W); the embedding of time and class is (B, E)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """[sin(t ω_0) … sin(t ω_{n−1}), cos(t ω_0) … cos(t ω_{n−1})],  ω_i = P^{−i/(n−1)}, n = dim/2
    [Vaswani et al. 2017, Sec. 3.5, as DDPM's code has it]

    `t`: shape (B,). P is `max_period`. Returns float32 of shape (B, dim); dim is even, ≥ 4.
    """
    half = dim // 2
    i = torch.arange(half, device=t.device, dtype=torch.float32)
    omega = torch.exp(-math.log(max_period) / (half - 1) * i)
    angles = t.float()[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def initialise(layer: nn.Module, zero: bool = False) -> nn.Module:
    """Uniform with the variance of 2/(fan-in + fan-out), as DDPM's code has it; or all zeros.

    A block whose last layer is zero starts as the identity.
    """
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv(c_in: int, c_out: int, kernel: int = 3, zero: bool = False) -> nn.Module:
    return initialise(nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2), zero)


def embedding(n: int, dim: int) -> nn.Embedding:
    """Uniform with variance 1: a normal start would load torch's compiler on the meta device."""
    layer = nn.Embedding(n, dim, _weight=torch.empty(n, dim))
    nn.init.uniform_(layer.weight, -math.sqrt(3), math.sqrt(3))
    return layer


class GroupNorm(nn.GroupNorm):
    """PyTorch's, in the precision of its weights: in bfloat16, which autocast on a CPU would take,
    its kernel is several times slower than in float32."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h.to(self.weight.dtype)).to(h.dtype)


def norm(groups: int, channels: int) -> GroupNorm:
    if channels % groups:
        raise ValueError(f"{channels} channels do not divide into {groups} groups")
    return GroupNorm(groups, channels, eps=1e-6)


class AdaGN(nn.Module):
    """AdaGN(h, e) = (1 + γ(e)) GroupNorm(h) + β(e)   [Dhariwal and Nichol 2021, Sec. 3.1]

    γ and β, one of each for every channel, are a linear map of the embedding. With film=False it
    is DDPM's own conditioning, GroupNorm(h + β(e)).
    """

    def __init__(self, channels: int, emb: int, groups: int, film: bool = True):
        super().__init__()
        self.norm = norm(groups, channels)
        self.project = initialise(nn.Linear(emb, 2 * channels if film else channels))
        self.film = film

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        film = self.project(F.silu(e))[:, :, None, None]
        if not self.film:
            return self.norm(h + film)
        gamma, beta = film.chunk(2, dim=1)
        return (1 + gamma) * self.norm(h) + beta


class ResBlock(nn.Module):
    """h = conv(SiLU(norm(x)));  h = conv(dropout(SiLU(AdaGN(h, e))));  x + h   [DDPM, App. B]"""

    def __init__(self, c_in: int, c_out: int, emb: int, groups: int, dropout: float, film: bool):
        super().__init__()
        self.norm1 = norm(groups, c_in)
        self.conv1 = conv(c_in, c_out)
        self.norm2 = AdaGN(c_out, emb, groups, film)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(c_out, c_out, zero=True)
        self.skip = conv(c_in, c_out, kernel=1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h, e))))
        return self.skip(x) + h


class Attention(nn.Module):
    """x + W_o softmax(q kᵀ/√d) v over all H·W positions   [Vaswani et al. 2017, Eq. 1]"""

    def __init__(self, channels: int, groups: int, heads: int = 1):
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} attention heads")
        self.heads = heads
        self.norm = norm(groups, channels)
        self.qkv = conv(channels, 3 * channels, kernel=1)
        self.out = conv(channels, channels, kernel=1, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).view(B, 3, self.heads, C // self.heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, H·W, C/heads)
        if x.device.type == "mps":  # which took other strides (pytorch/pytorch issue 163597)
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(-1, -2).reshape(B, C, H, W))


class Down(nn.Module):
    """A convolution of stride 2: H → ⌈H/2⌉, W → ⌈W/2⌉, for odd sizes too.

    An even side is padded at its end, as TensorFlow does; with `symmetric_padding`, at both, as
    PyTorch does.
    """

    symmetric_padding = False

    def __init__(self, channels: int):
        super().__init__()
        self.conv = initialise(nn.Conv2d(channels, channels, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        left, top = (1, 1) if self.symmetric_padding else (W % 2, H % 2)
        return self.conv(F.pad(x, (left, 1, top, 1)))


class Up(nn.Module):
    """Nearest-neighbour upsampling by 2, cropped to `size`; then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(x[..., : size[0], : size[1]])
