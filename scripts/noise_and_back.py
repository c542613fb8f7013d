"""At which noise a network loses quality: real images are noised to t and sampled back from there.

    python scripts/noise_and_back.py cifar10 --data cifar10-train.zip \\
        --ruler "python colour.py cifar10 {samples}"

From little noise all that can go wrong is texture, from much noise shapes as well. Each t begins as
many even steps of DDIM as fall below it among `--steps` from T, and once a single one. The ruler is
a program that scores an .npz and prints NAME=NUMBER; the first row is that of the real images.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro
from sweep import measured
from torch import Tensor

from ddpm import load
from ddpm.core.sampling import named_step, sample
from ddpm.data.load import load_images


@dataclass
class Options:
    checkpoint: tyro.conf.Positional[str]
    data: str
    """The images it was trained on, as in `ddpm train`."""
    ruler: str
    """A program to score with, its {samples} replaced by an .npz."""
    times: tuple[int, ...] = (20, 50, 100, 200, 400)
    """Times to begin at."""
    steps: int = 50
    """Steps from T, of which those below a time are taken."""
    n: int = 200
    """Images, drawn at random."""
    batch: int = 50
    seed: int = 0


@torch.inference_mode()
def main(options: Options) -> None:
    checkpoint = load(options.checkpoint)
    diffusion, data = checkpoint.diffusion, load_images(options.data, checkpoint.config.size)
    torch.manual_seed(options.seed)
    chosen = torch.randperm(len(data))[: options.n]
    labels = data.labels[chosen] if checkpoint.conditional and data.labels is not None else None
    real = data.images[chosen]
    ddim = named_step("ddim")

    def score(what: str, images: Tensor) -> None:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "samples.npz"
            np.savez(file, images.permute(0, 2, 3, 1).numpy())
            print(what, *(f"{k}={v:g}" for k, v in measured(options.ruler, file).items()))

    def back(t: int, steps: int) -> Tensor:
        """Noise the images to t and return what `steps` even steps make of them, as bytes."""
        times, out = [round(t * i / steps) for i in range(steps, -1, -1)], []
        for i in range(0, len(real), options.batch):
            x0 = real[i : i + options.batch] / 127.5 - 1
            y = None if labels is None else labels[i : i + options.batch]
            x_t = diffusion.q_sample(x0, torch.full((len(x0),), t), torch.randn_like(x0))
            denoise = diffusion.denoiser(checkpoint.net, y)
            noise = partial(torch.randn, x_t.shape)  # of which DDIM with η = 0 takes none
            *_, last = sample(diffusion, denoise, noise, times, ddim, x_t)
            out.append(((last.x.clamp(-1, 1) + 1) * 127.5).round().byte())
        return torch.cat(out)

    score("real images:", real)
    for t in options.times:
        sigma = float(diffusion.schedule.snr(torch.tensor(t)) ** -0.5)
        for steps in sorted({1, max(1, round(options.steps * t / diffusion.T))}):
            score(f"t {t}, sigma {sigma:.3f}, {steps} steps:", back(t, steps))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
