"""A network in parts: each process has a share of every weight, of its moments and its average.

Fully sharded data parallel [Zhao et al. 2023, "PyTorch FSDP"]: the whole of a block is put together
when it is passed through, and let go of after.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..core.layers import Down, Up
from ..core.unet import Block


def shard(net: nn.Module, size: int, bf16: bool = False) -> None:
    """Share out a U-Net, in place, among `size` processes, block by block. `bf16`: it is put
    together, and computes, in half of the bits."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    device = next(net.parameters()).device.type
    mesh = init_device_mesh(device, (size,))
    half = MixedPrecisionPolicy(torch.bfloat16, output_dtype=torch.float32)
    policy = half if bf16 else MixedPrecisionPolicy()
    net.to(memory_format=torch.contiguous_format)  # weights in another cannot be shared out
    blocks = [part for part in net.modules() if isinstance(part, Block | Down | Up)]
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(net, mesh=mesh, mp_policy=policy)


def whole(tensor: Tensor) -> Tensor:
    """The tensor put together from all processes' shares, which everyone waits for; a tensor that
    is not shared is itself."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def shared_as(tensor: Any, value: Tensor) -> Tensor:
    """`value`, known whole to every process, shared out as `tensor` is."""
    if not hasattr(tensor, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    local = value.to(tensor.device)
    return distribute_tensor(local, tensor.device_mesh, tensor.placements, src_data_rank=None)


def put_weights(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set the weights of a network, in parts or not. Raises RuntimeError where they do not fit."""
    own = net.state_dict()
    net.load_state_dict({k: shared_as(own[k], v) if k in own else v for k, v in tensors.items()})
