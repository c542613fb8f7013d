"""Networks of other programs, as they save them: the same outputs, or what the file is.

The two networks here are written from their papers, under the names that their programs use.
"""

import argparse
import math
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from ddpm import UserError, load
from ddpm.checkpoint.foreign import Recipe, read_foreign
from ddpm.cli.main import main


def angles(t, n):
    return t.float()[:, None] * 10_000.0 ** (-torch.arange(n) / n)


def attend(qkv, heads):
    """qkv: (B, heads, 3, d, N)."""
    q, k, v = qkv.unbind(2)
    w = (q.transpose(-1, -2) @ k / q.shape[-2] ** 0.5).softmax(-1)
    return (v @ w.transpose(-1, -2)).flatten(1, 2)


def walk(c, mults, blocks):
    """The widths (in, out) of the blocks of each level, down and up."""
    widths, skips, down = [c], [c], []
    for i, m in enumerate(mults):
        widths += [c * m] * blocks
        down.append(list(pairwise(widths[-blocks - 1 :])))
        skips += [c * m] * blocks + [c * m] * (i < len(mults) - 1)
    mid, up = widths[-1], []
    width = mid
    for m in reversed(mults):
        up.append([])
        for _ in range(blocks + 1):
            up[-1].append((width + skips.pop(), c * m))
            width = c * m
    return down, mid, up


# ---- improved-diffusion ----------------------------------------------------------------------


class OpenAIRes(nn.Module):
    def __init__(self, c_in, c_out, emb, film):
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, 1, 1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, c_out * (1 + film)))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, c_out), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(c_out, c_out, 3, 1, 1)
        )
        self.skip_connection = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.film = film

    def forward(self, x, e):
        h, e = self.in_layers(x), self.emb_layers(e)[..., None, None]
        if self.film:
            scale, shift = e.chunk(2, 1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + e)
        return self.skip_connection(x) + h


class OpenAIAttention(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.norm, self.qkv = nn.GroupNorm(32, c), nn.Conv1d(c, 3 * c, 1)
        self.proj_out = nn.Conv1d(c, c, 1)

    def forward(self, x, e):
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat)).unflatten(1, (self.heads, 3, -1))
        return x + self.proj_out(attend(qkv, self.heads)).view_as(x)


class Halve(nn.Module):
    def __init__(self, c, name="op"):
        super().__init__()
        self.name = name
        setattr(self, name, nn.Conv2d(c, c, 3, 2, 1))

    def forward(self, x, e):
        return getattr(self, self.name)(x)


class Double(nn.Module):
    def __init__(self, c, name="conv"):
        super().__init__()
        self.name = name
        setattr(self, name, nn.Conv2d(c, c, 3, 1, 1))

    def forward(self, x, e):
        return getattr(self, self.name)(F.interpolate(x, scale_factor=2))


class Chain(nn.ModuleList):
    def forward(self, x, e):
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, e)
        return x


class OpenAI(nn.Module):
    def __init__(self, c, mults, blocks, attention, heads, film, out=3, classes=0, scale=1.0):
        super().__init__()
        self.c, self.scale, emb = c, scale, 4 * c
        self.time_embed = nn.Sequential(nn.Linear(c, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label_emb = nn.Embedding(classes, emb) if classes else None
        down, mid, up = walk(c, mults, blocks)

        def block(i, a, b):
            layers = [OpenAIRes(a, b, emb, film)]
            return layers + [OpenAIAttention(b, heads)] * (2**i in attention)

        self.input_blocks = nn.ModuleList([Chain([nn.Conv2d(3, c, 3, 1, 1)])])
        for i, level in enumerate(down):
            self.input_blocks.extend(Chain(block(i, a, b)) for a, b in level)
            if i < len(mults) - 1:
                self.input_blocks.append(Chain([Halve(level[-1][1])]))
        self.middle_block = Chain(
            [OpenAIRes(mid, mid, emb, film), OpenAIAttention(mid, heads),
             OpenAIRes(mid, mid, emb, film)]
        )  # fmt: skip
        self.output_blocks = nn.ModuleList()
        for i, level in reversed(list(enumerate(reversed(up)))):
            for j, (a, b) in enumerate(level):
                last = j == blocks and i > 0
                self.output_blocks.append(Chain(block(i, a, b) + [Double(b)] * last))
        self.out = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, out, 3, 1, 1))

    def forward(self, x, t, y=None):
        a = angles(t * self.scale, self.c // 2)
        e = self.time_embed(torch.cat([a.cos(), a.sin()], 1))
        if self.label_emb is not None:
            e = e + self.label_emb(y)
        hs = []
        for block in self.input_blocks:
            hs.append(x := block(x, e))
        x = self.middle_block(x, e)
        for block in self.output_blocks:
            x = block(torch.cat([x, hs.pop()], 1), e)
        return self.out(x)


# ---- pytorch-ddpm ----------------------------------------------------------------------------


class W86Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.group_norm = nn.GroupNorm(32, c)
        self.proj_q, self.proj_k, self.proj_v, self.proj = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        h = self.group_norm(x)
        parts = [p(h).flatten(2)[:, None] for p in (self.proj_q, self.proj_k, self.proj_v)]
        return x + self.proj(attend(torch.stack(parts, 2), 1).view_as(x))


class W86Res(nn.Module):
    def __init__(self, a, b, emb, attends):
        super().__init__()
        norm, conv = nn.GroupNorm, nn.Conv2d
        self.block1 = nn.Sequential(norm(32, a), nn.SiLU(), conv(a, b, 3, 1, 1))
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(emb, b))
        self.block2 = nn.Sequential(norm(32, b), nn.SiLU(), nn.Dropout(0.1), conv(b, b, 3, 1, 1))
        self.shortcut = conv(a, b, 1) if a != b else nn.Identity()
        self.attn = W86Attention(b) if attends else nn.Identity()

    def forward(self, x, e):
        h = self.block1(x) + self.temb_proj(e)[..., None, None]
        return self.attn(self.shortcut(x) + self.block2(h))


