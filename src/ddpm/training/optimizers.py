"""The optimizers: AdamW, and Muon for the kernels within the network."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TrainConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: steep at 0, within 0.7 … 1.2 at 1
NEWTON_SCHULZ_STEPS = 5
CHANNELS_LAST, CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # of a kernel (out, in, height, width)


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


def orthogonalize(matrices: Sequence[Tensor], steps: int = NEWTON_SCHULZ_STEPS) -> list[Tensor]:
    """G = U S Vᵀ  →  about U Vᵀ, by  X ← P X,  P = a I + b A + c A²,  A = X Xᵀ   [Jordan et al.
    2024, "Muon", a Newton-Schulz iteration of degree five]

    Each (K, m, n): K matrices. Singular values come out between about 0.7 and 1.2. All P are
    polynomials of the first A, so they commute: A ← P A P, and their product Q meets X once. For
    kernels, where n = 9 m, that is a third of the work; and all A of one size go together.
    """
    a, b, c = NEWTON_SCHULZ
    Xs = [G.mT if G.shape[1] > G.shape[2] else G for G in matrices]
    Xs = [X / (X.norm(dim=(1, 2), keepdim=True) + 1e-7) for X in Xs]
    out = list(Xs)
    for k in sorted({X.shape[1] for X in Xs}):
        of_size = [i for i, X in enumerate(Xs) if X.shape[1] == k]
        A = torch.cat([Xs[i] @ Xs[i].mT for i in of_size])
        Q = identity = torch.eye(k, device=A.device, dtype=A.dtype).expand_as(A)
        for i in range(steps):
            P = a * identity + torch.baddbmm(A, A, A, beta=b, alpha=c)
            Q = P @ Q if i else P
            A = P @ A @ P if i < steps - 1 else A
        for i, q in zip(of_size, Q.split([len(Xs[i]) for i in of_size]), strict=True):
            out[i] = q @ Xs[i]
    return [X.mT if G.shape[1] > G.shape[2] else X for X, G in zip(out, matrices, strict=True)]


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
        assert closure is None  # gradients are dropped below, before AdamW could compute them
        for group in self.param_groups:
            if "momentum" in group:
                self.step_matrices(group)
        return super().step()  # which leaves out weights that have no gradient

    def step_matrices(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        for p in params:
            if not self.state[p]:  # AdamW, when it loads a state, wants a "step" in each
                self.state[p] = {"step": torch.zeros(()), "momentum_buffer": torch.zeros_like(p)}
        params.sort(key=matrix_shape)
        shapes = [p.permute(CHANNELS_LAST).shape for p in params]
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        grad = flattened([p.grad for p in params if p.grad is not None])
        before = flattened(buffers)
        for p in params:
            p.grad = None  # which AdamW leaves alone
        mu, lr, skip = group["momentum"], group["lr"], getattr(self, "found_inf", None)
        momentum = before.lerp(grad, 1 - mu)
        alike = [list(same) for _, same in groupby(params, matrix_shape)]
        stacks = grad.lerp(momentum, mu).split([sum(p.numel() for p in same) for same in alike])
        stacks = orthogonalize(
            [G.view(-1, *matrix_shape(same[0])) for G, same in zip(stacks, alike, strict=True)]
        )
        update = torch.cat([0.2 * lr * max(U.shape[1:]) ** 0.5 * U.flatten() for U in stacks])
        if skip is not None:  # decided on the device, which nobody waits for
            momentum = torch.where(skip > 0, before, momentum)
            update = torch.where(skip > 0, torch.zeros_like(update), update)
        if group["weight_decay"]:
            decay = torch.full((), 1 - lr * group["weight_decay"], device=update.device)
            torch._foreach_mul_(params, decay if skip is None else decay.where(skip <= 0, 1.0))
        torch._foreach_sub_(params, unflattened(update, shapes))
        torch._foreach_copy_(buffers, unflattened(momentum, shapes))


def matrix_shape(p: Tensor) -> tuple[int, int]:
    """Return (m, n) of a kernel: outputs, and all else."""
    return len(p), p[0].numel()


def flattened(kernels: Sequence[Tensor]) -> Tensor:
    """Return all kernels in one row, each as it lies in memory where it is channels_last."""
    return torch.cat([k.permute(CHANNELS_LAST).reshape(-1) for k in kernels])


def unflattened(row: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Return the kernels of a row that `flattened` made, as views."""
    pieces = row.split([shape.numel() for shape in shapes])
    kernels = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
    return [k.permute(CHANNELS_FIRST) for k in kernels]
