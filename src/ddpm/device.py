"""Which device: the fastest that is there, unless a person says otherwise."""

import torch
from torch import nn

from .errors import UserError


def best_device() -> str:
    """CUDA, Apple's MPS or another accelerator where there is one; else the CPU."""
    if torch.accelerator.is_available() and (found := torch.accelerator.current_accelerator()):
        return found.type
    return "cpu"


def check_device(device: str) -> None:
    """Raises UserError where this machine has no such device."""
    try:
        if torch.device(device).type not in ("cpu", "cuda", "mps", "xpu"):
            raise RuntimeError("it cannot be trained on")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).split("\n")[0]
        raise UserError(f"there is no device {device!r} here (cpu, cuda or mps): {why}") from None


def place(net: nn.Module, device: torch.device | str) -> nn.Module:
    """The network on the device, laid out in memory as is fast there: channels_last.

    Not on MPS, where weights that are not contiguous have given wrong results without a word
    (pytorch/pytorch issues 118115, 175189 and 192212).
    """
    net = net.to(device)
    if torch.device(device).type != "mps":
        net = net.to(memory_format=torch.channels_last)
    return net
