"""Frozen models whose weights lie in the host's memory and come to the device while they compute."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PLACE = "_kascade_rests"  # of a model: where its weights lie meanwhile


@dataclass(frozen=True, slots=True)
class Resting:
    """device: where the model computes. host: its tensors with what they hold in the host's memory."""

    device: torch.device
    host: tuple[tuple[Tensor, Tensor], ...]

    def move(self, *, to_device: bool) -> None:
        """Frozen weights never change, so nothing is copied back."""
        for tensor, resting in self.host:
            tensor.data = resting.to(self.device, copy=True, non_blocking=True) if to_device else resting


def rest_in_host(
    model: PreTrainedModel, device: torch.device, held: Collection[nn.Parameter] = ()
) -> PreTrainedModel:
    """Move a whole frozen model's weights to the host's memory; `on_device` brings them for a while.

    The output layer stays, because distillation computes with it. held: parameters of another model, which
    may share some; they stay, too.
    """
    stay = {id(tensor) for tensor in chain(held, _head(model).parameters())}
    moving = [t for t in chain(model.parameters(), model.buffers()) if id(t) not in stay]
    pinned = device.type == "cuda" and torch.cuda.is_available()
    host = tuple((t, t.data.to("cpu").pin_memory() if pinned else t.data.to("cpu")) for t in moving)
    resting = Resting(device, host)
    resting.move(to_device=False)
    setattr(model, PLACE, resting)
    return model


def _head(model: PreTrainedModel) -> nn.Module:
    head: nn.Module = model.get_output_embeddings()
    return head


@contextmanager
def on_device(model: nn.Module) -> Iterator[None]:
    """Within, the model's weights are where it computes. Does nothing for a model that does not rest."""
    resting: Resting | None = getattr(model, PLACE, None)
    if resting is None:
        yield
        return
    resting.move(to_device=True)
    try:
        yield
    finally:
        resting.move(to_device=False)
