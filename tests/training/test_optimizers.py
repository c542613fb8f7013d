"""Muon: what its step promises, and that a run goes on with it as if it had not been stopped."""

import torch

from ddpm import UNet
from ddpm.config import TrainConfig
from ddpm.training.optimizers import build_optimizer, hidden_kernels, orthogonalize


def small():
    torch.manual_seed(0)
    return UNet(1, 2, channels=8, mults=(1, 2), attention=(2,), groups=4)


def test_singular_values_become_one_and_the_directions_stay(generator):
    shapes = [(2, 16, 144), (1, 48, 16), (3, 8, 8), (2, 8, 72)]  # of which two pairs go together
    Gs = [torch.randn(*shape, generator=generator) for shape in shapes]
    for G, W in zip(Gs, orthogonalize(Gs), strict=True):
        assert W.shape == G.shape
        U, _, V = torch.linalg.svd(G, full_matrices=False)
        kept = (U.mT @ W @ V.mT).diagonal(dim1=1, dim2=2)
        assert ((kept > 0.5) & (kept < 1.25)).all()
        off = U.mT @ W @ V.mT - torch.diag_embed(kept)
        assert off.abs().max() < 1e-3


def test_the_orthogonalized_are_the_kernels_between_the_first_and_the_last():
    net = small()
    names = {name for name, p in net.named_parameters() if any(p is k for k in hidden_kernels(net))}
    assert "mid.0.res.conv1.weight" in names
    assert "mid.0.attention.qkv.weight" in names
    assert not names & {"conv_in.weight", "conv_out.weight", "label.weight", "time.0.weight"}
    assert not any(name.endswith("bias") or "norm" in name for name in names)


def test_an_update_is_as_large_as_the_rate_says_whatever_the_gradient_is():
    for scale in (1e-3, 1e3):
        net = small()
        optimizer = build_optimizer(net, TrainConfig(optimizer="muon", lr=0.01))
        before = net.mid[0].res.conv1.weight.clone()
        for p in net.parameters():
            p.grad = scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
        optimizer.step()
        moved = (net.mid[0].res.conv1.weight - before).flatten(1)
        values = torch.linalg.svdvals(moved) / (0.2 * 0.01 * max(moved.shape) ** 0.5)
        assert ((values > 0.5) & (values < 1.25)).all()


def test_a_step_that_is_not_finite_changes_nothing():
    net = small()
    optimizer = build_optimizer(net, TrainConfig(optimizer="muon", lr=0.01, weight_decay=0.1))
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    before = [p.clone() for p in net.parameters()]
    moments = [m.clone() for s in optimizer.state.values() for m in s.values()]
    for p in net.parameters():
        p.grad = torch.full_like(p, torch.nan)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    for a, b in zip(before, net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    after = [m for s in optimizer.state.values() for m in s.values()]
    for a, b in zip(moments, after, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