class W86(nn.Module):
    def __init__(self, c, mults, blocks, attention, T=1000):
        super().__init__()
        emb, a = 4 * c, angles(torch.arange(T), c // 2)
        table = torch.stack([a.sin(), a.cos()], -1).flatten(1)
        self.time_embedding = nn.Module()
        self.time_embedding.timembedding = nn.Sequential(
            nn.Embedding.from_pretrained(table), nn.Linear(c, emb), nn.SiLU(), nn.Linear(emb, emb)
        )
        down, mid, up = walk(c, mults, blocks)
        self.head = nn.Conv2d(3, c, 3, 1, 1)
        self.downblocks, self.upblocks = nn.ModuleList(), nn.ModuleList()
        for i, level in enumerate(down):
            self.downblocks.extend(W86Res(a, b, emb, i in attention) for a, b in level)
            if i < len(mults) - 1:
                self.downblocks.append(Halve(level[-1][1], "main"))
        self.middleblocks = nn.ModuleList(
            [W86Res(mid, mid, emb, True), W86Res(mid, mid, emb, False)]
        )
        for i, level in reversed(list(enumerate(reversed(up)))):
            self.upblocks.extend(W86Res(a, b, emb, i in attention) for a, b in level)
            if i > 0:
                self.upblocks.append(Double(level[-1][1], "main"))
        self.tail = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, 3, 3, 1, 1))

    def forward(self, x, t):
        e = self.time_embedding.timembedding(t)
        hs = [x := self.head(x)]
        for block in self.downblocks:
            hs.append(x := block(x, e))
        for block in self.middleblocks:
            x = block(x, e)
        for block in self.upblocks:
            x = block(x if isinstance(block, Double) else torch.cat([x, hs.pop()], 1), e)
        return self.tail(x)


# ---- tests -----------------------------------------------------------------------------------


def random(net):
    torch.manual_seed(0)
    for p in net.parameters():
        if p.requires_grad:
            nn.init.normal_(p, 0, 0.2 if p.ndim == 1 else p[0].numel() ** -0.5)
    return net.eval().requires_grad_(False)


def images(side):
    g = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, side, side, generator=g), torch.tensor([1, 2, 500, 1000])


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("mults", "attention", "heads", "film", "learned", "classes"),
    [
        ((1, 2, 2, 2), (2, 4), 4, True, False, 0),  # their default for 32x32
        ((1, 2, 3, 4), (4, 8), 4, True, True, 5),
        ((1, 2, 2, 2), (), 1, False, True, 0),
    ],
)
def test_improved_diffusion(mults, attention, heads, film, learned, classes, tmp_path):
    out = 6 if learned else 3
    theirs = random(OpenAI(32, mults, 2, attention, heads, film, out, classes))
    torch.save(theirs.state_dict(), tmp_path / "ema_0.9999_500000.pt")
    recipe = Recipe(heads=None if heads == 4 else heads)
    ours = read_foreign(tmp_path / "ema_0.9999_500000.pt", recipe)
    assert ours.data.shape == (3, 64, 64) if mults[-1] == 4 else (3, 32, 32)
    (x, t), y = images(16), torch.tensor([0, 4, 2, 1]) if classes else None
    assert_same(ours.net(x, t, y), theirs(x, t - 1, y)[:, :3])
    assert (ours.config.diffusion.schedule, ours.config.diffusion.target) == ("linear", "eps")
    assert len(ours.data.classes) == classes


