"""A batch that gave no number, looked into: where does the first one come from?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint.checkpoint import BatchHeader, build_loss, load_tensors, rebuild
from ..utils.device import place
from ..utils.errors import UserError
from ..utils.random import STEP, derive_seed
from .train import draw

MAX_PARTS = 1024  # of a batch, each of which was one process's


@dataclass(frozen=True)
class Replay:
    """What a step came to when it was taken again. `where`: the first thing that held a number
    that is none, None if all were sound."""

    step: int
    loss: float
    norm: float
    where: str | None

    def text(self) -> str:
        found = self.where or (
            "none: with the weights of the next line of the log the step is sound on this device"
        )
        return (
            f"step {self.step:,}: loss {self.loss}, norm of the gradient {self.norm}\n"
            f"first that is not a number: {found}"
        )


def replay(path: Path, device: torch.device | str = "cpu") -> Replay:
    """Take the step of a file in a run's folder bad/ again, with the times and the noise it had.

    Raises UserError where the file is none of these.
    """
    tensors, header = load_tensors(path, BatchHeader)
    weights = {k[4:]: v for k, v in tensors.items() if k.startswith("raw.")}
    net, diffusion = rebuild(path, header.config, header.data, weights)
    x0, y = tensors.get("x0"), tensors.get("y")
    if x0 is None or not fits(x0, y, header):
        raise UserError(f"{path} is damaged: its images do not fit its own config")
    x0 = x0.to(device)
    place(net, device)
    loss_fn = build_loss(header.config, diffusion.to(device))
    torch.manual_seed(derive_seed(header.config.seed, STEP, header.step))
    batch, part = header.config.train.batch, slice(header.first, header.first + len(x0))
    if header.config.flip:  # which had its draw before
        torch.rand(batch, 1, 1, 1, device=device)
    y = None if y is None else y.to(device)
    y, t, eps = draw(loss_fn, x0, y, net.num_classes, header.config.train, part)

    found = [f"the images of the batch ({bad(x0)})"] if bad(x0) else []
    found += [f"the weights of {k} ({bad(p)})" for k, p in net.named_parameters() if bad(p)]

    def look(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and bad(output):
                found.append(f"the output of {name}, {type(module).__name__} ({bad(output)})")

        module.register_forward_hook(hook)

    for name, module in net.named_modules():
        look(name or "the network", module)
    loss = loss_fn(net, x0, t, eps, y).mean()
    loss.backward()
    found += [
        f"the gradient of {k} ({bad(p.grad)})"
        for k, p in net.named_parameters()
        if p.grad is not None and bad(p.grad)
    ]
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    return Replay(header.step, loss.item(), norm.item(), found[0] if found else None)


def fits(x0: Tensor, y: Tensor | None, header: BatchHeader) -> bool:
    """Whether a batch, or one process's part of it, is one of the run that the header tells of."""
    data, batch = header.data, header.config.train.batch
    if x0.dtype != torch.float32 or x0.shape[1:] != (data.channels, data.height, data.width):
        return False
    n = len(x0)
    if not 0 < n <= header.first + n <= batch <= MAX_PARTS * n:
        return False
    if y is None:
        return True
    known = y.dtype == torch.long and y.shape == (n,) and len(data.classes) > 0
    return known and 0 <= int(y.min()) <= int(y.max()) < len(data.classes)


def bad(x: Tensor) -> str:
    """How many numbers are none, "" for none."""
    n = int((~x.isfinite()).sum())
    return f"{n:,} of {x.numel():,}" if n else ""
