"""One update of the weights from one batch, whatever the objective."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kascade.data.packing import micro_batches, shared_micro_batches
from kascade.errors import TrainingStopped
from kascade.learning.example import Columns, Example, Objective, Terms
from kascade.learning.group import GroupModel
from kascade.learning.masters import Masters
from kascade.learning.optimizer import build_optimizer, learning_rate, trained_parameters
from kascade.learning.sharded import clip_by_mesh, shares, sum_whole_gradients
from kascade.learning.state import State, StateWriter, load_state
from kascade.models import trunk
from kascade.models.batch import TokenBatch, shared_cuts
from kascade.models.mesh import reduced, world
from kascade.models.seams import inside, is_sharded
from kascade.recipe.schema import Optimizer


class Trainer:
    """AdamW on any `Objective`, in micro-batches of at most `micro_batch_tokens` padded tokens.

    A model whose weights are spread over processes is trained by all of them: see `kascade.learning.sharded`.
    """

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
        self.sharded = is_sharded(model)
        self.masters = Masters(model)
        self.optimizer = build_optimizer(model, part, self.masters)
        self._writer: StateWriter | None = None

    @property
    def scored(self) -> PreTrainedModel | GroupModel:
        """The model in training, to score with."""
        return self.model

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
            # Both may raise: the weights are still those of the step before, and the state on disk is, too.
            _refuse_non_finite(step, metrics)
            check(metrics)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.masters.round_into_model()
        finally:
            # None, not 0: AdamW leaves parameters without a gradient alone instead of decaying them.
            self.optimizer.zero_grad(set_to_none=True)
        return metrics

    def save(
        self, folder: Path, step: int, rollouts: Mapping[str, Tensor] | None = None, *, keep: int = 2
    ) -> None:
        """Take the training state after `step` updates; a thread writes it under `folder`. keep: states."""
        self._writer = self._writer or StateWriter(folder, keep)
        self._writer.save(step, self.state, rollouts)

    def finish_saving(self) -> None:
        """Wait until the last state is written; raises what its writing raised."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with writer:
                pass

    def load(self, folder: Path, rollouts: dict[str, Tensor] | None = None) -> int:
        """Continue from the newest intact state; returns its step, 0 when there is none. See `load_state`."""
        self.finish_saving()
        return load_state(folder, self.state, rollouts)

    @property
    def state(self) -> State:
        """What a training state holds."""
        return State(self.model, self.optimizer, self.masters)

    def _clip(self) -> float:
        """Scale gradients down to max_grad_norm; returns their norm before."""
        trained, most = trained_parameters(self.model, self.masters), self.part.max_grad_norm
        if self.sharded:
            return clip_by_mesh(trained, most)
        return float(nn.utils.clip_grad_norm_(trained, most))

    def _accumulate(self, examples: Sequence[Example], objective: Objective) -> dict[str, float]:
        """Forward and backward over all micro-batches; gradients are left in what the optimiser steps."""
        loss, tokens = 0.0, 0
        sums: dict[str, float] = defaultdict(float)
        with self.masters.collecting():
            for chosen, counted in self._micro_batches(examples):
                terms = self._terms(chosen, objective, counted)
                for name, values in terms.per_token.items():
                    sums[name] += float(values.detach().sum()) if counted else 0.0
                loss += float(terms.loss.detach())
                tokens += sum(map(sum, (e.scored for e in chosen))) if counted else 0
        # Processes add their totals place by place, so all must list the same names in the same order.
        names = sorted(sums) if self.sharded else list(sums)
        totals = [loss, float(tokens), *(sums[name] for name in names)]
        if self.sharded:
            sum_whole_gradients(trained_parameters(self.model, self.masters))
            totals = reduced(totals)
        means = {name: total / totals[1] for name, total in zip(names, totals[2:], strict=True)}
        return {"loss": totals[0], "tokens": totals[1], **means}

    def _micro_batches(self, examples: Sequence[Example]) -> Iterator[tuple[list[Example], bool]]:
        """What this process computes, and whether it counts."""

        def mine(share: Sequence[Example]) -> Iterator[list[Example]]:
            return cut(self.model, share, self.micro_batch_tokens)

        return shares(examples, mine) if self.sharded else ((chosen, True) for chosen in mine(examples))

    def _terms(self, chosen: Sequence[Example], objective: Objective, counted: bool) -> Terms:
        """Forward and backward of one micro-batch."""
        batch, columns = collate(self.model, chosen, self.pad_id)
        terms = compute(self.model, objective, batch, columns)
        loss = terms.loss * world() if self.sharded else terms.loss  # FSDP2 averages
        loss.backward()  # type: ignore[no-untyped-call]
        return terms


def compute(model: PreTrainedModel, objective: Objective, batch: TokenBatch, columns: Columns) -> Terms:
    """The objective of one micro-batch, inside the root's forward (`kascade.models.seams`)."""

    def run() -> tuple[Tensor, dict[str, Tensor]]:
        terms = objective(model, batch, columns)
        return terms.loss, dict(terms.per_token)

    return Terms(*inside(model, run))


def cut(model: PreTrainedModel, examples: Sequence[Example], token_budget: int) -> Iterator[list[Example]]:
    """Micro-batches of at most `token_budget` tokens, a shared prompt counted once where the model allows."""
    lengths = [len(e.token_ids) for e in examples]
    prompts = [0] * len(examples)
    if trunk.knows(model):
        prompts = shared_cuts([e.token_ids for e in examples], [e.scored for e in examples])
    # A shared prompt is computed once, so a micro-batch pays for it once: more answers fit.
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
