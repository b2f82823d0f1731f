"""One definition of a token's log-probability, for sampler checks, trainer, teachers and references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.models.batch import TokenBatch
from kascade.models.trunk import predicting_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_CHUNK_ELEMENTS = 2**25  # logits of one chunk: at most 128 MiB in float32, whatever the vocabulary


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of N scored tokens, in nats: log-probability (with gradient) and entropy (a metric: detached)."""

    logprobs: Tensor
    entropy: Tensor


def scored_hidden(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Final-norm hidden states that predict the scored tokens, in their order: [N, H]."""
    return predicting_states(model, batch)


def head_logprobs(
    model: PreTrainedModel, hidden: Tensor, targets: Tensor, *, temperature: float = 1.0, chunk: int = 4096
) -> TokenScores:
    """Score targets [N] from hidden states [N, H] under softmax(logits / temperature).

    Never holds more than a chunk of logits: forward and backward compute them chunk by chunk.
    Gradients flow through `logprobs` to hidden states and head.
    """
    head: Any = model.get_output_embeddings()
    score: Any = _ChunkedScores.apply
    logprobs, entropy = score(hidden, head.weight, head.bias, targets, (temperature, chunk))
    return TokenScores(logprobs, entropy)


def token_logprobs(model: PreTrainedModel, batch: TokenBatch, *, temperature: float = 1.0) -> TokenScores:
    """`head_logprobs` of a batch's scored tokens, row-major."""
    return head_logprobs(model, scored_hidden(model, batch), batch.targets, temperature=temperature)


def full_logprobs_chunks(
    model: PreTrainedModel,
    hidden: Tensor,
    teacher: PreTrainedModel,
    teacher_hidden: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int = 4096,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Per chunk of the N positions: its slice, student and teacher log-softmax over the vocabulary [n, V].

    Only the student's has a gradient. Autograd keeps each chunk until it is used in a backward, so a
    caller with a large vocabulary calls backward chunk by chunk (retain nothing but `hidden`).
    """
    student_head: Any = model.get_output_embeddings()
    teacher_head: Any = teacher.get_output_embeddings()
    for part in _chunks(len(hidden), student_head.weight.shape[0], chunk):
        student = F.log_softmax(student_head(hidden[part]).float() / temperature, dim=-1)
        with torch.no_grad():
            reference = F.log_softmax(teacher_head(teacher_hidden[part]).float() / temperature, dim=-1)
        yield part, student, reference


def _chunks(count: int, vocabulary: int, chunk: int) -> Iterator[slice]:
    rows = max(1, min(chunk, MAX_CHUNK_ELEMENTS // vocabulary))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


class _ChunkedScores(torch.autograd.Function):
    """log softmax(h Wᵀ / τ)[target] and the entropy, without ever holding [N, V].

    d logp / d logits = (onehot(target) - p) / τ, recomputed chunk by chunk in the backward.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes every input by position
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, how: tuple[float, int]
    ) -> tuple[Tensor, Tensor]:
        temperature, chunk = how
        logprobs = torch.empty(len(hidden), device=hidden.device)
        entropy = torch.empty_like(logprobs)
        for part in _chunks(len(hidden), weight.shape[0], chunk):
            scores = F.log_softmax(F.linear(hidden[part], weight, bias).float().div_(temperature), dim=-1)
            logprobs[part] = scores.gather(1, targets[part, None]).squeeze(1)
            entropy[part] = -torch.linalg.vecdot(scores.exp(), scores)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight) if needs_weight else None
        d_bias = torch.zeros_like(bias) if needs_bias else None
        for part in _chunks(len(hidden), weight.shape[0], ctx.chunk):
            logits = F.linear(hidden[part], weight, bias).float().div_(ctx.temperature)
            d_logits = torch.softmax(logits, dim=-1).neg_()
            d_logits.scatter_add_(1, targets[part, None], torch.ones_like(d_logits[:, :1]))
            d_logits = d_logits.mul_(grads[0][part, None] / ctx.temperature).to(weight.dtype)
            if d_hidden is not None:
                d_hidden[part] = d_logits @ weight
            if d_weight is not None:
                d_weight.addmm_(d_logits.T, hidden[part])
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        return d_hidden, d_weight, d_bias, None, None


__all__ = [
    "TokenBatch",
    "TokenScores",
    "full_logprobs_chunks",
    "head_logprobs",
    "scored_hidden",
    "token_logprobs",
]
