"""The objectives of the stages: from a micro-batch and its columns to a loss and what to watch.

Columns (one row a scored token): `weights`, and by objective `advantages`, `sampler_logprobs`,
`old_logprobs`, `reference_logprobs`, `sequence`, `teacher_logprobs`, `teacher_hidden`, `teacher`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from transformers import PreTrainedModel

from kascade.learning import losses
from kascade.learning.distillation import Taught, TaughtRows, distil
from kascade.learning.example import Columns, Terms
from kascade.learning.group import GroupHead
from kascade.models.logprobs import TokenBatch, TokenScores, scored_hidden, token_logprobs
from kascade.recipe.schema import GRPO


@dataclass(frozen=True, slots=True)
class Supervised:
    """Cross-entropy on the scored tokens, weighted per token or per sample."""

    def __call__(self, model: PreTrainedModel, batch: TokenBatch, columns: Columns) -> Terms:
        scores = token_logprobs(model, batch)
        loss = losses.supervised_loss(scores.logprobs, columns["weights"])
        return Terms(loss, {"nll": -scores.logprobs, "entropy": scores.entropy})


@dataclass(frozen=True, slots=True)
class PolicyGradient:
    """GRPO's objective under a recipe's rules; temperature, top_k and top_p as the rollouts were drawn.

    With `old_logprobs` among the columns (the batch is used again) ratios are clipped; without, the update is
    on-policy. `reference_logprobs` are needed where grpo.kl_coefficient > 0, `sequence` for sequence_mask.
    """

    temperature: float
    rule: GRPO = field(default_factory=GRPO)
    top_k: int | None = None
    top_p: float = 1.0

    def __call__(self, model: PreTrainedModel, batch: TokenBatch, columns: Columns) -> Terms:
        scores = token_logprobs(
            model, batch, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
        )
        watched = watch_sampler(scores, columns)
        weights, advantages, old = columns["weights"], columns["advantages"], columns.get("old_logprobs")
        if self.rule.correction is not None:
            # The correction is of the policy that the batch began with: later updates have their own ratio.
            trained = scores.logprobs if old is None else old
            correction, kept = losses.importance_weights(
                trained, columns["sampler_logprobs"], columns["sequence"], self.rule.correction
            )
            weights, watched["dropped"] = weights * correction, (~kept).float()
        if old is None:
            loss = losses.policy_gradient_loss(scores.logprobs, advantages, weights)
        else:
            low, high = self.rule.clip.low, self.rule.clip.high
            loss = losses.clipped_policy_loss(scores.logprobs, old, advantages, weights, low=low, high=high)
            ratio = (scores.logprobs.detach() - old).exp()
            watched["clipped"] = ((ratio < 1 - low) | (ratio > 1 + high)).float()
            watched["logprob_gap"] = (old - columns["sampler_logprobs"]).abs()
        if self.rule.kl_coefficient > 0:
            kl = losses.kl_k3(scores.logprobs, columns["reference_logprobs"])
            # Weighed as the loss is, but not corrected: k3 is an estimate of its own.
            loss = loss + self.rule.kl_coefficient * (columns["weights"] * kl).sum()
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
    range are dropped, as in the sampled form.
    """

    temperature: float
    low: float
    high: float
    heads: Sequence[nn.Module | GroupHead]

    def __call__(self, model: PreTrainedModel, batch: TokenBatch, columns: Columns) -> Terms:
        hidden, targets = scored_hidden(model, batch), batch.targets
        # Rows by teacher: each row is compared with one teacher's distribution, through that head alone.
        taught = []
        for index, head in enumerate(self.heads):
            mine = (columns["teacher"] == index).nonzero().squeeze(1)
            if len(mine) == 0:
                continue
            weights, sampler = columns["weights"][mine], columns["sampler_logprobs"][mine]
            rows = TaughtRows(targets[mine], weights, sampler, self.temperature, (self.low, self.high))
            if isinstance(head, GroupHead):
                raise TypeError(f"the output layer of {head.name!r} is known to its trainer group only")
            head.to(hidden.device)  # a trainer of another process got it from there
            taught.append(Taught(mine, head, columns["teacher_hidden"][mine], rows))
        return distil(model, hidden, taught)


def watch_sampler(scores: TokenScores, columns: Columns) -> dict[str, Tensor]:
    """Entropy, and the gap |log p(trainer) - log p(sampler)| [N], nats."""
    gap = (scores.logprobs.detach() - columns["sampler_logprobs"]).abs()
    return {"entropy": scores.entropy, "logprob_gap": gap}
