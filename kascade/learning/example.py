"""What a trainer learns from, and what an objective makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedModel

from kascade.models.batch import TokenBatch

Columns = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence to learn from.

    token_ids [T]; scored [T]: which tokens the objective sees (n of them, never the first);
    columns: what the objective needs beside them, each [n] or [n, ...], row-aligned with scored tokens.
    routing: experts that the sampler used for the first t tokens, [t, layers, K]; None: not known.
    """

    token_ids: Sequence[int]
    scored: Sequence[bool]
    columns: Columns = field(default_factory=dict)
    routing: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """A micro-batch's share of the loss (with its graph), and per-token quantities [N] to average."""

    loss: Tensor
    per_token: Mapping[str, Tensor]


class Objective(Protocol):
    """What to minimise. Normalisation over the whole batch is in the columns, so shares add up."""

    def __call__(self, model: PreTrainedModel, batch: TokenBatch, columns: Columns) -> Terms: ...
