"""The network: the paper's size, diffusers' numbers, any image, any number of channels."""

import pytest
import torch
from torch.nn import functional as F

from ddpm import UNet, build, preset
from ddpm.checkpoint.checkpoint import build_net
from ddpm.config import DataInfo
from ddpm.core.layers import Attention, Down, Up, norm, timestep_embedding

SMALL = {"channels": 16, "mults": (1, 2, 2), "blocks": 1, "attention": (2,), "groups": 8}


def info(channels, side, classes=()):
    return DataInfo("x", 1, channels, side, side, classes, "")


def noisy(net, generator):
    """Fill zero-initialised layers too, so that every path counts."""
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return net.eval()


def test_the_papers_network_has_the_papers_parameters():
    net, diffusion = build(preset("cifar10-paper"), info(3, 32))
    assert sum(p.numel() for p in net.parameters()) == 35_746_307
    assert (diffusion.T, diffusion.target) == (1000, "eps")


def test_the_network_for_faces_is_the_same_with_a_fifth_level():
    with torch.device("meta"):
        net = build_net(preset("celeba64-paper"), info(3, 64))
    assert len(net.down) == 5 * 2 + 4
    attended = [m.attention is not None for m in net.down if hasattr(m, "attention")]
    assert attended == [False] * 4 + [True] * 2 + [False] * 4  # at 16x16 alone


@pytest.mark.parametrize("size", [(28, 28), (30, 44), (32, 32), (64, 64), (9, 13), (8, 8), (1, 1)])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_any_size_comes_out_as_it_went_in(size, patch, generator):
    net = noisy(UNet(1, patch=patch, **SMALL | {"attention": (2 * patch,)}), generator)
    x = torch.randn(2, 1, *size, generator=generator)
    out = net(x, torch.tensor([1, 1000]))
    assert out.shape == x.shape
    assert out.isfinite().all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_any_number_of_channels(channels, generator):
    net = noisy(UNet(channels, **SMALL), generator)
    x = torch.randn(2, channels, 16, 16, generator=generator)
    assert net(x, torch.tensor([1, 2])).shape == x.shape


def test_it_starts_by_predicting_zero(generator):
    x = torch.randn(2, 3, 16, 16, generator=generator)
    assert (UNet(3, **SMALL)(x, torch.tensor([1, 2])) == 0).all()


@pytest.mark.parametrize("film", [True, False])
def test_time_and_class_matter_in_every_block(film, generator):
    net = noisy(UNet(1, num_classes=3, film=film, **SMALL), generator)
    x = torch.randn(1, 1, 16, 16, generator=generator)
    t, y = torch.tensor([10]), torch.tensor([0])
    out = net(x, t, y)
    assert not torch.allclose(out, net(x, t + 500, y))
    assert not torch.allclose(out, net(x, t, y + 1))
    torch.testing.assert_close(net(x, t), net(x, t, torch.tensor([3])))  # None is the null class
    blocks = [m for m in net.modules() if hasattr(m, "norm2")]
    assert len(blocks) == 3 + 2 + 6  # down, middle, up
    for block in blocks:
        kept = block.norm2.project.weight.clone()
        block.norm2.project.weight.data.zero_()
        assert not torch.allclose(out, net(x, t, y))
        block.norm2.project.weight.data.copy_(kept)


def test_dropout_acts_in_training_alone(generator):
    net = noisy(UNet(1, dropout=0.5, **SMALL), generator)
    x, t = torch.randn(1, 1, 16, 16, generator=generator), torch.tensor([10])
    torch.testing.assert_close(net(x, t), net(x, t), rtol=0, atol=0)
    net.train()
    assert not torch.allclose(net(x, t), net(x, t))


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="groups"):
        UNet(1, channels=20, groups=8, attention=())
    with pytest.raises(ValueError, match="levels are at"):
        UNet(1, **SMALL | {"attention": (16,)})
    with pytest.raises(ValueError, match="heads"):
        UNet(1, heads=3, **SMALL)


def test_layers_keep_their_promises(generator):
    x = torch.randn(2, 8, 7, 10, generator=generator)
    assert Down(8)(x).shape == (2, 8, 4, 5)
    assert Up(8)(torch.randn(2, 8, 4, 5), x.shape[-2:]).shape == x.shape
    torch.testing.assert_close(Attention(8, groups=4, heads=2)(x), x)  # zero at first
    emb = timestep_embedding(torch.tensor([0, 1, 1000]), 16)
    assert emb.shape == (3, 16)
    torch.testing.assert_close(emb[0], torch.tensor([0.0] * 8 + [1.0] * 8))


@pytest.mark.parametrize(("size", "patch"), [((8, 8), 2), ((9, 13), 4)])
def test_a_fine_stage_begins_as_nothing_and_then_counts(size, patch, generator):
    small = {"channels": 16, "mults": (1, 2), "blocks": 1, "attention": (), "groups": 4}
    torch.manual_seed(0)
    plain = UNet(3, 2, patch=patch, **small)
    fine = UNet(3, 2, patch=patch, fine=8, **small)
    torch.nn.init.normal_(plain.conv_out.weight)
    missing = fine.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith("fine.") for name in missing.missing_keys)
    x, t = torch.randn(2, 3, *size, generator=generator), torch.tensor([3, 900])
    torch.testing.assert_close(fine(x, t), plain(x, t), rtol=0, atol=0)
    torch.nn.init.normal_(fine.fine.conv_out.weight)
    torch.nn.init.normal_(fine.fine.fold.weight)
    assert fine(x, t).shape == x.shape
    assert not torch.allclose(fine(x, t), plain(x, t))


def test_norms_under_autocast_are_rounded_once():
    torch.manual_seed(0)
    layer, h = norm(4, 8), torch.randn(2, 8, 5, 5).bfloat16() + 3
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = layer(h)
    torch.testing.assert_close(found, F.group_norm(h.float(), 4).bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_precision_computes_in_it(dtype: torch.dtype):
    h = torch.randn(2, 8, 5, 5, dtype=dtype)
    assert norm(4, 8).to(dtype)(h).dtype == dtype