def test_improved_diffusion_of_4000_times(tmp_path):
    """Its network sees t/4; its cosine schedule at every fourth time is ours of 1,000."""
    theirs = random(OpenAI(32, (1, 2), 1, (2,), 4, True, 6, scale=1000 / 4000))
    torch.save(theirs.state_dict(), tmp_path / "x.pt")
    ours = read_foreign(tmp_path / "x.pt", Recipe((32,), schedule="cosine", T=4000))
    x, t = images(16)
    assert_same(ours.net(x, t), theirs(x, 4 * t - 1)[:, :3])
    u = torch.arange(4001, dtype=torch.float64) / 4000
    f = ((u + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    assert_same(ours.diffusion.schedule.alpha_bar.double(), (f / f[0])[::4])


@pytest.mark.parametrize(("mults", "attention"), [((1, 2, 2, 2), (1,)), ((1, 2), (0, 1))])
@pytest.mark.parametrize("legacy", [False, True])
def test_pytorch_ddpm(mults, attention, legacy, tmp_path):
    theirs, other = random(W86(32, mults, 2, attention)), W86(32, mults, 2, attention)
    state = {
        "net_model": other.state_dict(), "ema_model": theirs.state_dict(), "step": 7,
        "sched": {"last_epoch": 7}, "optim": {"state": {}}, "x_T": torch.zeros(64, 3, 32, 32),
    }  # fmt: skip
    path = tmp_path / "ckpt.pt"
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    ours = read_foreign(path)
    assert ours.data.shape == (3, 32, 32)
    x, t = images(16)
    assert_same(ours.net(x, t), theirs(x, t - 1))


class Runs:
    def __reduce__(self):
        return print, ("this ran",)


def test_what_is_not_read_is_told_what_it_is(tmp_path, capsys):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU())
    weights, path = net.state_dict(), tmp_path / "x.pt"
    openai = OpenAI(32, (1, 2), 1, (2,), 4, True).state_dict()
    for stored, says in (
        (torch.zeros(3, 4), r"one tensor of shape \(3, 4\)"),
        ([weights], "it holds a list"),
        (weights, "the weights of another network: 2 tensors, ."),
        ({"step": 1, "model": weights, "opt": {}, "ema": weights, "scaler": None}, "lucidrains"),
        ({"state_dict": weights, "pytorch-lightning_version": "2"}, "PyTorch Lightning"),
        ({"state": {}, "param_groups": []}, "an optimizer"),
        ({"net_model": weights, "ema_model": 5}, "its ema_model holds an? int"),
        ({"a": 1, "b": 2}, r"a table of \['a', 'b'\]"),
        ({"args": argparse.Namespace(a=1), "model": weights}, "argparse.Namespace, which could"),
        (Runs(), "more than tensors, print"),
        (net, "more than tensors, torch.nn"),
        (openai | {"more.weight": torch.zeros(2)}, "those of improved-diffusion, but not all"),
        ({k: v for k, v in openai.items() if "middle" not in k}, "improved-diffusion, but not all"),
        ({"input_blocks.0.0.weight": torch.zeros(1).expand(10**6, 10**6)}, "larger than the file"),
    ):
        torch.save(stored, path)
        with pytest.raises(UserError, match=says):
            read_foreign(path)
    torch.jit.trace(net, torch.zeros(1, 3, 8, 8)).save(path)
    with pytest.raises(UserError, match="a program of TorchScript"):
        read_foreign(path)
    torch.save(openai, path)
    whole = path.read_bytes()
    for data, says in (
        (b"", "not a PyTorch file"), (b"GIF89a and so on", "not a PyTorch file"),
        (whole[: len(whole) // 2], "not a PyTorch file"), (b"\x80\x02garbage", "damaged"),
    ):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(UserError, match=says):
            read_foreign(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="a safetensors file: end its name in"):
        read_foreign(path)
    assert "this ran" not in capsys.readouterr().out


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(random(OpenAI(32, (1, 2), 1, (2,), 4, True)).state_dict(), "x.pt")
    torch.save({"net_model": {}, "ema_model": random(W86(32, (1,), 1, ())).state_dict()}, "w.pt")
    torch.save({"net_model": {}, "ema_model": W86(32, (1,), 1, (), T=500).state_dict()}, "v.pt")
    assert main(["convert", "x.pt", "x.safetensors", "--size", "16", "--schedule", "cosine"]) == 0
    assert load("x.safetensors").data.shape == (3, 16, 16)
    assert load("x.safetensors").config.diffusion.schedule == "cosine"
    assert main(["generate", "x.safetensors", "--n", "1", "--steps", "2", "--out", "x.png"]) == 0
    capsys.readouterr()
    for words, says in (
        (["convert", "x.pt", "y.safetensors"], "how large its images are: give --size"),
        (["convert", "w.pt", "y.safetensors", "--heads", "2"], "leave out --heads"),
        (["convert", "w.pt", "y.safetensors", "--size", "8", "--T", "50"], "with 1000 times, not"),
        (["convert", "v.pt", "y.safetensors", "--size", "8"], "networks of 500 times"),
        (["convert", "mnist", "y", "--size", "8"], "--size is for a .pt file"),
        (["generate", "x.pt"], "ddpm convert x.pt x.safetensors"),
        (["convert", "x.pt", "y.onnx"], "end it in .safetensors"),
    ):
        assert main(words) == 1
        assert says in capsys.readouterr().err
