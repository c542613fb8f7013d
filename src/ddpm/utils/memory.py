"""How much memory is left: of the machine, within the limits that are set for this process."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")


def free_memory(device: torch.device | str = "cpu", process: Path = Path("/proc/self")) -> int:
    """Return the bytes that can still be taken, on a CUDA device or else of the machine: by Apple's
    GPU, by the process, and by each of the control groups that it is in."""
    if torch.device(device).type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    left = [psutil.virtual_memory().available, *left_in_groups(process / "cgroup")]
    if torch.device(device).type == "mps":  # whose memory is the machine's
        left.append(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    if sys.platform != "win32":
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            left.append(most - psutil.Process().memory_info().vms)
    return max(0, min(left))


def left_in_groups(groups: Path) -> Iterator[int]:
    """Yield what is left to each control group, of version 1 or 2, that the file `groups` names."""
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            top = CGROUPS / controllers
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
            files = files if controllers else ("memory.max", "memory.current", "file")
            group = top / name.lstrip("/")
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError, KeyError):  # "max", or not of this machine
                    most, used = (int((folder / file).read_text()) for file in files[:2])
                    stat = (folder / "memory.stat").read_text().split()
                    cache = dict(zip(stat[::2], stat[1::2], strict=True))[files[2]]
                    yield most - used + int(cache)
                if folder == top:
                    break
