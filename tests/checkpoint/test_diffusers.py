"""To and from diffusers: the same images go in, the same come out."""

import ast
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ddpm import UserError, load, preset
from ddpm.checkpoint.checkpoint import PRETRAINED, Checkpoint, build_diffusion, build_net
from ddpm.checkpoint.diffusers import WEIGHTS, read_config, read_diffusers, write_diffusers
from ddpm.checkpoint.single_file import EXPORTED, single_file_source
from ddpm.cli.main import main
from ddpm.config import Config, DataInfo, DiffusionConfig, SampleConfig, UNetConfig
from ddpm.generation.generate import denoise_trajectory
from lazy import optional

diffusers = optional("diffusers")


@pytest.fixture(autouse=True)
def own_modules(tmp_path_factory, monkeypatch):
    """Copies of folders' code, which diffusers makes, are not kept."""
    cache = str(tmp_path_factory.mktemp("modules"))
    monkeypatch.setattr(diffusers.utils.dynamic_modules_utils, "HF_MODULES_CACHE", cache)


SMALL = UNetConfig(channels=16, mults=(1, 2), attention=(2,), groups=8, film=False)
NETWORKS = {
    "additive": SMALL,
    "film": replace(SMALL, film=True),
    "two heads": replace(SMALL, heads=2),
    "three levels, attention at two": replace(SMALL, mults=(1, 2, 2), attention=(1, 4), blocks=1),
    "narrowing": replace(SMALL, mults=(1, 3, 2), attention=()),
    "as improved-diffusion": replace(SMALL, conventions="improved-diffusion"),
}
FINE = "folded, with a stage at full resolution"
OTHERS = {  # what no UNet2DModel is
    "folded": replace(SMALL, patch=2, attention=(4,)),
    FINE: replace(SMALL, patch=2, attention=(2,), fine=8),
    "folded, as improved-diffusion": replace(
        SMALL, patch=2, attention=(), conventions="improved-diffusion"
    ),
    "a wide first level": replace(SMALL, mults=(2, 2)),
    "heads of two widths": replace(SMALL, mults=(1, 2), attention=(1,), heads=2),
}


def random_checkpoint(unet=SMALL, classes=(), channels=3, side=16, **options):
    """Every weight random: layers that start at zero would hide mistakes."""
    torch.manual_seed(0)
    config = Config(unet=unet, **options)
    data = DataInfo("noise", 10, channels, side, side, tuple(classes), "f")
    net = build_net(config, data).eval().requires_grad_(False)
    for p in net.parameters():
        p.normal_(0, 0.2 if p.ndim == 1 else p[0].numel() ** -0.5)
    return Checkpoint(net, build_diffusion(config), config, data, 7, 70)


def images(*shape):
    g = torch.Generator().manual_seed(1)
    return torch.randn(4, *(shape or (3, 16, 16)), generator=g), torch.tensor([1, 2, 500, 1000])


