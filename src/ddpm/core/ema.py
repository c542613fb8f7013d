"""The average of the weights over the last steps: what is sampled, saved and scored."""

import copy

import torch
from torch import Tensor, nn


def warm_decay(decay: float, k: int) -> float:
    """d_k = min(d, (1 + k)/(10 + k)), the decay of update k."""
    return min(decay, (1 + k) / (10 + k))


class EMA:
    """θ̄ ← d_k θ̄ + (1 − d_k) θ,  d_k = min(d, (1 + k)/(10 + k)) at update k   [DDPM, App. B, but
    for the warm-up]

    The warm-up makes it an average of about the last tenth of training while that is shorter than
    1/(1 − d) steps, so the random start is soon forgotten. `model` holds θ̄.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """One update towards `model`, in one fused operation over all of its parameters."""
        self.updates += 1
        averages: list[Tensor] = [*self.model.parameters()]
        torch._foreach_lerp_(
            averages, [*model.parameters()], 1 - warm_decay(self.decay, self.updates)
        )
