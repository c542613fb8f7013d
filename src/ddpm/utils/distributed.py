"""The processes that work together, as torchrun or Accelerate started them. Usually one."""

import os
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from .errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

Part = TypeVar("Part", bound=Sized)


class Processes:
    """Which of how many processes this one is, and the few words they have for one another.

    Without an accelerator it is one process alone.
    """

    def __init__(self, accelerator: "Accelerator | None" = None):
        self.rank, self.world_size = 0, 1
        if accelerator is not None:
            self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        self.is_main = self.rank == 0
        self.accelerator = accelerator if self.world_size > 1 else None

    def part(self, batch: int, pieces: int = 1) -> slice:
        """This process's part of a batch. Raises UserError where that cannot be shared out evenly,
        or the part not be cut into so many pieces."""
        if batch % (self.world_size * pieces):
            what = f"shared by {self.world_size} processes"
            if pieces > 1:
                apiece = f" by each of {self.world_size} processes" if self.world_size > 1 else ""
                what = f"cut into {pieces} parts{apiece}"
            raise UserError(f"a batch of {batch} cannot be {what}")
        each = batch // self.world_size
        return slice(self.rank * each, (self.rank + 1) * each)

    def main_process_first(self) -> AbstractContextManager[object]:
        """The main process does what is inside, and then the others."""
        return nullcontext() if self.accelerator is None else self.accelerator.main_process_first()

    def broadcast(self, values: Sequence[float]) -> list[float]:
        """The main process's values, for all. Everyone waits."""
        if self.accelerator is None:
            return list(values)
        from accelerate.utils import broadcast

        kind = torch.float32 if self.accelerator.device.type == "mps" else torch.float64
        tensor = torch.tensor(values, dtype=kind, device=self.accelerator.device)
        return broadcast(tensor, from_process=0).tolist()

    def mean(self, values: Tensor) -> Tensor:
        """The mean of every process's values, for all. Everyone waits."""
        if self.accelerator is None:
            return values
        return self.accelerator.reduce(values, reduction="mean")

    def all(self, yes: bool) -> bool:
        """Whether every process says yes. Everyone waits."""
        if self.accelerator is None:
            return yes
        return self.mean(torch.tensor(float(yes), device=self.accelerator.device)).item() == 1

    def finish(self) -> None:
        """The end of the work in common: nobody leaves while another still needs him."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()
            self.accelerator.end_training()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raises UserError where another process has died in what is done inside."""
        try:
            yield
        except RuntimeError as error:
            lost = ("peer", "NCCL", "ProcessGroup", "process group", "gloo", "Gloo")
            if self.accelerator is None or not any(word in str(error) for word in lost):
                raise
            raise UserError(
                f"process {self.rank} of {self.world_size} has lost another, which has died or was "
                f"killed: its own message says why. Go on from the last checkpoint with --resume"
            ) from None

    def map_in_order(
        self, parts: Sequence[Part], work: Callable[[Part], tuple[Tensor, ...]]
    ) -> Iterator[tuple[Tensor, ...]]:
        """work(part) of every part, in order, for all; the processes take the parts in turn.

        `parts` have lengths, none more than the first, and the tensors that `work` makes of one
        are as long as it. As every part is worked on whole, what comes of it does not depend on
        how many processes there are.
        """
        for first in range(0, len(parts), self.world_size):
            mine = parts[min(first + self.rank, len(parts) - 1)]  # at the end, some for nothing
            made = [self.gather(tensor, len(parts[0])) for tensor in work(mine)]
            for part, *tensors in zip(parts[first : first + self.world_size], *made, strict=False):
                yield tuple(tensor[: len(part)] for tensor in tensors)

    def gather(self, tensor: Tensor, longest: int) -> list[Tensor]:
        """Every process's tensor, filled up with zeros to the same length. Everyone waits."""
        if self.accelerator is None:
            return [tensor]
        filled = tensor.new_zeros(longest, *tensor.shape[1:])
        filled[: len(tensor)] = tensor
        gathered = self.accelerator.gather(filled.to(self.accelerator.device))
        return list(gathered.to(tensor.device).split(longest))


ALONE = Processes()


def rejoin(cpu: bool) -> None:
    """Meet the others under a name of this attempt's own, where torchrun has started all anew.

    It keeps one store for all attempts, and a process that finds there what the last attempt wrote
    waits for one that is dead. Without a restart nothing is done.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if attempt == "0" or not shared or torch.distributed.is_initialized():
        return
    from torch.distributed import PrefixStore, TCPStore, init_process_group

    where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = PrefixStore(f"attempt-{attempt}", TCPStore(*where, is_master=False))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    init_process_group("gloo" if cpu else "nccl", store=store, rank=rank, world_size=size)


def join_processes(device: str) -> Processes:
    """The processes that a launcher started: this one alone, where none did.

    Raises UserError for a device that processes cannot share work on.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return ALONE
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise UserError(f"several processes work on cpu or cuda, not on {kind}")
    from accelerate import Accelerator

    rejoin(kind == "cpu")
    return Processes(Accelerator(cpu=kind == "cpu"))
