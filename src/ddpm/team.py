"""The processes that work together, as torchrun or Accelerate started them. Usually one."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from .errors import UserError


class Team:
    """Which of how many processes this one is, and the few words they have for one another."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.rank, self.size = accelerator.process_index, accelerator.num_processes
        self.main = accelerator.is_main_process

    def part(self, batch: int) -> slice:
        """This process's part of a batch. Raises UserError where it cannot be shared out evenly."""
        if batch % self.size:
            raise UserError(f"a batch of {batch} cannot be shared by {self.size} processes")
        each = batch // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def agree(self, values: Sequence[float]) -> list[float]:
        """The main process's values, for all. Everyone waits."""
        if self.size == 1:
            return list(values)
        kind = torch.float32 if self.accelerator.device.type == "mps" else torch.float64
        tensor = torch.tensor(values, dtype=kind, device=self.accelerator.device)
        return broadcast(tensor, from_process=0).tolist()

    def mean(self, values: Tensor) -> Tensor:
        """The mean of every process's values, for all. Everyone waits."""
        return values if self.size == 1 else self.accelerator.reduce(values, reduction="mean")
