"""float32 master weights of a model that computes in a lower precision in one process.

AdamW at the rates of RL moves a weight by less than half a step of bfloat16: stepped directly, 3% of the way
is left after 100 updates. So the optimiser steps float32 copies, and the model holds them rounded: what it
computes, samples and saves is what a bfloat16 model does. Mixed precision: arXiv 1710.03740. Sharded models
have their float32 weights by FSDP2's own mixed precision, and need none of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LOW = (torch.bfloat16, torch.float16)


class Masters:
    """float32 copies of the trained parameters that have a lower precision; of the others, themselves."""

    def __init__(self, model: nn.Module) -> None:
        self._of: dict[Tensor, Tensor] = {
            p: p.detach().float().requires_grad_()
            for p in model.parameters()
            if p.requires_grad and p.dtype in LOW
        }

    def of(self, parameter: Tensor) -> Tensor:
        """What the optimiser steps for this parameter."""
        return self._of.get(parameter, parameter)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Gradients of every backward within are added to the masters' in float32, tensor by tensor."""
        with ExitStack() as stack:
            for parameter in self._of:
                handle: Any = parameter.register_post_accumulate_grad_hook(self._collect)  # type: ignore[no-untyped-call]
                stack.callback(handle.remove)
            yield

    def _collect(self, parameter: Tensor) -> None:
        master, gradient = self._of[parameter], parameter.grad
        if gradient is None:
            return
        # Micro-batches are added in float32: in bfloat16 the later ones of many would be rounded away.
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad += gradient
        # Let go at once: the low-precision gradients of all layers are never there together.
        parameter.grad = None

    @torch.no_grad()
    def round_into_model(self) -> None:
        """Put the masters' values, rounded, into the model."""
        for parameter, master in self._of.items():
            parameter.copy_(master)
