"""One definition of a token's log-probability, for sampler checks, trainer, teachers and references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kascade.models.batch import TokenBatch
from kascade.models.products import linear, weight_gradient
from kascade.models.seams import through_head
from kascade.models.trunk import predicting_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_ROWS = 4096  # more rows at a time gain no speed
MAX_CHUNK_ELEMENTS = 2**25  # logits of one chunk: at most 128 MiB in float32, whatever the vocabulary


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of N scored tokens, in nats: log-probability (with gradient) and entropy (a metric: detached)."""

    logprobs: Tensor
    entropy: Tensor


def scored_hidden(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Final-norm hidden states that predict the scored tokens, in their order: [N, H]."""
    return predicting_states(model, batch)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a token was drawn from: softmax(logits / temperature), cut to top k, then to a mass of top_p.

    The support is found again from the logits, so ratios are 1 on-policy; scored tokens always belong to it.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def log_softmax(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Log-probabilities [n, V], -inf outside the support. logits [n, V] are used up."""
        logits = logits.float().div_(self.temperature)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            smallest = logits.topk(self.top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(_without(logits < smallest, targets), -torch.inf)
        if self.top_p < 1:
            # As the sampler does it: the token that passes top_p still belongs.
            ordered, order = logits.sort(dim=-1, descending=True)
            probabilities = ordered.softmax(-1)
            beyond = probabilities.cumsum(-1) - probabilities >= self.top_p  # the mass before it suffices
            dropped = torch.empty_like(beyond).scatter_(1, order, beyond)
            logits = logits.masked_fill(_without(dropped, targets), -torch.inf)
        return logits.log_softmax(-1)


def _without(dropped: Tensor, targets: Tensor) -> Tensor:
    """`dropped` [n, V] with each row's target [n] taken back."""
    return dropped.scatter_(1, targets[:, None], False)


def head_logprobs(
    model: PreTrainedModel,
    hidden: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    chunk: int = MOST_ROWS,
    train_head: bool = True,
) -> TokenScores:
    """Score targets [N] from hidden states [N, H] under the distribution they were drawn from.

    Never holds more than a chunk of logits: forward and backward compute them chunk by chunk.
    Gradients flow through `logprobs` to hidden states and, with `train_head`, to the head.
    """
    score: Any = _ChunkedScores.apply
    how = (Distribution(temperature, top_k, top_p), chunk)

    def use(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        if not train_head:
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        found: tuple[Tensor, Tensor] = score(hidden, weight, bias, targets, how)
        return found

    logprobs, entropy = through_head(model, hidden, use)
    return TokenScores(logprobs, entropy)


def token_logprobs(
    model: PreTrainedModel,
    batch: TokenBatch,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> TokenScores:
    """`head_logprobs` of a batch's scored tokens, in their order."""
    hidden = scored_hidden(model, batch)
    return head_logprobs(model, hidden, batch.targets, temperature=temperature, top_k=top_k, top_p=top_p)


@dataclass(frozen=True, slots=True)
class RankedScores:
    """The model's own log-probabilities of one sequence, in nats, of every token after the first: T - 1.

    logprobs [T - 1]: of the tokens. top: per token the likeliest ones and their values, best first.
    """

    logprobs: list[float]
    top: list[list[tuple[int, float]]]


@torch.inference_mode()
def ranked_scores(model: PreTrainedModel, token_ids: Sequence[int], top: int, *, pad_id: int) -> RankedScores:
    """Score a sequence [T] and name the `top` likeliest tokens at each place. Logits exist in chunks only."""
    scored = [position > 0 for position in range(len(token_ids))]
    batch = TokenBatch.collate([token_ids], [scored], pad_id).to(model.device)
    hidden = scored_hidden(model, batch)
    scores = RankedScores([], [])

    def rank(weight: Tensor, bias: Tensor | None) -> None:
        for part in chunks(len(hidden), weight.shape[0]):
            logits = linear(hidden[part], weight, bias).float().log_softmax(-1)
            scores.logprobs.extend(logits.gather(1, batch.targets[part, None]).squeeze(1).tolist())
            best = logits.topk(top, dim=-1)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            scores.top.extend(list(zip(ids, values, strict=True)) for ids, values in pairs)

    through_head(model, hidden, rank)
    return scores


@torch.inference_mode()
def continuation_scores(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], starts: Sequence[int], *, pad_id: int
) -> list[tuple[float, bool]]:
    """Of each sequence's tokens from number `start` on: their log-probability, in nats, and whether each is
    the likeliest at its place. starts: at least 1."""
    scored = [[i >= start for i in range(len(ids))] for ids, start in zip(sequences, starts, strict=True)]
    batch = TokenBatch.collate(sequences, scored, pad_id).to(model.device)
    hidden = scored_hidden(model, batch)
    logprobs: list[float] = []
    greedy: list[bool] = []

    def score(weight: Tensor, bias: Tensor | None) -> None:
        for part in chunks(len(hidden), weight.shape[0]):
            logits = linear(hidden[part], weight, bias).float().log_softmax(-1)
            logprobs.extend(logits.gather(1, batch.targets[part, None]).squeeze(1).tolist())
            greedy.extend((logits.argmax(-1) == batch.targets[part]).tolist())

    through_head(model, hidden, score)
    found, first = [], 0
    for mask in scored:
        part = slice(first, first := first + sum(mask))
        found.append((sum(logprobs[part]), all(greedy[part])))
    return found


def chunks(count: int, vocabulary: int, chunk: int = MOST_ROWS) -> Iterator[slice]:
    """Parts of `count` rows whose logits may exist at one time."""
    rows = max(1, min(chunk, MAX_CHUNK_ELEMENTS // vocabulary))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


class _ChunkedScores(torch.autograd.Function):
    """log p(target) and the entropy, without ever holding [N, V].

    d logp / d logits = (onehot(target) - p) / temperature; p is recomputed chunk by chunk in the backward,
    and kept where there is one chunk only.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes every input by position
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        how: tuple[Distribution, int],
    ) -> tuple[Tensor, Tensor]:
        distribution, chunk = how
        logprobs = torch.empty(len(hidden), device=hidden.device)
        entropy = torch.empty_like(logprobs)
        parts = list(chunks(len(hidden), weight.shape[0], chunk))
        for part in parts:
            scores = distribution.log_softmax(linear(hidden[part], weight, bias), targets[part])
            logprobs[part] = scores.gather(1, targets[part, None]).squeeze(1)
            probabilities = scores.exp()
            # Outside the support a score is -inf, and 0 * -inf would be NaN.
            if distribution.top_k is not None or distribution.top_p < 1:
                scores = scores.masked_fill(probabilities == 0, 0.0)  # 0 log 0 = 0
            entropy[part] = -torch.linalg.vecdot(probabilities, scores)
        # One chunk fits in memory anyway; with several, computing them again is what saves it.
        kept = probabilities if len(parts) == 1 and any(ctx.needs_input_grad) else None
        ctx.save_for_backward(hidden, weight, bias, targets, kept)
        ctx.how = how
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, kept = ctx.saved_tensors
        distribution, chunk = ctx.how
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight) if needs_weight else None
        d_bias = torch.zeros_like(bias) if needs_bias else None
        for part in chunks(len(hidden), weight.shape[0], chunk):
            if kept is None:
                scores = distribution.log_softmax(linear(hidden[part], weight, bias), targets[part])
                d_logits = scores.exp_().neg_()
            else:
                d_logits = kept.neg()
            d_logits.scatter_add_(1, targets[part, None], torch.ones_like(d_logits[:, :1]))
            d_logits = d_logits.mul_(grads[0][part, None] / distribution.temperature).to(weight.dtype)
            if d_hidden is not None:
                d_hidden[part] = linear(d_logits, weight.T)
            if d_weight is not None:
                d_weight += weight_gradient(d_logits, hidden[part])
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        return d_hidden, d_weight, d_bias, None, None


__all__ = [
    "Distribution",
    "RankedScores",
    "TokenBatch",
    "TokenScores",
    "chunks",
    "continuation_scores",
    "head_logprobs",
    "ranked_scores",
    "scored_hidden",
    "token_logprobs",
]
