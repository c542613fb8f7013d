"""Devices: which to use, what they can do, and how a network is laid out on them."""

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .errors import UserError, first_line


def best_device() -> str:
    """Return the accelerator of this machine (CUDA, Apple's MPS or another), or else "cpu"."""
    if torch.accelerator.is_available() and (found := torch.accelerator.current_accelerator()):
        return found.type
    return "cpu"


def check_device(device: str) -> None:
    """Raise UserError where this machine has no such device."""
    try:
        if torch.device(device).type not in ("cpu", "cuda", "mps", "xpu"):
            raise RuntimeError("it cannot be trained on")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"there is no device {device!r} here (cpu, cuda, cuda:1, mps or xpu): "
            f"{first_line(error)}"
        ) from None


def has_bfloat16(device: torch.device | str) -> bool:
    """Return whether the device has bfloat16 in hardware. Elsewhere it is emulated, and slower than
    float32. Of Apple's GPUs some have it; on MPS it was never measured, so the answer is no."""
    kind = torch.device(device).type
    if kind == "mps":
        return False
    if kind == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        get_capabilities = getattr(torch.cpu, "get_capabilities", dict)  # since torch 2.11
        capabilities: Mapping[str, Any] = get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return True


def compile_failure(device: torch.device | str) -> str:
    """Return why torch.compile is of no use on the device, tried with a trivial function: it may
    lack a C++ compiler or Triton. "" where it works."""
    if torch.device(device).type == "mps":  # pytorch/pytorch issues 170360 and 191976
        return "on MPS what is compiled has given wrong results"
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(2, device=device))
    except Exception as error:  # of many kinds
        lines = [line for line in str(error).split("\n") if line and not line.endswith("raised:")]
        return lines[0] if lines else type(error).__name__
    return ""


def resolve_device(device: torch.device | str | None) -> str:
    """Return the device, or for None this machine's best. Raise UserError where there is none
    such."""
    name = str(device or best_device())
    gpus = torch.cuda.device_count() if name == "cuda" else 0
    if gpus and "LOCAL_RANK" in os.environ:  # else all processes would use memory of GPU 0
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % gpus)
    check_device(name)
    return name


def to_device(net: nn.Module, device: torch.device | str) -> nn.Module:
    """Move a network to a device, in channels_last, which is faster, and return it. On a CPU,
    freed memory is kept from now on; with CUDA, the fastest convolutions are searched for.

    On MPS it stays contiguous: other weights have silently given wrong results there
    (pytorch/pytorch issues 118115, 175189 and 192212).
    """
    net = net.to(device)
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    if torch.device(device).type == "cuda":
        # Sizes stay the same from step to step, so that trying every algorithm once pays.
        torch.backends.cudnn.benchmark = True
    if torch.device(device).type != "mps":
        net = net.to(memory_format=torch.channels_last)
    return net


def keep_freed_memory() -> None:
    """Have glibc keep large blocks that are freed, up to 2 GiB, and reuse them.

    By default it returns them to the system, and each step waits for new pages, filled with zeros.
    With another C library this does nothing.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
