"""Where there are compiled loops: float32 on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def has_loops(like: Tensor) -> bool:
    """Whether `kernels` can compute with tensors like this one."""
    return like.device.type == "cpu" and like.dtype == torch.float32


def kernels_for(like: Tensor) -> Any:
    """The module `kascade.models.kernels` where it can compute with tensors like this one, else None."""
    if not has_loops(like):
        return None
    from kascade.models import kernels  # a quarter of a second, which only those pay who compute on a CPU

    return kernels


def array(x: Tensor) -> Any:
    """A tensor as the loops take it, one row after the other; not copied where it is so already."""
    return x.detach().contiguous().numpy()
