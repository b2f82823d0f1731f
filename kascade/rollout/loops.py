"""The compiled loops of decoding, where there are any."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kascade.models.loops import has_loops


def kernels_for(like: Tensor) -> Any:
    """The module `kascade.rollout.kernels` where it can compute with tensors like this one, else None."""
    if not has_loops(like):
        return None
    from kascade.rollout import kernels

    return kernels
