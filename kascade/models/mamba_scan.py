"""Mamba-2's scan in its quadratic form, for short sequences without a GPU kernel.

transformers' reference scan spreads B and C over all heads and multiplies them position by position; the dual
form (Mamba-2, arXiv 2405.21060 §6) is one masked matrix product a head, like attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LONGEST = 256  # positions; beyond, work that grows with the square costs more than chunks do


def use_quadratic_scan() -> None:
    """Let transformers' `nemotron_h` take this scan for short sequences, where it would fall back to Python."""
    from transformers.models.nemotron_h import modeling_nemotron_h as module

    reference: Any = module.mamba2_chunk_scan
    if getattr(reference, "quadratic", False):
        return

    def scan(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        if hidden_states.is_cuda or hidden_states.shape[1] > LONGEST or kwargs.get("z") is not None:
            return reference(hidden_states, *args, **kwargs)
        return quadratic_scan(hidden_states, *args, **kwargs)

    scan.quadratic = True  # type: ignore[attr-defined]
    module.mamba2_chunk_scan = scan


def quadratic_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int = 0,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **_: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """What `mamba_chunk_scan_combined` computes, in one chunk.

    x: [batch, T, H, P]; dt: [batch, T, H]; A, D: [H]; B, C: [batch, T, G, N]; states: [batch, H, P, N].
    Returns y [batch, T, H, P], with the final states where asked for.
    """
    batch, length, heads, width = x.shape
    groups, states = B.shape[2:]
    if dt_bias is not None:
        dt = dt + dt_bias
    dt = (F.softplus(dt) if dt_softplus else dt).clamp(*dt_limit).float()
    decay = (A.float() * dt).cumsum(1).transpose(1, 2)  # [batch, H, T]: log of what is left since the start
    inputs = (x.float() * dt[..., None]).transpose(1, 2)  # [batch, H, T, P]
    read, write = (part.float().transpose(1, 2) for part in (C, B))  # [batch, G, T, N]

    later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    kept = (decay[..., :, None] - decay[..., None, :]).masked_fill(later, -torch.inf).exp()
    weights = kept.view(batch, groups, -1, length, length) * (read @ write.transpose(2, 3))[:, :, None]
    y = weights.view(batch, heads, length, length) @ inputs
    if initial_states is not None:
        start = initial_states.float().view(batch, groups, -1, width, states)
        carried = (read[:, :, None] @ start.transpose(3, 4)).view(batch, heads, length, width)
        y = y + carried * decay.exp()[..., None]
    y = y.transpose(1, 2)
    if D is not None:
        y = y + x.float() * D[:, None]
    if not return_final_states:
        return y.contiguous()
    return y.contiguous(), _final_states(inputs, decay, write, initial_states)


def _final_states(inputs: Tensor, decay: Tensor, write: Tensor, initial: Tensor | None) -> Tensor:
    """The state after the last position: [batch, H, P, N]."""
    batch, heads, length, width = inputs.shape
    groups, states = write.shape[1], write.shape[3]
    left = inputs * (decay[..., -1:] - decay).exp()[..., None]
    grouped = left.view(batch, groups, -1, length, width).transpose(3, 4)
    final = (grouped @ write[:, :, None]).view(batch, heads, width, states)
    if initial is not None:
        final = final + initial.float() * decay[..., -1:].exp()[..., None]
    return final
