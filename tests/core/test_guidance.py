"""Label dropout and classifier-free guidance."""

import pytest
import torch

from ddpm import Diffusion, autoguided, drop_labels, guided, linear
from ddpm.core.guidance import guidance_interval

NULL = 10


def net(x, t, y=None):
    """A network whose output shows which label it was given."""
    y = torch.full_like(t, NULL) if y is None else y
    return x * (1 + y.float())[:, None, None, None]


def test_scale_is_one_plus_w(generator):
    x, t = torch.randn(4, 1, 2, 2, generator=generator), torch.full((4,), 5)
    y = torch.tensor([0, 3, 5, NULL])
    conditional, unconditional = net(x, t, y), net(x, t)
    for scale in (0.0, 1.0, 2.5):
        w = scale - 1
        torch.testing.assert_close(
            guided(net, scale, NULL)(x, t, y), (1 + w) * conditional - w * unconditional
        )
    torch.testing.assert_close(guided(net, 3.0, NULL)(x, t, None), unconditional)


@pytest.mark.parametrize(("scale", "rows"), [(0.0, 4), (1.0, 4), (2.0, 8)])
def test_only_guidance_takes_two_evaluations(scale, rows, generator):
    seen = []

    def counted(x, t, y=None):
        seen.append(len(x))
        return net(x, t, y)

    x, t = torch.randn(4, 1, 2, 2, generator=generator), torch.full((4,), 5)
    guided(counted, scale, NULL)(x, t, torch.tensor([0, 3, 5, 7]))
    assert seen == [rows]


def test_guiding_v_is_guiding_eps(generator):
    """The targets are linear in one another, so guidance may act on whichever there is."""
    diffusion_v = Diffusion(linear(), "v", clip=None)
    diffusion_eps = Diffusion(linear(), "eps", clip=None)
    x_t, t = torch.randn(4, 1, 2, 2, generator=generator), 400
    a = linear().at(t)

    def eps_net(x, t, y=None):
        return a.sqrt() * net(x, t, y) + (1 - a).sqrt() * x  # ε = √ᾱ v + √(1−ᾱ) x_t

    y = torch.tensor([0, 1, 2, 3])
    by_v = diffusion_v.predict(guided(net, 2.0, NULL), x_t, t, y)
    by_eps = diffusion_eps.predict(guided(eps_net, 2.0, NULL), x_t, t, y)
    torch.testing.assert_close(by_v.x0, by_eps.x0, rtol=1e-3, atol=1e-4)


def test_labels_are_dropped_at_their_share_and_else_kept(generator):
    y = torch.arange(10).repeat(1000)
    dropped = drop_labels(y, 0.2, NULL, generator)
    assert (dropped == NULL).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert torch.equal(dropped[dropped != NULL], y[dropped != NULL])
    assert torch.equal(drop_labels(y, 0.0, NULL), y)
    assert (drop_labels(y, 1.0, NULL) == NULL).all()


def test_autoguidance_goes_from_the_guide_past_the_network(generator):
    x, t = torch.randn(4, 1, 2, 2, generator=generator), torch.full((4,), 5)
    weak = lambda x, t, y=None: 0.5 * net(x, t, y)  # noqa: E731
    for y in (None, torch.tensor([0, 3, 5, 7])):
        strong = net(x, t, y)
        torch.testing.assert_close(autoguided(net, weak, 1.0)(x, t, y), strong)
        torch.testing.assert_close(autoguided(net, weak, 0.0)(x, t, y), 0.5 * strong)
        torch.testing.assert_close(autoguided(net, weak, 3.0)(x, t, y), 2.0 * strong)


def test_a_learned_variance_is_that_of_the_network_with_the_class(generator):
    def with_variance(x, t, y=None):
        return torch.cat([net(x, t, y), net(x, t, y) + 1], dim=1)

    weak = lambda x, t, y=None: 0.5 * with_variance(x, t, y)  # noqa: E731
    x, t = torch.randn(4, 2, 2, 2, generator=generator), torch.full((4,), 5)
    y = torch.tensor([0, 3, 5, 7])
    for guided_net, plain in (
        (guided(with_variance, 3.0, NULL), guided(net, 3.0, NULL)),
        (autoguided(with_variance, weak, 3.0), autoguided(net, lambda *a: 0.5 * net(*a), 3.0)),
    ):
        mean, variance = guided_net(x, t, y).chunk(2, dim=1)
        torch.testing.assert_close(mean, plain(x, t, y))
        torch.testing.assert_close(variance, net(x, t, y) + 1)


def test_guidance_in_an_interval_begins_above_its_low_end_and_includes_its_high_one():
    diffusion, x = Diffusion(linear(100)), torch.ones(2, 1, 2, 2)
    strong, plain = diffusion.denoiser(guided(net, 3.0, NULL)), diffusion.denoiser(net)
    seen = []
    denoise = guidance_interval(
        lambda x, t: seen.append(t) or strong(x, t), plain, low=20.0, high=70.0
    )
    for t in range(1, 101):
        denoise(x, t)
    assert seen == list(range(21, 71))
