"""The same jobs, done with three libraries: ours, diffusers and denoising-diffusion-pytorch.

A contestant trains on uint8 digits or colour images by its own library's training step, as that
library's documentation writes it, and samples by that library's own sampler. `Machine` says on what
and how: the same for all.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

Network = str  # "paper": DDPM's CIFAR-10 network; "small": about a million parameters


class Trainee(Protocol):
    """One library, ready to train.

    Those of the peers also have sample(y), which gives uint8 images (B, C, H, W) for labels (B,),
    as the averaged weights make them.
    """

    parameters: int

    def step(self, x0: Tensor, y: Tensor, progress: float) -> None:
        """A step on x0 in [−1, 1] and labels, `progress` of the way through training."""
        ...


@dataclass(frozen=True)
class Machine:
    """Where a network trains, in which precision, and whether it is compiled."""

    device: str = "cpu"
    precision: str = "no"
    """no (float32) or bf16: autocast, as accelerate does it."""
    mode: str | None = None
    """torch.compile's mode, such as default; None: not compiled."""

    def accelerator(self) -> Any:
        from accelerate import Accelerator

        return Accelerator(cpu=self.device == "cpu", mixed_precision=self.precision)

    def compiled(self, net: Any) -> Any:
        return net if self.mode is None else torch.compile(net, mode=self.mode, dynamic=False)


CPU = Machine()


def cosine_lr(optimizer: Any, lr: float, progress: float, warmup: float = 0.02) -> None:
    """A rise over the first 2 % of the time, then a cosine to zero."""
    rise = min(1.0, (progress + 1e-4) / warmup)
    for group in optimizer.param_groups:
        group["lr"] = lr * rise * (1 + math.cos(math.pi * progress)) / 2


# ---- ours ------------------------------------------------------------------------------------


class Ours:
    """One step of `ddpm.train`, with its EMA."""

    def __init__(self, network: Network, channels: int, classes: int, machine: Machine = CPU):
        from ddpm import EMA, build, build_loss
        from ddpm.config import Config, DataInfo, DiffusionConfig, TrainConfig
        from ddpm.training.optimizers import build_optimizer
        from ddpm.training.train import train_step
        from ddpm.utils.device import to_device

        self.train_step, self.config = train_step, TrainConfig()
        width, mults = (128, (1, 2, 2, 2)) if network == "paper" else (32, (1, 2, 2))
        unet = replace(Config().unet, channels=width, mults=mults, film=False, dropout=0.1)
        config = Config(unet=unet, diffusion=DiffusionConfig("linear", target="eps"))
        info = DataInfo("benchmark", 1, channels, 32, 32, tuple(map(str, range(classes))), "")
        net, diffusion = build(config, info)
        to_device(net, machine.device)
        self.loss_fn = build_loss(config, diffusion.to(machine.device))
        self.parameters = sum(p.numel() for p in net.parameters())
        self.ema = EMA(net, 0.9999)
        self.raw = net
        self.accelerator = machine.accelerator()
        net, self.optimizer = self.accelerator.prepare(net, build_optimizer(net, self.config))
        self.net = machine.compiled(net)

    def step(self, x0: Tensor, y: Tensor, progress: float) -> None:
        self.train_step(
            self.accelerator, self.net, self.loss_fn, self.optimizer, 0, x0, None, 2e-4, self.config
        )
        self.ema.update(self.raw)


# ---- diffusers -------------------------------------------------------------------------------


@dataclass
class DiffusersSettings:
    widths: tuple[int, ...]
    attention: tuple[int, ...]
    """Levels that have it."""
    lr: float
    classes: int = 0
    prediction: str = "epsilon"
    schedule: str = "linear"
    dropout: float = 0.0
    heads: int | None = 8
    groups: int = 32
    steps: int = 25
    guidance: float = 1.0
    ema: float = 0.999
    decay: bool = False
    channels_last: bool = False
    solver: str = "DDIMScheduler"
    spacing: str = "leading"


