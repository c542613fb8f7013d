"""Denoising diffusion from scratch: each equation of the papers in one place, under its number.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import Checkpoint, build, load, save
    from .config import Config, preset
    from .data import Batches, Images, load_images
    from .diffusion import Diffusion, Prediction
    from .editing import inpaint, slerp
    from .ema import EMA
    from .errors import UserError
    from .evaluate import evaluate
    from .generate import Edit, Samples, generate
    from .guidance import drop_labels, guided
    from .images import grid, to_float, to_uint8
    from .judge import Judge
    from .likelihood import variational_bound
    from .metrics import frechet_distance
    from .noise import ImageNoise
    from .sampling import ddim_step, ddpm_step, dpmpp_step, sample, timesteps
    from .schedule import Schedule, cosine, linear, sigmoid
    from .score import Score
    from .train import train
    from .unet import UNet

__version__ = "0.1.0"

_HOMES = {
    "checkpoint": ("Checkpoint", "build", "load", "save"),
    "config": ("Config", "preset"),
    "data": ("Batches", "Images", "load_images"),
    "diffusion": ("Diffusion", "Prediction"),
    "editing": ("inpaint", "slerp"),
    "ema": ("EMA",),
    "errors": ("UserError",),
    "evaluate": ("evaluate",),
    "generate": ("Edit", "Samples", "generate"),
    "guidance": ("drop_labels", "guided"),
    "judge": ("Judge",),
    "likelihood": ("variational_bound",),
    "images": ("grid", "to_float", "to_uint8"),
    "metrics": ("frechet_distance",),
    "noise": ("ImageNoise",),
    "sampling": ("ddim_step", "ddpm_step", "dpmpp_step", "sample", "timesteps"),
    "schedule": ("Schedule", "cosine", "linear", "sigmoid"),
    "score": ("Score",),
    "train": ("train",),
    "unet": ("UNet",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022  (in the order of the papers)
    "Schedule", "linear", "cosine", "sigmoid",
    "Diffusion", "Prediction", "UNet", "drop_labels", "guided",
    "sample", "timesteps", "ddpm_step", "ddim_step", "dpmpp_step", "ImageNoise",
    "slerp", "inpaint",
    "variational_bound",
    "Images", "Batches", "load_images", "to_float", "to_uint8", "grid",
    "Config", "preset", "EMA", "train",
    "Checkpoint", "build", "save", "load", "Samples", "generate", "Edit",
    "Judge", "Score", "evaluate", "frechet_distance", "UserError",
]  # fmt: skip


class _Package(ModuleType):
    """`ddpm.train`, `ddpm.generate` and `ddpm.evaluate` are the functions, even once their modules
    are loaded: the import system sets a module of that name on the package; this puts back the
    function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in ("train", "generate", "evaluate"):
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_HOME[name]}", __name__), name)

    def __dir__(self) -> list[str]:
        return sorted([*globals(), *__all__])


sys.modules[__name__].__class__ = _Package
