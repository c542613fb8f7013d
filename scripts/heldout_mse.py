"""The network's mean squared error on images it was not trained on, in the target's own units.

    python scripts/heldout_mse.py runs/mnist --data mnist --root data [--draws 5]

Each image is noised at a time drawn uniformly from 1 … T, `draws` times over; with and without
its label. The standard error of the mean is that of the image-and-time draws.
"""

from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

from ddpm import Loss, load, load_images, to_float
from ddpm.utils.device import best_device


@dataclass
class Options:
    checkpoint: tyro.conf.Positional[str]
    """Run or checkpoint."""
    data: str = "mnist"
    """A named set (its test split), a folder, a zip or an npz."""
    root: str = "data"
    """Where the named sets lie."""
    draws: int = 5
    """Times and noises drawn for each image."""
    seed: int = 0


@torch.inference_mode()
def main(options: Options) -> None:
    checkpoint = load(options.checkpoint)
    device = best_device()
    net = checkpoint.net.to(device)
    loss_fn = Loss(checkpoint.diffusion.to(device))
    info = checkpoint.data
    data = load_images(options.data, (info.height, info.width), options.root, split="test")
    torch.manual_seed(options.seed)

    def losses(y: Tensor | None) -> Tensor:
        found = []
        for _ in range(options.draws):
            for index in torch.arange(len(data)).split(500):
                x0 = to_float(data.images[index]).to(device)
                t = loss_fn.sample_times(len(x0))
                labels = None if y is None else y[index].to(device)
                found.append(loss_fn(net, x0, t, torch.randn_like(x0), labels))
        return torch.cat(found)

    print(
        f"{checkpoint.images_seen:,} training images; {len(data):,} held out; {options.draws} draws"
    )
    kinds: dict[str, Tensor | None] = {"without labels": None}
    if info.classes and data.labels is not None:
        kinds["with labels"] = data.labels
    for name, y in kinds.items():
        loss = losses(y)
        error = loss.std() / len(loss) ** 0.5
        print(
            f"{loss_fn.diffusion.target} mean squared error {name}: {loss.mean():.5f} ± {error:.5f}"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