def assert_same(ours, theirs, tolerance=1e-4):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def loaded(folder):
    """What diffusers loads, told to trust the folder's code."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_diffusers_computes_the_same(name, tmp_path):
    checkpoint = random_checkpoint(NETWORKS[name])
    write_diffusers(checkpoint, tmp_path)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    x, t = images()
    assert_same(checkpoint.net(x, t), pipeline.unet(x, t - 1).sample)


@torch.inference_mode()
def test_classes_and_gray(tmp_path):
    checkpoint = random_checkpoint(classes=("cat", "dog"), channels=1)
    write_diffusers(checkpoint, tmp_path)
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path, subfolder="unet")
    (x, t), y = images(1, 16, 16), torch.tensor([0, 1, 2, 0])  # 2: no class
    assert_same(checkpoint.net(x, t, y), theirs(x, t - 1, class_labels=y).sample)


@pytest.mark.parametrize(
    ("name", "side"),
    [*((name, 16) for name in OTHERS), ("additive", 15), ("folded", 13), (FINE, 13)],
)
@torch.inference_mode()
def test_every_other_network_carries_its_code(name, side, tmp_path):
    checkpoint = random_checkpoint({**NETWORKS, **OTHERS}[name], ("cat", "dog"), side=side)
    assert write_diffusers(checkpoint, tmp_path)
    (x, t), y = images(3, side, side), torch.tensor([0, 1, 2, 0])
    theirs = loaded(tmp_path).unet
    assert_same(checkpoint.net(x, t, y), theirs(x, t - 1, class_labels=y).sample, 1e-5)
    assert_same(checkpoint.net(x, t), theirs(x, t - 1).sample, 1e-5)
    again = read_diffusers(tmp_path)
    assert (again.config, again.data) == (checkpoint.config, checkpoint.data)
    assert again.weights_hash() == checkpoint.weights_hash()


@pytest.mark.parametrize("name", PRETRAINED)
@torch.inference_mode()
def test_bundled_weights_are_the_same_function_and_images(name, tmp_path):
    checkpoint = load(name)
    write_diffusers(checkpoint, tmp_path)
    x, t = images(*checkpoint.data.shape)
    y = torch.tensor([0, 3, 9, 10]) if checkpoint.conditional else None
    pipeline = loaded(tmp_path)
    assert_same(checkpoint.net(x, t, y), pipeline.unet(x, t - 1, class_labels=y).sample, 1e-5)

    theirs = pipeline(2, generator=torch.manual_seed(3), output_type="np").images
    torch.manual_seed(3)
    *_, last = denoise_trajectory(
        checkpoint.net, checkpoint.diffusion, lambda: torch.randn(2, *checkpoint.data.shape),
        torch.tensor([0, 1]) if checkpoint.conditional else None,
        replace(checkpoint.config.sample, precision="no"),  # what the pipeline is loaded in
        len(checkpoint.data.classes),
    )  # fmt: skip
    ours = (last.x / 2 + 0.5).permute(0, 2, 3, 1)
    assert_same(ours, torch.from_numpy(theirs), 1e-3)


@pytest.mark.parametrize("unet", ["film", "folded"])
@pytest.mark.parametrize(
    "diffusion",
    [DiffusionConfig("flow", 100, "u"), DiffusionConfig("edm", 100, "F"),
     DiffusionConfig("edm", 100, "x0"), DiffusionConfig("cosine", 100, "F", sigma_data=0.7),
     DiffusionConfig("flow", 100, "u", learned_variance=True)],
)  # fmt: skip
@torch.inference_mode()
def test_other_processes_carry_their_code(diffusion, unet, tmp_path):
    sampler = "ddpm" if diffusion.learned_variance else "heun"
    sample = SampleConfig(sampler, steps=5, spacing="log-snr", eps_scale=1.02)
    checkpoint = random_checkpoint({**NETWORKS, **OTHERS}[unet], diffusion=diffusion, sample=sample)
    assert write_diffusers(checkpoint, tmp_path)
    assert read_diffusers(tmp_path).config == checkpoint.config
    theirs = loaded(tmp_path)(2, generator=torch.manual_seed(3), output_type="np").images
    torch.manual_seed(3)
    *_, last = denoise_trajectory(
        checkpoint.net, checkpoint.diffusion, lambda: torch.randn(2, 3, 16, 16), None, sample
    )
    assert last.x.std() > 0.1
    assert_same((last.x / 2 + 0.5).permute(0, 2, 3, 1), torch.from_numpy(theirs), 1e-3)


@pytest.mark.parametrize("sampler", ["ddim", "heun"])
def test_the_pipeline_asks_for_classes(sampler, tmp_path):
    """Settings of every sampler pass, and names, numbers and no class do."""
    sample = SampleConfig(
        sampler, steps=3, spacing="log-snr", eta=0.5, guidance=2.0, eps_scale=1.02
    )
    checkpoint = random_checkpoint(OTHERS["folded"], classes=("cat", "dog"), sample=sample)
    write_diffusers(checkpoint, tmp_path)
    pipeline = loaded(tmp_path)

    def made(*args, **options):
        images = pipeline(*args, generator=torch.manual_seed(0), output_type="np", **options).images
        return torch.from_numpy(images)

    alternate = made(4)
    assert_same(alternate[1:2], made(4, ["cat", "dog"])[1:2])
    assert_same(made(2, "dog"), made(2, 1))
    assert not torch.equal(made(2, "dog"), made(2, "cat"))
    assert not torch.equal(made(2, "dog"), made(2, "dog", guidance_scale=5))
    assert_same(made(2, "dog", guidance_scale=0), made(2, 2, guidance_scale=1))  # 2 is no class
    assert not torch.equal(made(2, "dog"), made(2, "dog", num_inference_steps=5))
    with pytest.raises(ValueError, match="there are 2 classes, and no number 7"):
        made(1, 7)
    numbers = ["1", "10", "2"]  # where names are numbers, no number is a place
    assert pipeline.labels(None, 4, numbers).tolist() == [0, 1, 2, 0]
    assert pipeline.labels([2, "10"], 2, numbers).tolist() == [2, 1]
    with pytest.raises(ValueError, match="and no number 0"):
        pipeline.labels(0, 1, numbers)
    assert pipeline(1).images[0].size == (16, 16)


@torch.inference_mode()
def test_a_folder_that_diffusers_saved_again_is_read(tmp_path):
    checkpoint = random_checkpoint(OTHERS["folded"], classes=("cat", "dog"))
    write_diffusers(checkpoint, tmp_path / "a")
    loaded(tmp_path / "a").save_pretrained(tmp_path / "b")
    again = read_diffusers(tmp_path / "b")
    assert (again.config, again.data) == (checkpoint.config, checkpoint.data)
    assert again.weights_hash() == checkpoint.weights_hash()


@torch.inference_mode()
def test_their_samplers_take_our_network(tmp_path):
    """Folded as it is, it is a model of times 0 … T − 1 to them."""
    write_diffusers(random_checkpoint(OTHERS["folded"]), tmp_path)
    scheduler = diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2")
    theirs = diffusers.DDIMPipeline(loaded(tmp_path).unet, scheduler)
    theirs.set_progress_bar_config(disable=True)
    assert theirs(2, num_inference_steps=3, output_type="np").images.shape == (2, 16, 16, 3)


@torch.inference_mode()
def test_half_precision(tmp_path):
    checkpoint = random_checkpoint(OTHERS["folded"])
    write_diffusers(checkpoint, tmp_path)
    x, t = images()
    half = loaded(tmp_path).to(torch.bfloat16).unet(x, t - 1).sample
    assert_same(checkpoint.net(x, t), half, 0.2)


def test_half_precision_of_a_network_of_theirs_with_classes(tmp_path):
    checkpoint = random_checkpoint(classes=("cat", "dog"), sample=SampleConfig(steps=2))
    write_diffusers(checkpoint, tmp_path)
    pipeline = loaded(tmp_path).to(torch.bfloat16)
    assert np.isfinite(pipeline(batch_size=1, output_type="np").images).all()


def test_code_is_run_only_where_it_is_trusted(tmp_path):
    write_diffusers(random_checkpoint(OTHERS["folded"]), tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code"):
        diffusers.DiffusionPipeline.from_pretrained(tmp_path)


def test_exported_code_stands_alone():
    """It asks for nothing but torch, diffusers and Python itself, and no name stands for two
    things."""
    for name in ("unet", "pipeline"):
        tree = ast.parse(single_file_source(EXPORTED / f"{name}.py"))
        imported = {n.module.split(".")[0] for n in tree.body if isinstance(n, ast.ImportFrom)}
        imported |= {a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names}
        assert imported <= {"torch", "diffusers"} | sys.stdlib_module_names
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
        defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        assert len(defined) == len(set(defined))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize(
    ("T", "target", "variance", "zero_snr"),
    [(1000, "v", "beta", False), (2000, "x0", "beta-tilde", False), (1000, "v", "beta", True)],
)
def test_the_process_is_the_same(schedule, T, target, variance, zero_snr, tmp_path):
    diffusion = DiffusionConfig(schedule, T, target, zero_snr=zero_snr)
    sample = SampleConfig(steps=10, variance=variance)
    checkpoint = random_checkpoint(diffusion=diffusion, sample=sample)
    write_diffusers(checkpoint, tmp_path)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    theirs = pipeline.scheduler
    assert_same(checkpoint.diffusion.schedule.alpha_bar[1:], theirs.alphas_cumprod)
    assert theirs.config.prediction_type == {"v": "v_prediction", "x0": "sample"}[target]
    assert theirs.config.variance_type == {"beta": "fixed_large"}.get(variance, "fixed_small")
    assert read_diffusers(tmp_path).config == checkpoint.config
    theirs.set_timesteps(10)
    assert theirs.timesteps[0] == T - 1  # the noisiest, as what it begins with is noise alone
    pipeline.save_pretrained(tmp_path / "again")  # without a header of ours
    assert read_diffusers(tmp_path / "again").config.diffusion == diffusion


@torch.inference_mode()
def test_a_process_that_their_default_of_1000_steps_is_not_for_has_a_pipeline_of_its_own(tmp_path):
    checkpoint = random_checkpoint(
        diffusion=DiffusionConfig("cosine", 50, "v"), sample=SampleConfig(steps=5)
    )
    assert write_diffusers(checkpoint, tmp_path)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    assert np.isfinite(pipeline(batch_size=1, output_type="np").images).all()


@torch.inference_mode()
@pytest.mark.parametrize("changed", ["attn_norm_num_groups", "weights"])
def test_what_no_shape_tells_is_refused(changed, tmp_path):
    write_diffusers(random_checkpoint(diffusion=DiffusionConfig("linear")), tmp_path)
    diffusers.DDPMPipeline.from_pretrained(tmp_path).save_pretrained(tmp_path / "theirs")
    unet = tmp_path / "theirs" / "unet"
    if changed == "weights":
        tensors = load_file(unet / WEIGHTS)
        tensors["conv_in.weight"][0, 0, 0, 0] = torch.nan
        save_file(tensors, unet / WEIGHTS)
        what = "NaN or infinite"
    else:
        change(unet / "config.json", attn_norm_num_groups=2, resnet_time_scale_shift="default")
        what = "attn_norm_num_groups = 2"
    with pytest.raises(UserError, match=what):
        read_diffusers(tmp_path / "theirs")


@torch.inference_mode()
def test_a_learned_variance_is_theirs_and_back(tmp_path):
    diffusion = DiffusionConfig("linear", target="eps", learned_variance=True)
    sample = SampleConfig("ddpm", steps=1000)
    checkpoint = random_checkpoint(diffusion=diffusion, sample=sample)
    assert not write_diffusers(checkpoint, tmp_path)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    assert pipeline.scheduler.config.variance_type == "learned_range"
    x, t = images()
    assert_same(checkpoint.net(x, t), pipeline.unet(x, t - 1).sample)
    assert pipeline(batch_size=1, num_inference_steps=2, output_type="np").images.shape[0] == 1
    assert read_diffusers(tmp_path).config == checkpoint.config
    pipeline.save_pretrained(tmp_path / "theirs")  # without a header of ours
    change(tmp_path / "theirs" / "model_index.json", header=None)
    save_file(load_file(tmp_path / "unet" / WEIGHTS), tmp_path / "theirs" / "unet" / WEIGHTS)
    again = read_diffusers(tmp_path / "theirs")
    assert again.config.diffusion == diffusion
    assert_same(again.net(x, t), checkpoint.net(x, t))


def test_their_pipeline_makes_images(tmp_path):
    write_diffusers(random_checkpoint(), tmp_path)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    made = pipeline(batch_size=2, num_inference_steps=3, output_type="np").images
    assert made.shape == (2, 16, 16, 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_there_and_back(name, tmp_path):
    checkpoint = random_checkpoint(NETWORKS[name], classes=("cat", "dog"))
    write_diffusers(checkpoint, tmp_path)
    again = read_diffusers(tmp_path)
    assert again.config == checkpoint.config
    assert again.data == checkpoint.data
    assert (again.step, again.images_seen, again.weights) == (7, 70, "ema")
    for name, tensor in checkpoint.net.state_dict().items():
        torch.testing.assert_close(again.net.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def their_pipeline(folder, **options):
    """The layout of the paper's CIFAR-10 network, as diffusers carries it; small, random."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**{
        "sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "attention_head_dim": None,
        "norm_num_groups": 8, "norm_eps": 1e-6, "freq_shift": 1, "flip_sin_to_cos": False,
        "downsample_padding": 0, **options,
    })  # fmt: skip
    scheduler = diffusers.DDPMScheduler(1000, variance_type="fixed_large")
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(folder)
    return unet.eval()


