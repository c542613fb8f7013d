"""The U-Net of `ddpm` as a model of diffusers, in one file, which `ddpm convert` writes.

From ddpm-from-scratch, under the MIT licence.
"""

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from ...core.unet import UNet


class DDPMUNet(ModelMixin, ConfigMixin):
    """What a UNet2DModel is to its callers: times 0 … T − 1, and label `num_classes` for no class.
    `settings` are the arguments of UNet."""

    @register_to_config
    def __init__(
        self, sample_size: Any, in_channels: int, num_classes: int, settings: dict[str, Any]
    ):
        super().__init__()
        self.net = UNet(in_channels, num_classes, **settings)

    def forward(
        self, sample: Tensor, timestep: Any, class_labels: Any = None, return_dict: bool = True
    ) -> Any:
        t = torch.as_tensor(timestep, device=sample.device) + 1
        half = self.dtype != torch.float32
        with torch.autocast(sample.device.type, self.dtype, enabled=half):
            out = self.net(sample, t.expand(len(sample)), class_labels).to(sample.dtype)
        return UNet2DOutput(out) if return_dict else (out,)
