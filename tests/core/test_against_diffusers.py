"""Where diffusers defines the same thing, it gives the same numbers."""

import pytest
import torch

from ddpm import Diffusion, UNet, cosine, ddim_step, ddpm_step, linear, preset
from ddpm.checkpoint.checkpoint import build_net
from ddpm.config import DataInfo
from ddpm.core.layers import ResBlock
from ddpm.core.schedule import zero_terminal_snr
from lazy import optional

diffusers = optional("diffusers")

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def scheduler(kind="DDPMScheduler", schedule="linear", **options):
    return getattr(diffusers, kind)(
        num_train_timesteps=1000, beta_schedule=schedule, clip_sample=True, **options
    )


@pytest.mark.parametrize(
    ("ours", "theirs"), [(linear(), "linear"), (cosine(), "squaredcos_cap_v2")]
)
def test_schedules(ours, theirs):
    torch.testing.assert_close(
        ours.alpha_bar[1:], scheduler(schedule=theirs).alphas_cumprod, **CLOSE
    )


def test_a_schedule_that_ends_in_noise(generator):
    theirs = scheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    schedule = zero_terminal_snr(linear())
    torch.testing.assert_close(schedule.alpha_bar[1:], theirs.alphas_cumprod, **CLOSE)
    x_t, out = torch.randn(2, 4, 3, 8, 8, generator=generator)
    diffusion = Diffusion(schedule, "v")
    pred = diffusion.predict(lambda x, t, y: out, x_t, 1000)
    ours = diffusion.q_posterior(pred.x0, x_t, 999, 1000)
    expected = theirs.step(out, 999, x_t, generator=torch.Generator().manual_seed(1))
    z = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pred.x0, expected.pred_original_sample, **CLOSE)
    torch.testing.assert_close(
        ours.mean + ours.beta_tilde.sqrt() * z, expected.prev_sample, **CLOSE
    )


@pytest.mark.parametrize("t", [1, 2, 10, 500, 1000])
def test_q_sample(t, generator):
    x0, eps = torch.randn(2, 4, 3, 8, 8, generator=generator)
    theirs = scheduler().add_noise(x0, eps, torch.full((4,), t - 1))
    torch.testing.assert_close(Diffusion(linear()).q_sample(x0, t, eps), theirs, **CLOSE)


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
@pytest.mark.parametrize("variance", ["beta", "beta-tilde"])
@pytest.mark.parametrize("t", [1, 2, 100, 500, 999, 1000])
def test_one_ancestral_step(t, variance, target, generator):
    """Their variance at t = 1 is clipped to 1e-20; ours is 0, and Algorithm 2 adds no noise."""
    kinds = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
    names = {"beta": "fixed_large", "beta-tilde": "fixed_small"}
    x_t, out = torch.randn(2, 4, 3, 8, 8, generator=generator)
    theirs = scheduler(prediction_type=kinds[target], variance_type=names[variance]).step(
        out, t - 1, x_t, generator=torch.Generator().manual_seed(1)
    )
    z = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
    diffusion = Diffusion(linear(), target)
    pred = diffusion.predict(lambda x, t, y: out, x_t, t)
    ours = ddpm_step(diffusion, x_t, pred, t - 1, t, lambda: z, variance=variance)
    torch.testing.assert_close(pred.x0, theirs.pred_original_sample, **CLOSE)
    torch.testing.assert_close(ours, theirs.prev_sample, **CLOSE)


@pytest.mark.parametrize("t", [2, 100, 500, 1000])
def test_one_step_of_a_learned_variance(t, generator):
    x_t, out, v = torch.randn(3, 4, 3, 8, 8, generator=generator)
    both = torch.cat([out, v.tanh()], dim=1)
    theirs = scheduler(prediction_type="v_prediction", variance_type="learned_range").step(
        both, t - 1, x_t, generator=torch.Generator().manual_seed(1)
    )
    z = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
    diffusion = Diffusion(linear(), "v", learned_variance=True)
    pred = diffusion.predict(lambda x, t, y: both, x_t, t)
    ours = ddpm_step(diffusion, x_t, pred, t - 1, t, lambda: z)
    torch.testing.assert_close(ours, theirs.prev_sample, **CLOSE)


