"""A step that was skipped, taken again: where is the first number that is not finite?"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint.checkpoint import build_loss, config_errors, network_from_tensors
from ..checkpoint.memory import require_memory
from ..checkpoint.tensors import load_tensors, under_prefix
from ..utils.device import to_device
from ..utils.errors import UserError
from ..utils.random import STEP, derive_seed
from .augment import augment_dim
from .nonfinite import BatchHeader
from .step import draw_inputs

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}  # of train.precision
MAX_PARTS = 1024  # of a batch, each of which was one process's

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replay:
    """What a step came to when it was taken again. `where` is the first thing that held a number
    that is not finite, None if all were finite."""

    step: int
    loss: float
    norm: float
    where: str | None

    def text(self) -> str:
        found = self.where or (
            "nothing: with the weights at the next line of the log it is finite on this device"
        )
        return (
            f"step {self.step:,}: loss {self.loss}, norm of the gradient {self.norm}\n"
            f"first that is not finite: {found}"
        )


def replay(path: Path, device: torch.device | str = "cpu") -> Replay:
    """Take the step of a file in a run's folder bad/ again, with the times, the noise and the
    precision it had.

    Raise UserError where the file is not one of these.
    """
    if not path.is_file():
        raise UserError(f"there is no batch at {path}: name a file in a run's folder bad/")
    tensors, header = load_tensors(path, BatchHeader)
    weights = under_prefix("raw.", tensors)
    labels = augment_dim(header.config.train)
    net, diffusion = network_from_tensors(path, header.config, header.data, weights, labels)
    x0, y = tensors.get("x0"), tensors.get("y")
    if x0 is None or not fits(x0, y, header):
        raise UserError(f"{path} is damaged: its images do not fit its own config")
    x0, kind = x0.to(device), torch.device(device).type
    if header.device not in ("", kind):
        logger.info(
            "this step was taken on %s, and %s has other random numbers: times and noise are not "
            "those it had", header.device, kind,
        )  # fmt: skip
    to_device(net, device)
    with config_errors(str(path)):
        loss = build_loss(header.config, diffusion.to(device))
    torch.manual_seed(derive_seed(header.config.seed, STEP, header.step))
    batch, part = header.config.train.batch, slice(header.first, header.first + len(x0))
    # Room for the noise of the whole batch too: float32, 4 bytes a value.
    require_memory(
        header.config.unet, header.data.shape, len(x0), device, 4 * batch, kept_on_device=True
    )
    if header.config.flip:  # which had its draw before
        torch.rand(batch, 1, 1, 1, device=device)
    y = None if y is None else y.to(device)
    x0, a, y, t, eps = draw_inputs(loss, x0, y, net.num_classes, header.config.train, part)

    found = [f"the images of the batch ({bad(x0)})"] if bad(x0) else []
    found += [f"the weights of {k} ({bad(p)})" for k, p in net.named_parameters() if bad(p)]

    def look(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and bad(output):
                found.append(f"the output of {name}, {type(module).__name__} ({bad(output)})")

        module.register_forward_hook(hook)

    for name, module in net.named_modules():
        look(name or "the network", module)
    dtype = DTYPES.get(header.config.train.precision)

    def forward(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
            return net(x, t, y, a).float()

    mean = loss(forward, x0, t, eps, y).mean()
    mean.backward()
    found += [
        f"the gradient of {k} ({bad(p.grad)})"
        for k, p in net.named_parameters()
        if p.grad is not None and bad(p.grad)
    ]
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    return Replay(header.step, mean.item(), norm.item(), found[0] if found else None)


def fits(x0: Tensor, y: Tensor | None, header: BatchHeader) -> bool:
    """Return whether a batch, or one process's part of it, can be of the run in the header."""
    data, batch = header.data, header.config.train.batch
    if x0.dtype != torch.float32 or x0.shape[1:] != data.shape:
        return False
    n = len(x0)
    if not 0 < n <= header.first + n <= batch <= MAX_PARTS * n:
        return False
    if y is None:
        return True
    known = y.dtype == torch.long and y.shape == (n,) and len(data.classes) > 0
    return known and 0 <= int(y.min()) <= int(y.max()) <= len(data.classes)


def bad(x: Tensor) -> str:
    """Return how many numbers are not finite, "" where all are."""
    n = int((~x.isfinite()).sum())
    return f"{n:,} of {x.numel():,}" if n else ""
