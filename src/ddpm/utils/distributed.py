"""The processes that work together, as torchrun or Accelerate started them. Usually one."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from .errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

Part = TypeVar("Part", bound=Sized)

LOST = ("peer", "NCCL", "ProcessGroup", "process group", "gloo", "Gloo")
"""Words in the errors of a process that waits for one that is gone."""

TIMEOUT = timedelta(hours=12)
"""How long processes wait for one that decodes, downloads, previews or scores; one that dies is
mostly noticed before."""


class Processes:
    """The rank of this process, how many there are, and what they tell one another.

    Without an accelerator it is one process alone.
    """

    def __init__(self, accelerator: "Accelerator | None" = None):
        self.rank, self.world_size = 0, 1
        if accelerator is not None:
            self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        self.is_main = self.rank == 0
        self.accelerator = accelerator if self.world_size > 1 else None

    def part(self, batch: int, pieces: int = 1) -> slice:
        """Return this process's part of a batch. Raise UserError where the batch cannot be shared
        evenly, or the part not be cut into so many pieces."""
        if batch % (self.world_size * pieces):
            what = f"shared by {self.world_size} processes"
            if pieces > 1:
                each = f" by each of {self.world_size} processes" if self.world_size > 1 else ""
                what = f"cut into {pieces} parts{each}"
            raise UserError(f"a batch of {batch} cannot be {what}")
        size = batch // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def main_process_first(self) -> AbstractContextManager[object]:
        """Have the main process run a block, and the others after it."""
        return nullcontext() if self.accelerator is None else self.accelerator.main_process_first()

    def broadcast(self, values: Sequence[float], yes: bool) -> tuple[list[float], bool]:
        """Return to all the main process's values, and whether any process says yes. Every process
        must call it. It waits for the other processes alone, never for a GPU."""
        if self.accelerator is None:
            return list(values), yes
        from torch.distributed import all_reduce

        told = [float(yes), *(values if self.is_main else [0.0] * len(values))]
        tensor = torch.tensor(told, dtype=torch.float64)
        all_reduce(tensor, group=self.gloo_group)
        said, *values = tensor.tolist()
        return values, said > 0

    @cached_property
    def gloo_group(self) -> Any:
        """The group of all processes, as they talk without their devices."""
        from torch.distributed import new_group

        return new_group(backend="gloo", timeout=TIMEOUT)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of every process's values to all. Every process must call it."""
        if self.accelerator is None:
            return values
        return self.accelerator.reduce(values, reduction="mean")

    def all(self, yes: bool) -> bool:
        """Return whether every process says yes. Every process must call it."""
        if self.accelerator is None:
            return yes
        return self.mean(torch.tensor(float(yes), device=self.accelerator.device)).item() == 1

    def finish(self) -> None:
        """Wait until every process is here, and end the work in common."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()
            self.accelerator.end_training()

    @contextmanager
    def peer_errors(self) -> Iterator[None]:
        """Raise UserError where another process dies while the block is run. SIGTERM, by which a
        launcher then ends the rest, is ignored from there on, so that somebody can say what was."""
        try:
            yield
        except RuntimeError as error:
            if self.accelerator is None or not any(word in str(error) for word in LOST):
                raise
            with suppress(ValueError):  # outside of the main thread
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise UserError(
                f"process {self.rank} of {self.world_size} has lost another, which has died or was "
                f"killed: its own message says why. Go on from the last checkpoint with --resume"
            ) from None

    def map_in_order(
        self, parts: Sequence[Part], work: Callable[[Part], tuple[Tensor, ...]]
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield work(part) of every part, in order, in every process; they share the work.

        `parts` have lengths, none more than the first, and the tensors that `work` returns for one
        are as long as it. Every part is worked on whole, so the results do not depend on the number
        of processes.
        """
        for first in range(0, len(parts), self.world_size):
            mine = parts[min(first + self.rank, len(parts) - 1)]  # at the end, some for nothing
            made = [self.gather(tensor, len(parts[0])) for tensor in work(mine)]
            for part, *tensors in zip(parts[first : first + self.world_size], *made, strict=False):
                yield tuple(tensor[: len(part)] for tensor in tensors)

    def gather(self, tensor: Tensor, longest: int) -> list[Tensor]:
        """Return every process's tensor, filled up with zeros to `longest`, to all."""
        if self.accelerator is None:
            return [tensor]
        filled = tensor.new_zeros(longest, *tensor.shape[1:])
        filled[: len(tensor)] = tensor
        gathered = self.accelerator.gather(filled.to(self.accelerator.device))
        return list(gathered.to(tensor.device).split(longest))


SINGLE_PROCESS = Processes()


def join_processes(device: str) -> Processes:
    """Return the processes that a launcher started: this one alone, where none did.

    Raise UserError for a device that processes cannot share work on.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return SINGLE_PROCESS
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise UserError(f"several processes work on cpu or cuda, not on {kind}")
    from accelerate import Accelerator, InitProcessGroupKwargs

    patient = InitProcessGroupKwargs(timeout=TIMEOUT)
    return Processes(Accelerator(cpu=kind == "cpu", kwargs_handlers=[patient]))
