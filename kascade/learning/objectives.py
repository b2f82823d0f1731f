"""The objectives of the stages: from a micro-batch and its columns to a loss and what to watch.

Columns (one row a scored token): `weights`, and by objective `advantages`, `sampler_logprobs`,
`reference_logprobs`, `teacher_logprobs`, `teacher_hidden`, `teacher`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from kascade.learning import losses
from kascade.learning.trainer import Columns, Terms
from kascade.models.logprobs import TokenBatch, TokenScores, scored_hidden, token_logprobs
from kascade.recipe.workers import Correction


@dataclass(frozen=True, slots=True)
class Supervised:
    """Cross-entropy on the scored tokens, weighted per token or per sample."""

    def __call__(self, model: PreTrainedModel, batch: TokenBatch, columns: Columns) -> Terms:
        scores = token_logprobs(model, batch)
        loss = losses.supervised_loss(scores.logprobs, columns["weights"])
        return Terms(loss, {"nll": -scores.logprobs, "entropy": scores.entropy})


@dataclass(frozen=True, slots=True)
class PolicyGradient:
    """Policy gradient, with a KL penalty to `reference_logprobs` where kl_coefficient > 0.

    correction: how tokens that older weights drew are weighted; None: on-policy, every ratio is 1.
    """

    temperature: float
    kl_coefficient: float = 0.0
    correction: Correction | None = None

    def __call__(self, model: PreTrainedModel, batch: TokenBatch, columns: Columns) -> Terms:
        scores = token_logprobs(model, batch, temperature=self.temperature)
        watched = watch_sampler(scores, columns)
        weights = columns["weights"]
        if self.correction is not None:
            ratio, masked = losses.off_policy_weights(
                scores.logprobs,
                columns["sampler_logprobs"],
                self.correction.rule,
                self.correction.low,
                self.correction.high,
            )
            weights, watched["dropped"] = weights * ratio, masked.float()
        loss = losses.policy_gradient_loss(scores.logprobs, columns["advantages"], weights)
        if self.kl_coefficient > 0:
            kl = losses.kl_k3(scores.logprobs, columns["reference_logprobs"])
            loss = loss + self.kl_coefficient * (columns["weights"] * kl).sum()
            watched["kl"] = kl
        return Terms(loss, watched)


@dataclass(frozen=True, slots=True)
class SampledDistillation:
    """MOPD on the sampled tokens against `teacher_logprobs`."""

    temperature: float
    low: float
    high: float

    def __call__(self, model: PreTrainedModel, batch: TokenBatch, columns: Columns) -> Terms:
        scores = token_logprobs(model, batch, temperature=self.temperature)
        result = losses.sampled_distillation(
            scores.logprobs,
            columns["sampler_logprobs"],
            columns["teacher_logprobs"],
            columns["weights"],
            low=self.low,
            high=self.high,
        )
        watched = {"dropped": result.dropped.float(), "reverse_kl": result.reverse_kl}
        return Terms(result.loss, watch_sampler(scores, columns) | watched)


@dataclass(frozen=True, slots=True)
class FullDistillation:
    """MOPD with the reverse KL over the whole vocabulary, on the student's own answers.

    heads: output layer of each teacher; columns `teacher` [N] says which, `teacher_hidden` [N, H] holds
    its final hidden states, so that no [N, V] is ever stored. Sampled tokens outside the importance
    range are dropped, as in the sampled form. chunk: positions whose logits exist at one time.
    """

    temperature: float
    low: float
    high: float
    heads: Sequence[nn.Module]
    chunk: int = 2048

    def __call__(self, model: PreTrainedModel, batch: TokenBatch, columns: Columns) -> Terms:
        hidden, targets = scored_hidden(model, batch), batch.targets
        loss = hidden.new_zeros(())
        watched: dict[str, list[Tensor]] = {}
        order = torch.argsort(columns["teacher"], stable=True)
        for index, head in enumerate(self.heads):
            mine = order[columns["teacher"][order] == index]
            for rows in torch.split(mine, self.chunk):
                kl, logprobs, entropy = self._compare(
                    model, head, hidden[rows], columns["teacher_hidden"][rows], targets[rows]
                )
                sampler = columns["sampler_logprobs"][rows]
                _, kept = losses.in_importance_range(logprobs, sampler, self.low, self.high)
                loss = loss + (columns["weights"][rows] * kept * kl).sum()
                seen = {
                    "reverse_kl": kl,
                    "dropped": ~kept,
                    "entropy": entropy,
                    "logprob_gap": (logprobs.detach() - sampler).abs(),
                }
                for name, values in seen.items():
                    watched.setdefault(name, []).append(values.detach().float())
        return Terms(loss, {name: torch.cat(parts) for name, parts in watched.items()})

    def _compare(
        self, model: PreTrainedModel, head: nn.Module, hidden: Tensor, teacher_hidden: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(reverse KL, log-probability of the target, entropy), each [n]; backward recomputes logits."""

        def compare(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            student = functional.log_softmax(
                model.get_output_embeddings()(hidden).float() / self.temperature, -1
            )
            with torch.no_grad():
                teacher = functional.log_softmax(head(teacher_hidden).float() / self.temperature, -1)
            chosen = student.gather(-1, targets[:, None]).squeeze(-1)
            return losses.reverse_kl(student, teacher), chosen, -(student.exp() * student).sum(-1)

        kl, chosen, entropy = checkpoint(compare, hidden, use_reentrant=False)
        return kl, chosen, entropy


def watch_sampler(scores: TokenScores, columns: Columns) -> dict[str, Tensor]:
    """Entropy, and the gap |log p(trainer) - log p(sampler)| [N], nats."""
    gap = (scores.logprobs.detach() - columns["sampler_logprobs"]).abs()
    return {"entropy": scores.entropy, "logprob_gap": gap}
