"""A number that two holders of the same weights share: cheap enough for every update."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kascade.models.mesh import add_up, device_here

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
PRIME = 0x9E3779B97F4A7C15 | 1  # spreads the tensors' sums, so that exchanged tensors do not cancel


def weights_checksum(model: nn.Module, dtype: torch.dtype | None = None, *, without: str = "") -> int:
    """64-bit sum over the bit patterns of all parameters, each tensor's weighed by its place.

    Equal for equal bits on any device and on any number of processes, which call it together. dtype: round to
    it first; None: as they are. without: leave out parameters with that in their names; "": none. One read of
    the weights; no copy but one tensor's part at a time.
    """
    total, shards = 0, 0
    counted = (p for name, p in model.named_parameters() if not without or without not in name)
    for place, parameter in enumerate(counted):
        weighed = (place + 1) * PRIME * bits_of(_mine(parameter.detach(), dtype))
        if isinstance(parameter, DTensor):
            shards += weighed
        else:
            total += weighed
    return (total + _sum_over_processes(model, shards % 2**64)) % 2**64


def _mine(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The part of a tensor that this process answers for: of several holders of a copy, the first does."""
    local = tensor
    if isinstance(tensor, DTensor):
        local = tensor.to_local()
        places = zip(tensor.placements, tensor.device_mesh.get_coordinate() or (), strict=True)
        if any(placement.is_replicate() and place for placement, place in places):
            local = local[:0]
    return local if dtype is None else local.to(dtype)


def _sum_over_processes(model: nn.Module, number: int) -> int:
    """Modulo 2^64, by integers that run over as wanted."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return number
    signed = number - 2**64 if number >= 2**63 else number
    total = torch.tensor(signed, dtype=torch.int64, device=device_here())
    add_up(total)
    return int(total) % 2**64


def bits_of(tensor: Tensor) -> int:
    """Sum of a tensor's elements, read as integers, modulo 2^64."""
    bits = tensor.contiguous().view(INTEGERS[tensor.element_size()])
    return int(bits.sum(dtype=torch.int64)) % 2**64
