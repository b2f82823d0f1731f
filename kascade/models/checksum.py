"""A number that two holders of the same weights share: cheap enough for every update."""

from __future__ import annotations

import torch
from torch import Tensor, nn

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
PRIME = 0x9E3779B97F4A7C15 | 1  # spreads the tensors' sums, so that exchanged tensors do not cancel


def weights_checksum(model: nn.Module) -> int:
    """64-bit sum over the bit patterns of all parameters, each tensor's weighed by its place.

    Equal for equal bits on any device. One read of the weights; no copy but one tensor's halves at a time.
    """
    total = 0
    for place, parameter in enumerate(model.parameters()):
        total = (total + (place + 1) * PRIME * _bits(parameter.detach())) % 2**64
    return total


def _bits(tensor: Tensor) -> int:
    """Sum of a tensor's elements, read as integers, modulo 2^64."""
    bits = tensor.contiguous().view(INTEGERS[tensor.element_size()])
    return int(bits.sum(dtype=torch.int64)) % 2**64
