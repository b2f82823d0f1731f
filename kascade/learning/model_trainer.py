"""The trainer, for models with experts and draft heads: what their recipe parts ask for around each update.

Sources: [N3] Nemotron 3 Nano (arXiv 2512.20848), [WP] Nemotron 3 white paper (arXiv 2512.20856).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kascade.learning.example import Columns, Example, Objective, Terms
from kascade.learning.trainer import Trainer
from kascade.models.adapters import has_adapter
from kascade.models.batch import TokenBatch
from kascade.models.mesh import reduced
from kascade.models.mtp import mtp_head, mtp_scores
from kascade.models.routing import (
    ExpertLoads,
    Replay,
    Routing,
    has_expert_bias,
    replay_routing,
    routers,
    update_expert_bias,
)
from kascade.recipe.schema import MTP, MoE, Optimizer

NUMBER = "example"  # column: which example of the update a scored token belongs to


class ModelTrainer(Trainer):
    """`Trainer` with the model's own controls: frozen routers, balanced and replayed experts, draft heads.

    With `moe` or `mtp` a group's prompt is computed once a row: loads and replayed experts are noted by
    transformers' own router modules for [rows, tokens] without a prompt shared (counted once, it would weigh
    less in the load balance than what the sampler routed), and a draft head attends from every position over
    its row's whole beginning. MoE models trained without these controls do share prompts.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        part: Optimizer,
        *,
        total_steps: int,
        micro_batch_tokens: int,
        pad_id: int,
        moe: MoE | None = None,
        mtp: MTP | None = None,
    ) -> None:
        """Raises ValueError where the model lacks what `moe` or `mtp` is about."""
        if moe is not None and not routers(model):
            raise ValueError("the model has no experts for `moe` to control")
        if moe is not None and moe.expert_bias_rate > 0 and not has_expert_bias(model):
            raise ValueError("the model's routers have no bias: set moe.expert_bias_rate to 0")
        head = mtp_head(model)
        if mtp is not None and head is None:
            raise ValueError("the model has no multi-token-prediction head for `mtp` to train")
        self.moe, self.mtp = moe, mtp
        for router in routers(model):
            frozen = has_adapter(model) or (moe is not None and moe.freeze_router)
            router.weight.requires_grad_(not frozen)
        if head is not None:
            head.requires_grad_(mtp is not None)
        super().__init__(
            model, part, total_steps=total_steps, micro_batch_tokens=micro_batch_tokens, pad_id=pad_id
        )

    def update(
        self,
        step: int,
        examples: Sequence[Example],
        objective: Objective,
        check: Callable[[Mapping[str, float]], None] = lambda metrics: None,
    ) -> dict[str, float]:
        """As `Trainer.update`; metrics also of expert loads, replayed routing and the draft head."""
        if self.moe is None and self.mtp is None:
            return super().update(step, examples, objective, check)
        around = _Around(objective, self.moe, self.mtp, examples)
        numbered = [_numbered(example, number) for number, example in enumerate(examples)]
        with around.watching(self.model):
            metrics = super().update(step, numbered, around, check)
        if self.sharded and self.moe is not None:
            around.loads.add_processes()
        if self.moe is not None and self.moe.expert_bias_rate > 0:
            update_expert_bias(self.model, around.loads, self.moe.expert_bias_rate)
        return {**metrics, **around.metrics()}

    def _terms(self, chosen: Sequence[Example], objective: Objective, counted: bool) -> Terms:
        if isinstance(objective, _Around):
            objective.counted = counted
        return super()._terms(chosen, objective, counted)


def _numbered(example: Example, number: int) -> Example:
    numbers = torch.full((sum(example.scored),), number)
    return replace(example, columns={**example.columns, NUMBER: numbers})


