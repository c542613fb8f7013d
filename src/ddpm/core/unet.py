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
from .types import Conventions


class Block(nn.Module):
    """A residual block, and self-attention after it where the resolution is one of the chosen."""

    def __init__(self, res: ResBlock, attention: Attention | None):
        super().__init__()
        self.res = res
        self.attention = attention

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.res(x, e)
        return h if self.attention is None else self.attention(h)


class Fine(nn.Module):
    """An extra branch at full resolution, around a U-Net that works on folded pixels.

    Folded pixels leave each patch no more than `channels` numbers to carry the noise of all of its
    pixels; fine detail passes here instead. `down` encodes x_t, and adds to the folded features;
    `up` decodes that with the U-Net's last features, and adds to its output. Both are zero at
    initialisation, so that the branch can be added to a trained network. Its norms have as many
    channels to a group as those of the first level.
    """

    def __init__(
        self, width: int, first: int, last: int, image: int, out: int, patch: int, emb: int,
        groups: int, dropout: float, film: bool,
    ):  # fmt: skip
        super().__init__()
        self.patch = patch
        self.conv_in = conv(image, width)
        self.res_in = ResBlock(width, width, emb, groups, dropout, film)
        self.fold = conv(width * patch**2, first, kernel=1, zero=True)
        self.unfold = conv(last, width * patch**2, kernel=1)
        self.res_out = ResBlock(2 * width, width, emb, groups, dropout, film)
        self.norm_out = norm(groups, width)
        self.conv_out = conv(width, out, zero=True)

    def down(self, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        f = self.res_in(self.conv_in(x), e)
        return f, self.fold(F.pixel_unshuffle(f, self.patch))

    def up(self, f: Tensor, h: Tensor, e: Tensor) -> Tensor:
        coarse = F.pixel_shuffle(self.unfold(h), self.patch)
        f = self.res_out(torch.cat([f, coarse], dim=1), e)
        return self.conv_out(F.silu(self.norm_out(f)))


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
    patch        pixels are folded into channels in patches of this size
    fine         width of a stage at full resolution, before the folding and after the unfolding;
                 0 for none
    dropout      in every residual block
    film         scale and shift from the embedding; False adds it, as DDPM does
    conventions  details that differ between DDPM's code, in TensorFlow, and improved-diffusion's,
                 in PyTorch: where halving pads an even side, ε of the group norms (1e-6, 1e-5),
                 and the frequencies of the embedding of time (P^{−i/(n−1)}, P^{−i/n})
    out_channels of the output: by default in_channels
    augment_dim  size of the labels a of how an image was augmented [EDM, App. F.2]; 0 for none

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
        fine: int = 0,
        dropout: float = 0.0,
        film: bool = True,
        conventions: Conventions = "ddpm",
        out_channels: int | None = None,
        augment_dim: int = 0,
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
        out = out_channels or in_channels
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
        self.conv_out = conv(channels * mults[0], out * patch**2, zero=True)
        fine_groups = max(1, groups * fine // channels)
        self.fine = (
            Fine(fine, channels, width, in_channels, out, patch, emb, fine_groups, dropout, film)
            if fine
            else None
        )
        self.augment = (
            initialise(nn.Linear(augment_dim, emb, bias=False), zero=True) if augment_dim else None
        )
        self.max_period = 10_000.0
        if conventions == "improved-diffusion":
            self._follow_improved_diffusion()

    def _follow_improved_diffusion(self) -> None:
        self.max_period **= 1 - 2 / self.channels  # of n − 1 intervals, for 10,000 of n
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.eps = 1e-5
            elif isinstance(module, Down):
                module.symmetric_padding = True

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | None = None, a: Tensor | None = None
    ) -> Tensor:
        H, W = x.shape[-2:]
        e = self.time(timestep_embedding(t, self.channels, self.max_period))  # (B, E)
        if self.label is not None:
            y = torch.full_like(t, self.num_classes, dtype=torch.long) if y is None else y
            e = e + self.label(y)
        if self.augment is not None and a is not None:
            e = e + self.augment(a)  # of zeros, 0: where a is none, the images are as they are

        x = F.pad(x, (0, -W % self.patch, 0, -H % self.patch))
        h = self.conv_in(F.pixel_unshuffle(x, self.patch))  # (B, C, H/p, W/p)
        if self.fine is not None:
            f, folded = self.fine.down(x, e)  # (B, fine, H, W)
            h = h + folded
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

        h = F.silu(self.norm_out(h))
        out = F.pixel_shuffle(self.conv_out(h), self.patch)
        if self.fine is not None:
            out = out + self.fine.up(f, h, e)
        return out[..., :H, :W]  # (B, C, H, W)
