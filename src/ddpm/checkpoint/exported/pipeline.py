"""The sampling of `ddpm` as a pipeline of diffusers, in one file, which `ddpm convert` writes.

From ddpm-from-scratch, under the MIT licence.
"""

from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ...core.diffusion import Diffusion
from ...core.guidance import with_guidance
from ...core.sampling import Churn, eps_scaled, named_step, sample, timesteps
from ...core.schedule import named_schedule


class DDPMFromScratchPipeline(DiffusionPipeline):
    """Noise to images, by the settings in `header`, which the checkpoint was saved with."""

    def __init__(self, unet: Any, header: Any = None):
        super().__init__()
        self.register_modules(unet=unet)
        self.register_to_config(header=header)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: Any = None,
        generator: Any = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Return images: of `class_labels`, a name or number or a list of these, in turn, or of all
        classes in turn. Steps and the scale of guidance are by default as the checkpoint says."""
        data, config = self.config.header["data"], self.config.header["config"]
        d, s, device = config["diffusion"], config["sample"], self._execution_device
        shape = (batch_size, data["channels"], data["height"], data["width"])
        scale = s["guidance"] if guidance_scale is None else guidance_scale
        y = self.labels(class_labels, batch_size, data["classes"])
        null = len(data["classes"])

        def net(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
            x = x.to(self.unet.dtype)
            return self.unet(x, t - 1, class_labels=y).sample.float()

        def noise() -> Tensor:
            return randn_tensor(shape, generator=generator, device=device)

        schedule = named_schedule(d["schedule"], d["T"], d["zero_snr"])
        more = {name: d[name] for name in ("sigma_data", "learned_variance")}
        diffusion = Diffusion(schedule, d["target"], **more)
        steps = num_inference_steps or s["steps"]
        times = timesteps(diffusion.schedule, steps, s["spacing"], s["sigma_min"])
        diffusion = diffusion.to(device)
        interval = s["guidance_above"], s["guidance_below"]
        denoise = with_guidance(diffusion, net, y, scale, null, interval)
        denoise = eps_scaled(diffusion, denoise, s["eps_scale"])
        step = named_step(s["sampler"], s["eta"], s["variance"])
        churn = Churn(s["churn"]) if s["churn"] else None
        with self.progress_bar(total=len(times) - 1) as bar:
            for state in sample(diffusion, denoise, noise, times, step, churn=churn):
                bar.update(state.x0 is not None)
        pixels = (state.x.clamp(-1, 1) / 2 + 0.5).permute(0, 2, 3, 1).cpu().float().numpy()
        images = self.numpy_to_pil(pixels) if output_type == "pil" else pixels
        return ImagePipelineOutput(images) if return_dict else (images,)

    def labels(self, wanted: Any, n: int, classes: list[str]) -> Tensor | None:
        """Return n labels, (n,), or None where the network knows no classes."""
        if not classes:
            return None
        places = range(len(classes) + 1)  # the last is no class
        if all(name.isdecimal() for name in classes):  # and so any other number is a name
            places = places[-1:]
        numbers = list(range(len(classes))) if wanted is None else []
        asked = [wanted] if isinstance(wanted, str | int) else [] if wanted is None else wanted
        for w in asked:
            w = w if isinstance(w, str) else int(w)
            if str(w) not in classes and w not in places:
                what = "number" if isinstance(w, int) else "class"
                raise ValueError(f"there are {len(classes)} classes, and no {what} {w}")
            numbers.append(classes.index(str(w)) if str(w) in classes else int(w))
        return torch.tensor([numbers[i % len(numbers)] for i in range(n)], device=self.device)
