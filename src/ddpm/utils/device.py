"""Which device: the fastest that is there, unless a person says otherwise."""

import ctypes
import sys
from collections.abc import Mapping
from typing import Any

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


def has_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16 itself. Where it does not, that is emulated, and
    slower than float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        ask = getattr(torch.cpu, "get_capabilities", dict)  # there since torch 2.11
        known: Mapping[str, Any] = ask()
        return any(known.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return True


def place(net: nn.Module, device: torch.device | str) -> nn.Module:
    """The network on the device, laid out in memory as is fast there: channels_last; on a CPU
    with memory that is kept from step to step, with CUDA convolutions by the fastest algorithm.

    Not channels_last on MPS, where weights that are not contiguous have given wrong results
    without a word (pytorch/pytorch issues 118115, 175189 and 192212).
    """
    net = net.to(device)
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    if torch.device(device).type == "cuda":
        # The sizes stay the same from step to step: trying every algorithm at first pays.
        torch.backends.cudnn.benchmark = True
    if torch.device(device).type != "mps":
        net = net.to(memory_format=torch.channels_last)
    return net


def keep_freed_memory() -> None:
    """Have glibc keep large blocks that are freed, up to 2 GiB, for the next who asks.

    By itself it returns them to the system, and each step waits for new pages, filled with zeros.
    Where the C library is another one, this does nothing.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
