"""One update of the weights from one batch, whatever the objective."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kascade.data.packing import micro_batches, shared_micro_batches
from kascade.errors import TrainingStopped
from kascade.learning.optimizer import build_optimizer, learning_rate
from kascade.learning.state import StateWriter, load_state
from kascade.models import trunk
from kascade.models.batch import TokenBatch, shared_cuts
from kascade.recipe.schema import Optimizer

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


class Trainer:
    """AdamW on any `Objective`, in micro-batches of at most `micro_batch_tokens` padded tokens."""

    def __init__(
        self,
        model: PreTrainedModel,
        part: Optimizer,
        *,
        total_steps: int,
        micro_batch_tokens: int,
        pad_id: int,
    ) -> None:
        self.model, self.part, self.total_steps = model, part, total_steps
        self.micro_batch_tokens, self.pad_id = micro_batch_tokens, pad_id
        self.optimizer = build_optimizer(model, part)
        self._writer: StateWriter | None = None

    def update(
        self,
        step: int,
        examples: Sequence[Example],
        objective: Objective,
        check: Callable[[Mapping[str, float]], None] = lambda metrics: None,
    ) -> dict[str, float]:
        """Make update `step` and return its metrics: loss, grad_norm, learning_rate, the objective's means.

        `check` sees the metrics before the weights change and may raise to forbid it. Raises
        TrainingStopped for a loss or gradient that is not finite; the weights are then unchanged.
        """
        rate = learning_rate(self.part, step, self.total_steps)
        metrics = self._accumulate(examples, objective)
        metrics |= {"grad_norm": self._clip(), "learning_rate": rate}
        try:
            _refuse_non_finite(step, metrics)
            check(metrics)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        return metrics

    def save(
        self, folder: Path, step: int, rollouts: Mapping[str, Tensor] | None = None, *, keep: int = 2
    ) -> None:
        """Take the training state after `step` updates; a thread writes it under `folder`. keep: states."""
        self._writer = self._writer or StateWriter(folder, keep)
        self._writer.save(step, self.model, self.optimizer, rollouts)

    def finish_saving(self) -> None:
        """Wait until the last state is written; raises what its writing raised."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with writer:
                pass

    def load(self, folder: Path, rollouts: dict[str, Tensor] | None = None) -> int:
        """Go on from the newest intact state; returns its step, 0 when there is none. See `load_state`."""
        self.finish_saving()
        return load_state(folder, self.model, self.optimizer, rollouts)

    def _clip(self) -> float:
        """Scale gradients down to max_grad_norm; returns their norm before."""
        return float(nn.utils.clip_grad_norm_(self.model.parameters(), self.part.max_grad_norm))

    def _accumulate(self, examples: Sequence[Example], objective: Objective) -> dict[str, float]:
        """Forward and backward over all micro-batches; gradients are left in the parameters."""
        loss, tokens = 0.0, 0
        sums: dict[str, float] = defaultdict(float)
        for chosen in cut(self.model, examples, self.micro_batch_tokens):
            batch, columns = collate(self.model, chosen, self.pad_id)
            terms = objective(self.model, batch, columns)
            terms.loss.backward()  # type: ignore[no-untyped-call]
            loss += float(terms.loss.detach())
            tokens += sum(map(sum, (e.scored for e in chosen)))
            for name, values in terms.per_token.items():
                sums[name] += float(values.detach().sum())
        return {
            "loss": loss,
            "tokens": float(tokens),
            **{name: total / tokens for name, total in sums.items()},
        }


def cut(model: PreTrainedModel, examples: Sequence[Example], token_budget: int) -> Iterator[list[Example]]:
    """Micro-batches of at most `token_budget` tokens, a shared prompt counted once where the model allows."""
    lengths = [len(e.token_ids) for e in examples]
    prompts = [0] * len(examples)
    if trunk.knows(model):
        prompts = shared_cuts([e.token_ids for e in examples], [e.scored for e in examples])
    if any(prompts):
        groups = shared_micro_batches(
            [tuple(e.token_ids[:cut]) for e, cut in zip(examples, prompts, strict=True)],
            prompts,
            [length - cut for length, cut in zip(lengths, prompts, strict=True)],
            token_budget,
        )
    else:
        groups = micro_batches(lengths, token_budget)
    return ([examples[row] for row in rows] for rows in groups)


def collate(model: PreTrainedModel, examples: Sequence[Example], pad_id: int) -> tuple[TokenBatch, Columns]:
    """The examples laid out as the model can compute them; their columns in the order of scored tokens."""
    batch = TokenBatch.collate(
        [e.token_ids for e in examples],
        [e.scored for e in examples],
        pad_id,
        share_prefixes=trunk.knows(model),
        packed=trunk.packs(model),
    )
    columns = {
        name: torch.cat([e.columns[name] for e in examples]).to(model.device) for name in examples[0].columns
    }
    return batch.to(model.device), columns


def _refuse_non_finite(step: int, metrics: Mapping[str, float]) -> None:
    broken = [name for name in ("loss", "grad_norm") if not math.isfinite(metrics[name])]
    if broken:
        raise TrainingStopped(
            f"step {step}: {' and '.join(f'{name} is {metrics[name]}' for name in broken)}; the weights were "
            "not changed. To do: lower optimizer.learning_rate or raise optimizer.warmup_steps, and resume"
        )
