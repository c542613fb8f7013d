"""The optimizers: AdamW, and Muon for the kernels within the network."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TrainConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: steep at 0, within 0.7 … 1.2 at 1
NEWTON_SCHULZ_STEPS = 5


def build_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return the optimizer that the config names, in fused kernels where the device has them."""
    fused = next(net.parameters()).device.type in ("cpu", "cuda", "mps", "xpu")
    options: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "fused": fused}
    options["weight_decay"] = config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), **options)
    hidden = hidden_kernels(net)
    chosen = {id(p) for p in hidden}
    rest = [p for p in net.parameters() if id(p) not in chosen]
    groups: list[dict[str, Any]] = [
        {"params": rest},
        {"params": hidden, "momentum": config.momentum},
    ]
    return Muon(groups, **options)


def hidden_kernels(net: nn.Module) -> list[Tensor]:
    """Return the kernels of every convolution but the first and the last, which meet the image."""
    layers = ((name.split(".")[-1], m) for name, m in net.named_modules())
    return [
        layer.weight
        for name, layer in layers
        if isinstance(layer, nn.Conv2d) and name not in ("conv_in", "conv_out")
    ]


def orthogonalize(G: Tensor, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """G = U S Vᵀ  →  about U Vᵀ, by  X ← P X,  P = a I + b A + c A²,  A = X Xᵀ   [Jordan et al.
    2024, "Muon", a Newton-Schulz iteration of degree five]

    Shape (K, m, n): K matrices at once. Singular values come out between about 0.7 and 1.2. All P
    are polynomials of the first A, so they commute: A ← P A P, and their product Q meets X once.
    For kernels, where n = 9 m, that is a third of the work.
    """
    a, b, c = NEWTON_SCHULZ
    X = G.mT if G.shape[1] > G.shape[2] else G
    X = X / (X.norm(dim=(1, 2), keepdim=True) + 1e-7)
    A = X @ X.mT
    Q = identity = torch.eye(A.shape[-1], device=A.device, dtype=A.dtype).expand_as(A)
    for i in range(steps):
        P = a * identity + torch.baddbmm(A, A, A, beta=b, alpha=c)
        Q = P @ Q if i else P
        A = P @ A @ P if i < steps - 1 else A
    X = Q @ X
    return X.mT if G.shape[1] > G.shape[2] else X


class Muon(torch.optim.AdamW):
    """M ← μ M + (1 − μ) ∇,  W ← W − 0.2 lr √max(m, n) orthogonalize((1 − μ) ∇ + μ M)
    [Jordan et al. 2024; the factor, which gives the update the size of AdamW's, Liu et al. 2025,
    "Muon is scalable", Eq. 4]

    For the groups that have a `momentum` μ; their weights are taken as matrices (m, n), a kernel as
    outputs x all else. The other groups are AdamW's. Weight decay is AdamW's for both. Where
    `found_inf` is 1 nothing changes, as in the fused AdamW.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            if "momentum" in group:
                self.step_matrices(group)
        return super().step(closure)  # which leaves out weights that have no gradient

    def step_matrices(self, group: dict[str, Any]) -> None:
        alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is not None:
                alike[len(p), p[0].numel()].append(p)
        skip = getattr(self, "found_inf", None)
        for (m, n), params in alike.items():
            grad = torch.stack([p.grad.reshape(m, n) for p in params if p.grad is not None])
            for p in params:
                if not self.state[p]:  # AdamW, when it loads a state, wants a "step" in each
                    self.state[p] = {
                        "step": torch.zeros(()),
                        "momentum_buffer": torch.zeros_like(p),
                    }
                p.grad = None
            buffers = [self.state[p]["momentum_buffer"] for p in params]
            before = torch.stack([b.reshape(m, n) for b in buffers])
            mu, lr = group["momentum"], group["lr"]
            momentum = before.lerp(grad, 1 - mu)
            update = orthogonalize(grad.lerp(momentum, mu)) * (0.2 * lr * max(m, n) ** 0.5)
            if skip is not None:  # decided on the device, which nobody waits for
                momentum = torch.where(skip > 0, before, momentum)
                update = torch.where(skip > 0, torch.zeros_like(update), update)
            decay = 1 - lr * group["weight_decay"]
            for p, b, u, v in zip(params, buffers, update, momentum, strict=True):
                p.mul_(decay if skip is None else torch.where(skip > 0, 1.0, decay)).sub_(
                    u.view(p.shape)
                )
                b.copy_(v.view(p.shape))
