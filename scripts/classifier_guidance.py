"""Classifier guidance: a network that is asked for no class, led to one by a classifier's gradient.

    python scripts/classifier_guidance.py mnist --label 3 --scale 4 --out threes.png

Dhariwal and Nichol's classifier is trained on noisy images [2021, Algorithm 2]. The bundled ones
know clean images, so they are shown x̂_0(x_t), and the gradient passes through the network. Prints
the share of images in which the classifier sees the class, with guidance and without.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from safetensors.torch import load_file
from torch import Tensor, nn

from ddpm import (
    Diffusion,
    ImageNoise,
    Prediction,
    ddim_step,
    grid,
    load,
    sample,
    timesteps,
    to_uint8,
)
from ddpm.core.types import Denoiser, Net
from ddpm.evaluation.classifiers import CifarNet, DigitNet


@dataclass
class Options:
    checkpoint: tyro.conf.Positional[str] = "mnist"
    """A network of digits, or of CIFAR-10's images; with classes or without."""
    label: int = 3
    """The number of the class."""
    scale: float = 4.0
    """How strongly to follow the classifier; 0: not at all."""
    n: int = 16
    steps: int = 30
    seed: int = 0
    out: Path = Path("guided.png")


def classifier_guided(
    diffusion: Diffusion, net: Net, classifier: nn.Module, y: int, scale: float
) -> Denoiser:
    """ε̃ = ε̂ − s √(1−ᾱ_t) ∇_{x_t} log p(y | x̂_0(x_t))   [Dhariwal and Nichol 2021, Algorithm 2]"""

    def denoise(x_t: Tensor, t: int) -> Prediction:
        with torch.inference_mode(False), torch.enable_grad():
            x = x_t.clone().requires_grad_()
            pred = diffusion.predict(net, x, t)
            _, logits = classifier(pred.x0)
            (grad,) = torch.autograd.grad(logits.log_softmax(1)[:, y].sum(), x)
        alpha_bar = diffusion.schedule.at(t)
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        eps = pred.eps.detach() - scale * noise * grad
        x0 = ((x_t - noise * eps) / signal).clamp(-1, 1)
        return Prediction(x0, (x_t - signal * x0) / noise)

    return denoise


def bundled_classifier(shape: tuple[int, int, int]) -> nn.Module:
    for kind in (DigitNet, CifarNet):
        if shape == kind.SHAPE:
            classifier = kind()
            classifier.load_state_dict(load_file(kind.WEIGHTS))
            return classifier.eval().requires_grad_(False)
    raise SystemExit(f"there is no bundled classifier of images of {shape}")


def main(options: Options) -> None:
    checkpoint = load(options.checkpoint)
    diffusion, shape = checkpoint.diffusion, checkpoint.data.shape
    if diffusion.schedule.alpha_bar[-1] == 0:
        raise SystemExit("this network begins at noise alone, where the formula divides by zero")
    classifier = bundled_classifier(shape)
    times = timesteps(diffusion.schedule, options.steps)
    for scale in (0.0, options.scale):
        denoise = classifier_guided(diffusion, checkpoint.net, classifier, options.label, scale)
        noise = ImageNoise(options.seed, range(options.n), shape)
        *_, last = sample(diffusion, denoise, noise, times, ddim_step)
        with torch.inference_mode():
            seen = classifier(last.x)[1].argmax(1)
        share = (seen == options.label).float().mean().item()
        print(f"scale {scale:g}: class {options.label} in {share:.0%} of {options.n}")
    grid(to_uint8(last.x)).save(options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
