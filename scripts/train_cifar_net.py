"""Train the CIFAR-10 classifier that `ddpm evaluate --features cifar-net` uses; print its accuracy.

    python scripts/train_cifar_net.py --data cifar10 --root data

It is tested on the test set where the data have one, else on every tenth image, from which it does
not learn. The recipe (whitened input, identity start, triangular rate, label smoothing, alternating
flips, a slow average) is that of fast CIFAR-10 training [Jordan 2024], with more epochs and smaller
batches.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm import ImageDataset, UserError, load_images, to_float
from ddpm.data.sources import has_test
from ddpm.evaluation.classifiers import CifarNet
from ddpm.utils.device import best_device


@dataclass
class Options:
    data: str = "cifar10"
    root: str = "data"
    epochs: int = 28
    batch: int = 512
    lr: float = 0.75
    """Of SGD with Nesterov's momentum at its highest; 64 times as much for the biases."""
    momentum: float = 0.85
    weight_decay: float = 1.3e-3
    smoothing: float = 0.2
    """Share of each label that is spread over all classes."""
    precision: str = "bf16"
    """bf16 or no; the normalisation stays in float32."""
    seed: int = 0
    out: Path = CifarNet.WEIGHTS


def split_data(options: Options) -> tuple[ImageDataset, Tensor, Tensor]:
    """Return all images, and the indices of those to learn from and of those to test on."""
    data = load_images(options.data, root=options.root)
    if data.classes != CifarNet.CLASSES or data.images.shape[1:] != CifarNet.SHAPE:
        raise UserError(f"{options.data} is not CIFAR-10")
    if has_test(options.data):
        test = load_images(options.data, root=options.root, split="test")
        n = len(data)
        assert data.labels is not None
        assert test.labels is not None
        both = torch.cat([data.images, test.images]), torch.cat([data.labels, test.labels])
        return (
            ImageDataset(*both, data.classes, "cifar10"),
            torch.arange(n),
            torch.arange(n, n + len(test)),
        )
    tenth = torch.arange(len(data)) % 10 == 9
    return data, (~tenth).nonzero().flatten(), tenth.nonzero().flatten()


def prepare(net: CifarNet, x: Tensor) -> list[dict[str, Any]]:
    """Initialize by whitened patches and identities; return the groups of trained parameters."""
    patches = F.unfold(x, 2).transpose(1, 2).reshape(-1, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
    net.whiten.weight.data = torch.cat([filters, -filters])
    net.whiten.bias.data.zero_()  # type: ignore[union-attr]
    net.whiten.requires_grad_(False)
    biases = []
    for module in net.body:
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight.data[: module.in_channels])
        if isinstance(module, nn.BatchNorm2d):
            module.weight.requires_grad_(False)
            module.momentum = 0.4
            biases.append(module.bias)
    weights = [p for p in net.parameters() if p.ndim > 1 and p.requires_grad]
    return [{"params": weights, "scale": 1.0}, {"params": biases, "scale": 64.0}]


def shift(x: Tensor) -> Tensor:
    """Return each image shifted by up to 2 pixels either way, with mirrored edges."""
    x = F.pad(x, (2, 2, 2, 2), mode="reflect").permute(0, 2, 3, 1)
    dy, dx = torch.randint(0, 5, (2, len(x), 1, 1))
    rows, columns = dy + torch.arange(32)[:, None], dx + torch.arange(32)
    return x[torch.arange(len(x))[:, None, None], rows, columns].permute(0, 3, 1, 2)


def rate(done: float) -> float:
    """Return the factor of the learning rate: from 0.2 to 1 over the first 23 %, then to 0.07."""
    return 0.2 + 0.8 * done / 0.23 if done < 0.23 else 1 - 0.93 * (done - 0.23) / 0.77


@torch.no_grad()
def update_average(average: dict[str, Tensor], net: nn.Module, done: float) -> None:
    """Move the average towards the network, less and less, and set the network to it."""
    keep = 0.95**5 * done**3
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - keep)
            tensor.copy_(average[name])


@torch.inference_mode()
def accuracy(net: nn.Module, data: ImageDataset, index: Tensor, device: str) -> float:
    assert data.labels is not None
    net.eval()
    found = [net(to_float(data.images[i]).to(device))[1].argmax(1).cpu() for i in index.split(500)]
    net.train()
    return (torch.cat(found) == data.labels[index]).float().mean().item()


def main(options: Options) -> None:
    torch.manual_seed(options.seed)
    device = best_device()
    data, train, test = split_data(options)
    assert data.labels is not None
    net = CifarNet()
    groups = prepare(net, to_float(data.images[train[:: max(1, len(train) // 5000)]]))
    for group in groups:
        group["weight_decay"] = options.weight_decay / group["scale"]
    net = net.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(groups, options.lr, options.momentum, nesterov=True)
    average = {k: v.clone() for k, v in net.state_dict().items() if v.is_floating_point()}
    mirrored = torch.rand(len(data)) < 0.5
    steps, step, start = options.epochs * (len(train) // options.batch), 0, time.monotonic()
    for epoch in range(options.epochs):
        total = 0.0
        for index in train[torch.randperm(len(train))].split(options.batch):
            if len(index) < options.batch:
                continue
            for group in optimizer.param_groups:
                group["lr"] = options.lr * rate(step / steps) * group["scale"]
            x = to_float(data.images[index])
            turned = mirrored[index] ^ (epoch % 2 == 1)  # mirrored in every other epoch
            x = shift(torch.where(turned[:, None, None, None], x.flip(-1), x)).to(device)
            with torch.autocast(device, torch.bfloat16, enabled=options.precision == "bf16"):
                logits = net(x.contiguous(memory_format=torch.channels_last))[1].float()
            loss = F.cross_entropy(
                logits, data.labels[index].to(device), label_smoothing=options.smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            total += loss.item()
            if step % 5 == 0:
                update_average(average, net, step / steps)
        right, seconds = accuracy(net, data, test, device), time.monotonic() - start
        mean = total * options.batch / len(train)
        print(f"epoch {epoch + 1:2}  loss {mean:.4f}  {right:.2%}  {seconds:.0f} s", flush=True)

    about = f"trained on {len(train):,} images of CIFAR-10; {right:.2%} of {len(test):,} others"
    half = {k: v.half() if v.is_floating_point() else v for k, v in net.cpu().state_dict().items()}
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in half.items()})
    right = accuracy(net, data, test, "cpu")
    tensors = {k: v.contiguous() for k, v in half.items()}
    save_file(tensors, options.out, metadata={"about": about})
    print(f"{right:.2%} of {len(test):,} other images are classified correctly: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
