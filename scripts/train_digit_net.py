"""Train the digit classifier that `ddpm evaluate` uses, and print its accuracy on the test digits.

    python scripts/train_digit_net.py --root data

It learns from the 60,000 training digits alone, each rotated, scaled and shifted at random in every
epoch. Nothing is chosen by the 10,000 test digits, which are used once, at the end.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ddpm import load_images, to_float
from ddpm.evaluation.classifiers import DigitNet
from ddpm.utils.device import best_device


@dataclass
class Options:
    root: str = "data"
    """Where torchvision keeps MNIST."""
    epochs: int = 16
    batch: int = 128
    lr: float = 0.1
    """Of SGD with momentum, at its highest: it rises for an eighth of the steps, then falls to 0
    along a cosine."""
    seed: int = 0
    out: Path = DigitNet.WEIGHTS


def augment(x: Tensor) -> Tensor:
    """Return each image rotated by up to 15°, scaled by 0.85 … 1.15, sheared, and shifted by up to
    2.5 pixels."""

    def draw(reach: float) -> Tensor:
        return (2 * torch.rand(len(x), device=x.device) - 1) * reach

    angle, scale, shear = draw(math.radians(15)), 1 + draw(0.15), draw(0.15)
    rows = [
        torch.stack([scale * angle.cos(), shear - angle.sin(), draw(2.5 / 14)], dim=1),
        torch.stack([angle.sin(), scale * angle.cos(), draw(2.5 / 14)], dim=1),
    ]
    where = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, where, align_corners=False) - 1  # black beyond the edge


def main(options: Options) -> None:
    torch.manual_seed(options.seed)
    device = best_device()
    train = load_images("mnist", root=options.root)
    test = load_images("mnist", root=options.root, split="test")
    assert train.labels is not None
    assert test.labels is not None
    net = DigitNet().to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        net.parameters(), options.lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = options.epochs * (len(train) // options.batch)
    start, step = time.monotonic(), 0
    for epoch in range(options.epochs):
        total = 0.0
        for index in torch.randperm(len(train)).split(options.batch):
            if len(index) < options.batch:
                continue
            done = step / steps
            rise = min(1.0, done / 0.125)
            fall = (1 + math.cos(math.pi * max(0.0, done - 0.125) / 0.875)) / 2
            for group in optimizer.param_groups:
                group["lr"] = options.lr * rise * fall
            x = augment(to_float(train.images[index]).to(device))
            _, logits = net(x)
            loss = F.cross_entropy(logits, train.labels[index].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            total += loss.item()
        seconds = time.monotonic() - start
        print(
            f"epoch {epoch + 1:2}  loss {total * options.batch / len(train):.4f}  {seconds:.0f} s",
            flush=True,
        )

    net = net.eval().cpu().to(memory_format=torch.contiguous_format)
    with torch.inference_mode():
        parts = [net(to_float(part))[1].argmax(1) for part in test.images.split(500)]
    right = (torch.cat(parts) == test.labels).float().mean().item()
    about = f"trained on the 60,000 training digits of MNIST; {right:.2%} of the 10,000 test digits"
    save_file(net.state_dict(), options.out, metadata={"about": about})
    print(f"{right:.2%} of the test digits are classified correctly: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