class Diffusers:
    """The loop of diffusers' tutorial on unconditional training, with its EMAModel."""

    def __init__(
        self, settings: DiffusersSettings, channels: int, size: int, machine: Machine = CPU
    ):
        import diffusers
        from diffusers.training_utils import EMAModel

        s = self.settings = settings
        down = ["DownBlock2D"] * len(s.widths)
        up = ["UpBlock2D"] * len(s.widths)
        for level in s.attention:
            down[level], up[len(up) - 1 - level] = "AttnDownBlock2D", "AttnUpBlock2D"
        net: Any = diffusers.UNet2DModel(
            sample_size=size, in_channels=channels, out_channels=channels, layers_per_block=2,
            block_out_channels=s.widths, down_block_types=tuple(down), up_block_types=tuple(up),
            num_class_embeds=s.classes + 1 if s.classes else None, dropout=s.dropout,
            attention_head_dim=s.heads, norm_num_groups=s.groups,
        )  # fmt: skip
        net = net.to(machine.device)
        if s.channels_last:
            net = net.to(memory_format=torch.channels_last)
        self.shape = (channels, size, size)
        self.parameters = sum(p.numel() for p in net.parameters())
        kind = getattr(diffusers, s.solver)
        options = {"beta_schedule": s.schedule, "prediction_type": s.prediction}
        self.noising: Any = diffusers.DDPMScheduler(1000, **options)
        self.sampler = kind(num_train_timesteps=1000, timestep_spacing=s.spacing, **options)
        self.accelerator = machine.accelerator()
        net, self.optimizer = self.accelerator.prepare(
            net, torch.optim.AdamW(net.parameters(), lr=s.lr)
        )
        self.net = machine.compiled(net)
        self.ema = EMAModel(net.parameters(), decay=s.ema, use_ema_warmup=True, power=0.75)

    def step(self, x0: Tensor, y: Tensor, progress: float) -> None:
        s = self.settings
        if s.decay:
            cosine_lr(self.optimizer, s.lr, progress)
        noise = torch.randn_like(x0)
        t = torch.randint(0, 1000, (len(x0),), device=x0.device)
        x_t = self.noising.add_noise(x0, noise, t)
        target = noise if s.prediction == "epsilon" else self.noising.get_velocity(x0, noise, t)
        if s.classes:
            y = torch.where(torch.rand(len(y), device=y.device) < 0.1, s.classes, y)
        with self.accelerator.accumulate(self.net):
            out = self.net(x_t, t, class_labels=y if s.classes else None, return_dict=False)[0]
            loss = torch.nn.functional.mse_loss(out, target)
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.ema.step(self.net.parameters())

    @torch.inference_mode()
    def sample(self, y: Tensor) -> Tensor:
        s = self.settings
        self.ema.store(self.net.parameters())
        self.ema.copy_to(self.net.parameters())
        self.net.eval()
        x = torch.randn(len(y), *self.shape)
        self.sampler.set_timesteps(s.steps)
        for t in self.sampler.timesteps:
            if s.classes:
                both = torch.cat([y, torch.full_like(y, s.classes)])
                out = self.net(torch.cat([x, x]), t, class_labels=both, return_dict=False)[0]
                given, null = out.chunk(2)
                out = null + s.guidance * (given - null)
            else:
                out = self.net(x, t, return_dict=False)[0]
            x = self.sampler.step(out, t, x).prev_sample
        self.net.train()
        self.ema.restore(self.net.parameters())
        return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


# ---- denoising-diffusion-pytorch -------------------------------------------------------------


@dataclass
class LucidrainsSettings:
    dim: int
    mults: tuple[int, ...]
    lr: float
    classes: int = 0
    accumulate: int = 1
    objective: str = "pred_v"
    schedule: str = "sigmoid"
    min_snr: bool = False
    steps: int = 25
    guidance: float = 1.0
    ema: float = 0.995
    ema_every: int = 10
    decay: bool = False
    channels_last: bool = False
    full_attention: tuple[bool, ...] | None = None


class Lucidrains:
    """The step of denoising-diffusion-pytorch's Trainer, with its EMA."""

    def __init__(
        self, settings: LucidrainsSettings, channels: int, size: int, machine: Machine = CPU
    ):
        import denoising_diffusion_pytorch as plain
        from denoising_diffusion_pytorch import classifier_free_guidance as guided
        from ema_pytorch import EMA

        s = self.settings = settings
        common = {"timesteps": 1000, "sampling_timesteps": s.steps, "image_size": size,
                  "objective": s.objective, "beta_schedule": s.schedule,
                  "min_snr_loss_weight": s.min_snr, "ddim_sampling_eta": 0.0}  # fmt: skip
        if s.classes:
            net = guided.Unet(
                s.dim, s.classes, cond_drop_prob=0.1, dim_mults=s.mults, channels=channels
            )
            diffusion = guided.GaussianDiffusion(net, **common)
        else:
            net = plain.Unet(
                s.dim, dim_mults=s.mults, channels=channels, flash_attn=True,
                full_attn=s.full_attention,
            )  # fmt: skip
            diffusion = plain.GaussianDiffusion(net, **common)
        diffusion = diffusion.to(machine.device)
        if s.channels_last:
            diffusion = diffusion.to(memory_format=torch.channels_last)
        self.parameters = sum(p.numel() for p in net.parameters())
        self.accelerator = machine.accelerator()
        first = 100 if s.ema_every == 10 else 0  # ema_pytorch's own default, and the Trainer's
        self.ema = EMA(diffusion, beta=s.ema, update_every=s.ema_every, update_after_step=first)
        optimizer = torch.optim.Adam(diffusion.parameters(), lr=s.lr, betas=(0.9, 0.99))
        self.diffusion, self.optimizer = self.accelerator.prepare(diffusion, optimizer)
        self.diffusion.model = machine.compiled(diffusion.model)

    def step(self, x0: Tensor, y: Tensor, progress: float) -> None:
        s = self.settings
        if s.decay:
            cosine_lr(self.optimizer, s.lr, progress)
        images = (x0 + 1) / 2
        for part, labels in zip(images.chunk(s.accumulate), y.chunk(s.accumulate), strict=True):
            loss = self.diffusion(part, classes=labels) if s.classes else self.diffusion(part)
            self.accelerator.backward(loss / s.accumulate)
        self.accelerator.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    @torch.inference_mode()
    def sample(self, y: Tensor) -> Tensor:
        s, model = self.settings, self.ema.ema_model
        model.eval()
        if s.classes:
            x = model.sample(y, cond_scale=s.guidance, rescaled_phi=0.0)
        else:
            x = model.sample(batch_size=len(y))
        return (x * 255).round().clamp(0, 255).to(torch.uint8)