@pytest.mark.parametrize("t", [2, 100, 1000])
def test_posterior_variance(t):
    x = torch.zeros(1, 1, 1, 1)
    posterior = Diffusion(linear()).q_posterior(x, x, t - 1, t)
    small = scheduler(variance_type="fixed_small")._get_variance(t - 1)
    large = scheduler(variance_type="fixed_large")._get_variance(t - 1)
    torch.testing.assert_close(posterior.beta_tilde, small, rtol=2e-3, atol=1e-6)
    torch.testing.assert_close(posterior.beta, large, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("t", [20, 500, 980])
def test_one_ddim_step(t, eta, generator):
    x_t, out = torch.randn(2, 4, 3, 8, 8, generator=generator)
    theirs = scheduler("DDIMScheduler", set_alpha_to_one=True)
    theirs.set_timesteps(50)  # a stride of 20
    z = torch.randn(x_t.shape, generator=generator)
    expected = theirs.step(
        out, t - 1, x_t, eta=eta, variance_noise=z, use_clipped_model_output=True
    )
    diffusion = Diffusion(linear())
    pred = diffusion.predict(lambda x, t, y: out, x_t, t)
    ours = ddim_step(diffusion, x_t, pred, t - 20, t, lambda: z, eta=eta)
    if t > 20:  # theirs adds noise at the last step, too
        torch.testing.assert_close(ours, expected.prev_sample, **CLOSE)
    else:
        torch.testing.assert_close(ours, pred.x0, **CLOSE)


def their_unet():
    return diffusers.UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=2,
        block_out_channels=(32, 64, 64, 64), norm_num_groups=32, norm_eps=1e-6,
        attention_head_dim=None, freq_shift=1, flip_sin_to_cos=False, downsample_padding=0,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


def put(target, source):
    target.weight.data.copy_(source.weight.data.view_as(target.weight))
    target.bias.data.copy_(source.bias.data)


def put_res(res, resnet):
    put(res.norm1, resnet.norm1)
    put(res.conv1, resnet.conv1)
    put(res.norm2.project, resnet.time_emb_proj)
    put(res.norm2.norm, resnet.norm2)
    put(res.conv2, resnet.conv2)
    if resnet.conv_shortcut is not None:
        put(res.skip, resnet.conv_shortcut)


def copy_weights(theirs, ours):
    """From their names to ours, module by module, in the order in which both run."""

    def put_block(block, resnet, attention):
        put_res(block.res, resnet)
        assert (attention is None) == (block.attention is None)
        if attention is not None:
            put(block.attention.norm, attention.group_norm)
            parts = (attention.to_q, attention.to_k, attention.to_v)
            weight = torch.cat([p.weight.data for p in parts])
            block.attention.qkv.weight.data.copy_(weight[:, :, None, None])
            block.attention.qkv.bias.data.copy_(torch.cat([p.bias.data for p in parts]))
            put(block.attention.out, attention.to_out[0])

    def put_levels(layers, levels, sampler):
        layers = iter(layers)
        for level in levels:
            attentions = getattr(level, "attentions", [None] * len(level.resnets))
            for resnet, attention in zip(level.resnets, attentions, strict=True):
                put_block(next(layers), resnet, attention)
            if getattr(level, sampler):
                put(next(layers).conv, getattr(level, sampler)[0].conv)
        assert next(layers, None) is None

    put(ours.time[0], theirs.time_embedding.linear_1)
    put(ours.time[2], theirs.time_embedding.linear_2)
    put(ours.conv_in, theirs.conv_in)
    put_levels(ours.down, theirs.down_blocks, "downsamplers")
    put_block(ours.mid[0], theirs.mid_block.resnets[0], theirs.mid_block.attentions[0])
    put_block(ours.mid[1], theirs.mid_block.resnets[1], None)
    put_levels(ours.up, theirs.up_blocks, "upsamplers")
    put(ours.norm_out, theirs.conv_norm_out)
    put(ours.conv_out, theirs.conv_out)


def test_the_unet(generator):
    torch.manual_seed(0)
    theirs, ours = their_unet(), UNet(3, channels=32, film=False, dropout=0.1).eval()
    copy_weights(theirs, ours)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    x = torch.randn(2, 3, 32, 32, generator=generator)
    t = torch.tensor([3, 777])
    with torch.inference_mode():
        torch.testing.assert_close(ours(x, t), theirs(x, t).sample, **CLOSE)


@pytest.mark.parametrize(("film", "name"), [(True, "scale_shift"), (False, "default")])
def test_the_residual_block(film, name, generator):
    from diffusers.models.resnet import ResnetBlock2D

    torch.manual_seed(0)
    theirs = ResnetBlock2D(
        in_channels=32, out_channels=64, temb_channels=16, groups=8, time_embedding_norm=name
    ).eval()
    ours = ResBlock(32, 64, emb=16, groups=8, dropout=0.0, film=film).eval()
    put_res(ours, theirs)
    x, e = torch.randn(2, 32, 8, 8, generator=generator), torch.randn(2, 16, generator=generator)
    torch.testing.assert_close(ours(x, e), theirs(x, e), **CLOSE)


@pytest.mark.parametrize(
    ("name", "size", "widths", "attention"),
    [
        ("cifar10-paper", 32, (128, 256, 256, 256), 1),
        ("celeba64-paper", 64, (128, 256, 256, 256, 512), 2),
    ],
)
def test_the_presets_of_the_paper_have_their_parameters(name, size, widths, attention):
    def blocks(direction):
        names = [f"{direction}Block2D"] * len(widths)
        names[attention] = f"Attn{direction}Block2D"
        return tuple(names if direction == "Down" else names[::-1])

    with torch.device("meta"):
        theirs = diffusers.UNet2DModel(
            sample_size=size, block_out_channels=widths, attention_head_dim=None,
            down_block_types=blocks("Down"), up_block_types=blocks("Up"),
        )  # fmt: skip
        ours = build_net(preset(name), DataInfo("x", 1, 3, size, size, (), ""))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