@pytest.mark.parametrize(
    "options",
    [{}, {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 8},
     {"attention_head_dim": 32}, {"num_class_embeds": 5}, {"in_channels": 1, "out_channels": 1},
     {"downsample_padding": 1, "freq_shift": 0, "norm_eps": 1e-5, "flip_sin_to_cos": True},
     {"flip_sin_to_cos": True}],
)  # fmt: skip
@torch.inference_mode()
def test_theirs_is_read(options, tmp_path):
    theirs = their_pipeline(tmp_path, **options)
    ours = read_diffusers(tmp_path)
    x, t = images(options.get("in_channels", 3), 16, 16)
    y = torch.tensor([0, 4, 2, 3]) if "num_class_embeds" in options else None
    assert_same(ours.net(x, t, y), theirs(x, t - 1, class_labels=y).sample)
    assert ours.config.diffusion.schedule == "linear"
    assert ours.config.diffusion.target == "eps"
    assert ours.config.sample.variance == "beta"
    assert len(ours.data.classes) == options.get("num_class_embeds", 0)


def test_their_schedule_that_ends_in_noise_is_read(tmp_path):
    their_pipeline(tmp_path)
    file = tmp_path / "scheduler" / "scheduler_config.json"
    change(file, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    ours = read_diffusers(tmp_path)
    assert ours.config.diffusion.zero_snr
    theirs = diffusers.DDPMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    assert_same(ours.diffusion.schedule.alpha_bar[1:], theirs.alphas_cumprod)


@torch.inference_mode()
def test_the_network_of_their_example_is_read(tmp_path):
    """That of diffusers' example of unconditional training, by its own defaults: a tenth as wide
    here, with as many heads in each level that attends."""
    torch.manual_seed(0)
    down, up = ["DownBlock2D"] * 6, ["UpBlock2D"] * 6
    down[4], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    theirs = diffusers.UNet2DModel(
        sample_size=64, layers_per_block=2, block_out_channels=(16, 16, 32, 32, 64, 64),
        norm_num_groups=8, down_block_types=down, up_block_types=up,
    ).eval()  # fmt: skip
    for p in theirs.parameters():
        p.normal_(0, 0.2 if p.ndim == 1 else p[0].numel() ** -0.5)
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    diffusers.DDPMPipeline(theirs, scheduler).save_pretrained(tmp_path / "a")
    ours = read_diffusers(tmp_path / "a")
    x, t = images(3, 64, 64)
    assert_same(ours.net(x, t), theirs(x, t - 1).sample)
    assert ours.config.unet.heads == 8
    write_diffusers(ours, tmp_path / "b")  # and it is theirs again
    assert_same(ours.net(x, t), loaded(tmp_path / "b").unet(x, t - 1).sample)


@torch.inference_mode()
def test_the_old_layout_is_read(tmp_path):
    """All in one folder, and attention under its old names, as the paper's own were published."""
    theirs = their_pipeline(tmp_path / "new")
    tensors = load_file(tmp_path / "new" / "unet" / WEIGHTS)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, was in old.items():
        tensors = {k.replace(f".{new}.", f".{was}."): v for k, v in tensors.items()}
    (tmp_path / "old").mkdir()
    save_file(tensors, tmp_path / "old" / WEIGHTS, metadata={"format": "pt"})
    for name in ("unet/config.json", "scheduler/scheduler_config.json"):
        text = (tmp_path / "new" / name).read_text()
        (tmp_path / "old" / name.split("/")[1]).write_text(text)
    x, t = images()
    assert_same(read_diffusers(tmp_path / "old").net(x, t), theirs(x, t - 1).sample)


def test_the_papers_preset_is_the_papers_network():
    """The CIFAR-10 checkpoint of DDPM's authors is carried by diffusers with these settings; what
    they say of training is in the paper, Sec. 4 and App. B."""
    model = {
        "act_fn": "silu", "attention_head_dim": None, "block_out_channels": [128, 256, 256, 256],
        "center_input_sample": False, "downsample_padding": 0, "flip_sin_to_cos": False,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "freq_shift": 1, "in_channels": 3, "out_channels": 3, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-6, "norm_num_groups": 32, "sample_size": 32,
        "time_embedding_type": "positional",
    }  # fmt: skip
    scheduler = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4,
                 "beta_end": 0.02, "clip_sample": True, "variance_type": "fixed_large"}  # fmt: skip
    published, data = read_config(model, scheduler, "ddpm-cifar10-32")
    ours = preset("cifar10-paper")
    assert ours.unet == replace(published.unet, dropout=0.1)
    assert ours.diffusion == published.diffusion
    assert ours.sample == published.sample
    assert sum(p.numel() for p in build_net(ours, data).parameters()) == 35_746_307
    assert (ours.train.batch, ours.train.lr, ours.train.warmup) == (128, 2e-4, 5000)
    assert (ours.train.ema, ours.train.grad_clip, ours.train.decay) == (0.9999, 1.0, 0)
    assert (ours.train.betas, ours.train.weight_decay) == ((0.9, 0.999), 0)
    assert (ours.flip, ours.labels, ours.held_out, ours.steps) == (True, False, 0, 800_000)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    their_pipeline(tmp_path / "theirs")
    assert main(["convert", "theirs", "ours.safetensors"]) == 0
    assert load("ours.safetensors").data.channels == 3
    assert load("ours.safetensors").weights == "as given"  # theirs may be averaged or not
    assert main(["convert", "ours.safetensors", "back"]) == 0
    assert (
        diffusers.DDPMPipeline.from_pretrained("back").scheduler.config.num_train_timesteps == 1000
    )
    capsys.readouterr()
    assert main(["evaluate", "ours.safetensors"]) == 1
    assert "does not say what it was trained on" in capsys.readouterr().err
    for words, says in (
        (["ours.safetensors", "back"], "is there already"),
        (["theirs", "ours.safetensors"], "is there already"),
        (["nowhere", "x"], "there is no checkpoint at nowhere"),
        (["theirs", "x.bin"], "end it in .safetensors"),
        (["ours.safetensors", "x.safetensors"], "which a checkpoint of ours is already"),
        (["ours.safetensors", "x.pt"], "which a checkpoint of ours is already"),
    ):
        assert main(["convert", *words]) == 1
        assert says in capsys.readouterr().err


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("file", "values", "says"),
    [
        ("unet/config.json", {"act_fn": "gelu"}, "act_fn = 'gelu'"),
        ("unet/config.json", {"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups"),
        ("unet/config.json", {"freq_shift": 0}, "downsample_padding, freq_shift and norm_eps"),
        ("unet/config.json", {"down_block_types": ["ResnetDownsampleBlock2D"] * 2}, "down_block"),
        ("unet/config.json", {"block_out_channels": [16, 40]}, "block_out_channels"),
        ("unet/config.json", {"sample_size": None}, "sample_size"),
        ("unet/config.json", {"layers_per_block": 1}, "do not fit its own config"),
        ("unet/config.json", {"out_channels": 6}, "out_channels = 6"),
        ("scheduler/scheduler_config.json", {"beta_end": 0.5}, "is none of ours"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatch"}, "_class_name = 'Flow"),
        (
            "scheduler/scheduler_config.json",
            {"rescale_betas_zero_snr": True},
            "choose the target v",
        ),
        ("scheduler/scheduler_config.json", {"clip_sample": False}, "clip_sample = False"),
        ("scheduler/scheduler_config.json", {"clip_sample_range": 2.0}, "sample_range = 2.0"),
        ("scheduler/scheduler_config.json", {"thresholding": True}, "thresholding = True"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "'flow' is not"),
        ("scheduler/scheduler_config.json", {"variance_type": "learned"}, "'learned' is not"),
    ],
)
def test_what_is_not_ours_is_named(file, values, says, tmp_path):
    their_pipeline(tmp_path)
    change(tmp_path / file, **values)
    with pytest.raises(UserError, match=says):
        read_diffusers(tmp_path)


def test_damage_is_named(tmp_path):
    their_pipeline(tmp_path)
    weights = tmp_path / "unet" / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        read_diffusers(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match="a pickle"):
        read_diffusers(tmp_path)
    (tmp_path / "unet" / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_diffusers(tmp_path)