@dataclass(slots=True)
class _Around:
    """An objective with what happens around it, over the micro-batches of one update."""

    objective: Objective
    moe: MoE | None
    mtp: MTP | None
    examples: Sequence[Example]
    loads: ExpertLoads = field(default_factory=ExpertLoads)
    replays: list[Replay] = field(default_factory=list)
    nll: list[Tensor] = field(default_factory=list)
    counted: bool = True  # false for a micro-batch that only keeps other processes company
    _hidden: Tensor | None = None
    _open: ExitStack = field(default_factory=ExitStack)

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """Have the model's final states noted in each forward within.

        Hooks of a micro-batch stay until the next begins, so that a backward that computes activations
        again does it with them.
        """

        def note(module: Any, args: Any, output: Any) -> None:
            self._hidden = output.last_hidden_state

        handle = model.base_model.register_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()
            self._open.close()
            self._hidden = None

    def __call__(self, model: PreTrainedModel, batch: TokenBatch, columns: Columns) -> Terms:
        self._open.close()
        ids = batch.rectangle
        if ids is None:
            raise ValueError("experts and draft heads take one rectangle of tokens, not blocks")
        if self.moe is not None:
            if self.moe.routing_replay:
                routing = self._routing(ids, columns[NUMBER])
                replay = self._open.enter_context(replay_routing(model, routing))
                if self.counted:
                    self.replays.append(replay)
            # Company (sharded runs) goes through the routers like any row, so it is masked out of the loads.
            rows = _no_padding(batch, ids) if self.counted else torch.zeros_like(ids, dtype=torch.bool)
            self._open.enter_context(self.loads.counting(model, rows))
        terms = self.objective(model, batch, columns)
        if self.mtp is None:
            return terms
        scored = torch.zeros_like(batch.token_ids, dtype=torch.bool)
        # Predictors are the states before the scored tokens.
        scored[batch.predictors + 1] = True
        loss = self._draft_loss(model, ids, scored.view_as(ids), columns["weights"], self.mtp)
        return Terms(terms.loss + loss, terms.per_token)

    def _routing(self, ids: Tensor, numbers: Tensor) -> Routing:
        """The samplers' experts of the micro-batch's rows."""
        rows = [self.examples[i] for i in torch.unique_consecutive(numbers).tolist()]
        records = [example.routing for example in rows if example.routing is not None]
        if len(records) != len(ids):
            raise ValueError("routing replay needs the sampler's routing of every example")
        return Routing.collate(records, ids.shape[1]).to(ids.device)

    def _draft_loss(
        self, model: PreTrainedModel, ids: Tensor, scored: Tensor, weights: Tensor, mtp: MTP
    ) -> Tensor:
        """loss_scale times the mean over look-aheads of the head's weighted cross-entropy. [WP §2.3]"""
        if self._hidden is None:
            raise RuntimeError("the objective did not run the model's own forward")
        scores = mtp_scores(
            model, ids, scored, self._hidden, depth=mtp.depth, train_backbone=mtp.train_backbone
        )
        loss = self._hidden.new_zeros((), dtype=torch.float32)
        for ahead in scores:
            # The weights of the policy's own loss: a token counts as much for the head as for the model.
            loss = loss - (weights[ahead.predicted] * ahead.logprobs).sum()
            if self.counted:
                self.nll.append(-ahead.logprobs.detach())
        return mtp.loss_scale / max(1, len(scores)) * loss

    def metrics(self) -> dict[str, float]:
        """expert_imbalance (largest over mean load), routing_agreement (share of replayed experts that the
        trainer would have chosen), mtp_nll (nats a predicted token); each where it applies."""
        found = {}
        if self.moe is not None:
            found["expert_imbalance"] = self.loads.imbalance()
            if self.moe.routing_replay:
                mine = Replay.total(self.replays)
                found["routing_agreement"] = Replay(*reduced([mine.agreeing, mine.replayed])).agreement
        if self.mtp is not None:
            nll = torch.cat(self.nll) if self.nll else torch.zeros(0)
            # Sums first, then the quotient: a mean of the processes' means would weigh their shares wrongly.
            total, count = reduced([float(nll.sum()), float(len(nll))])
            found["mtp_nll"] = total / max(1.0, count)
        return found


def _no_padding(batch: TokenBatch, ids: Tensor) -> Tensor:
    """Which tokens of a rectangle are not padding: [B, T] bool."""
    return torch.arange(ids.shape[1], device=ids.device) < batch.blocks[0].lengths[:, None]
