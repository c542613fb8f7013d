"""Denoising diffusion from scratch: each equation of the papers in one place, under its number.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint.checkpoint import Checkpoint, build, build_loss, load, save
    from .config import Config, preset
    from .core.diffusion import Diffusion
    from .core.editing import inpaint, invert, slerp
    from .core.ema import EMA
    from .core.guidance import autoguided, drop_labels, guided
    from .core.likelihood import variational_bound
    from .core.loss import Loss
    from .core.process import Process
    from .core.sampling import Churn, ddim_step, ddpm_step, dpmpp_step, heun_step, sample, timesteps
    from .core.schedule import Schedule, cosine, edm, flow, linear, sigmoid, zero_terminal_snr
    from .core.types import Prediction
    from .core.unet import UNet
    from .data.batches import Batches
    from .data.dataset import ImageDataset
    from .data.load import load_images
    from .evaluation.evaluate import evaluate
    from .evaluation.metrics import frechet_distance
    from .evaluation.reference import Reference, load_reference
    from .evaluation.report import Report
    from .generation.generate import Edit, generate
    from .generation.output import Samples
    from .training.train import train
    from .utils.errors import UserError
    from .utils.images import grid, to_float, to_uint8
    from .utils.random import ImageNoise

__version__ = "0.1.0"

_MODULES = {
    "Schedule": "core.schedule",
    "linear": "core.schedule",
    "cosine": "core.schedule",
    "sigmoid": "core.schedule",
    "edm": "core.schedule",
    "flow": "core.schedule",
    "zero_terminal_snr": "core.schedule",
    "Process": "core.process",
    "Diffusion": "core.diffusion",
    "Prediction": "core.types",
    "Loss": "core.loss",
    "UNet": "core.unet",
    "drop_labels": "core.guidance",
    "guided": "core.guidance",
    "autoguided": "core.guidance",
    "sample": "core.sampling",
    "timesteps": "core.sampling",
    "Churn": "core.sampling",
    "ddpm_step": "core.sampling",
    "ddim_step": "core.sampling",
    "dpmpp_step": "core.sampling",
    "heun_step": "core.sampling",
    "ImageNoise": "utils.random",
    "slerp": "core.editing",
    "inpaint": "core.editing",
    "invert": "core.editing",
    "variational_bound": "core.likelihood",
    "ImageDataset": "data.dataset",
    "Batches": "data.batches",
    "load_images": "data.load",
    "to_float": "utils.images",
    "to_uint8": "utils.images",
    "grid": "utils.images",
    "Config": "config",
    "preset": "config",
    "EMA": "core.ema",
    "train": "training.train",
    "Checkpoint": "checkpoint.checkpoint",
    "build": "checkpoint.checkpoint",
    "build_loss": "checkpoint.checkpoint",
    "save": "checkpoint.checkpoint",
    "load": "checkpoint.checkpoint",
    "Samples": "generation.output",
    "generate": "generation.generate",
    "Edit": "generation.generate",
    "Reference": "evaluation.reference",
    "load_reference": "evaluation.reference",
    "Report": "evaluation.report",
    "evaluate": "evaluation.evaluate",
    "frechet_distance": "evaluation.metrics",
    "UserError": "utils.errors",
}

__all__ = [  # noqa: RUF022  (in the order of the papers)
    "Schedule", "linear", "cosine", "sigmoid", "edm", "flow", "zero_terminal_snr", "Process",
    "Diffusion", "Prediction", "Loss", "UNet", "drop_labels", "guided", "autoguided",
    "sample", "timesteps", "ddpm_step", "ddim_step", "dpmpp_step", "heun_step", "Churn",
    "ImageNoise", "slerp", "inpaint", "invert",
    "variational_bound",
    "ImageDataset", "Batches", "load_images", "to_float", "to_uint8", "grid",
    "Config", "preset", "EMA", "train",
    "Checkpoint", "build", "build_loss", "save", "load", "Samples", "generate", "Edit",
    "Reference", "load_reference", "Report", "evaluate", "frechet_distance", "UserError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
