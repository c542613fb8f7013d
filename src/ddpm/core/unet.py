"""The U-Net of DDPM, with adaptive group norm, optional classes and optional pixel folding."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import (
    Attention,
    Down,
    ResBlock,
    Up,
    conv,
    embedding,
    initialise,
    norm,
    timestep_embedding,
)


class Block(nn.Module):
    """A residual block, and self-attention after it where the resolution is one of the chosen."""

    def __init__(self, res: ResBlock, attention: Attention | None):
        super().__init__()
        self.res = res
        self.attention = attention

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.res(x, e)
        return h if self.attention is None else self.attention(h)


class UNet(nn.Module):
    """ε_θ(x_t, t, y): an image in, an image of the same shape out   [DDPM, App. B]

    in_channels  of the images, any number: the data says
    num_classes  0 for none; otherwise label `num_classes` is ∅, no class
    channels     width of the first level; level i is channels · mults[i] wide, at half the size
    blocks       residual blocks a level on the way down; one more on the way up
    attention    reductions at which there is self-attention: 2 is half the image's size, so (2,)
                 is 16x16 for images of 32x32; between down and up there is always one
    heads        attention heads
    groups       of the group norms; must divide every width
    patch        pixels are folded into channels in patches of this size, at no loss
    dropout      in every residual block
    film         scale and shift from the embedding; False adds it, as DDPM does

    Images have any height and width. With channels=128, mults=(1, 2, 2, 2), film=False and three
    channels it is the 35.7 M parameter CIFAR-10 network of the paper.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 0,
        channels: int = 128,
        mults: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (2,),
        heads: int = 1,
        groups: int = 32,
        patch: int = 1,
        dropout: float = 0.0,
        film: bool = True,
    ):
        super().__init__()
        if channels < 4 or channels % 2:
            raise ValueError(f"channels must be even and at least 4, not {channels}")
        if not mults:
            raise ValueError("mults must name the width of one level at least")
        reductions = [patch * 2**i for i in range(len(mults))]
        if unknown := set(attention) - set(reductions):
            raise ValueError(
                f"attention at a reduction of {sorted(unknown)}, but the levels are at {reductions}"
            )
        self.channels, self.num_classes, self.patch = channels, num_classes, patch
        emb = 4 * channels
        widths = [channels * m for m in mults]

        def block(c_in: int, c_out: int, attend: bool) -> Block:
            res = ResBlock(c_in, c_out, emb, groups, dropout, film)
            return Block(res, Attention(c_out, groups, heads) if attend else None)

        self.time = nn.Sequential(
            initialise(nn.Linear(channels, emb)), nn.SiLU(), initialise(nn.Linear(emb, emb))
        )
        self.label = embedding(num_classes + 1, emb) if num_classes else None
        self.conv_in = conv(in_channels * patch**2, channels)

        skips, width = [channels], channels
        self.down = nn.ModuleList()
        for i, c in enumerate(widths):
            for _ in range(blocks):
                self.down.append(block(width, c, reductions[i] in attention))
                skips.append(width := c)
            if i < len(widths) - 1:
                self.down.append(Down(c))
                skips.append(c)

        self.mid = nn.ModuleList([block(width, width, True), block(width, width, False)])

        self.up = nn.ModuleList()
        for i, c in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(block(width + skips.pop(), c, reductions[i] in attention))
                width = c
            if i > 0:
                self.up.append(Up(c))
        assert not skips

        self.norm_out = norm(groups, channels * mults[0])
        self.conv_out = conv(channels * mults[0], in_channels * patch**2, zero=True)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        H, W = x.shape[-2:]
        e = self.time(timestep_embedding(t, self.channels))  # (B, E)
        if self.label is not None:
            y = torch.full_like(t, self.num_classes) if y is None else y
            e = e + self.label(y)

        h = F.pad(x, (0, -W % self.patch, 0, -H % self.patch))
        h = self.conv_in(F.pixel_unshuffle(h, self.patch))  # (B, C, H/p, W/p)
        skips = [h]
        for layer in self.down:
            h = layer(h) if isinstance(layer, Down) else layer(h, e)
            skips.append(h)

        for layer in self.mid:
            h = layer(h, e)  # the smallest h

        for layer in self.up:
            if isinstance(layer, Up):
                h = layer(h, skips[-1].shape[-2:])
            else:
                h = layer(torch.cat([h, skips.pop()], dim=1), e)
        assert not skips

        h = self.conv_out(F.silu(self.norm_out(h)))
        return F.pixel_shuffle(h, self.patch)[..., :H, :W]  # (B, C, H, W)
