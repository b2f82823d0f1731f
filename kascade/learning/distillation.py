"""Reverse KL over the whole vocabulary with its gradient taken in the forward: no logits kept or made twice.

[C2] Nemotron-Cascade 2 (arXiv 2603.19220); on-policy distillation, arXiv 2306.13649.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from kascade.learning.example import Terms
from kascade.learning.losses import in_importance_range
from kascade.models.logprobs import chunks
from kascade.models.seams import through_head


@dataclass(frozen=True, slots=True)
class TaughtRows:
    """n positions of one teacher: sampled tokens, weights, sampler's log-probabilities, each [n]."""

    targets: Tensor
    weights: Tensor
    sampler_logprobs: Tensor
    temperature: float
    importance: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Taught:
    """n positions of one teacher: their places [n] among the batch's, its output layer, its states [n, H]."""

    places: Tensor
    head: nn.Module
    hidden: Tensor
    rows: TaughtRows


def distil(model: PreTrainedModel, hidden: Tensor, taught: Sequence[Taught]) -> Terms:
    """sum w 1[low <= r <= high] KL(student || teacher) over the vocabulary, from hidden states [N, H].

    All teachers' rows go through the student's head in one call. Watched, by teacher: reverse_kl, dropped,
    entropy, logprob_gap.
    """
    score: Any = _ReverseKL.apply

    def use(weight: Tensor, bias: Tensor | None) -> list[tuple[Tensor, ...]]:
        return [
            score(hidden[part.places], weight, bias, part.hidden, (part.head, part.rows)) for part in taught
        ]

    loss = hidden.new_zeros(())
    watched: dict[str, list[Tensor]] = {}
    for part_loss, kl, kept, entropy, gap in through_head(model, hidden, use):
        loss = loss + part_loss
        found = {"reverse_kl": kl, "dropped": (~kept).float(), "entropy": entropy, "logprob_gap": gap}
        for name, values in found.items():
            watched.setdefault(name, []).append(values)
    return Terms(loss, {name: torch.cat(parts) for name, parts in watched.items()})


class _ReverseKL(torch.autograd.Function):
    """With d = log p - log q: KL = sum p d, and d KL / d logits = p (d - KL) / temperature.

    The loss is linear in the KLs and their factors are known at once, so each chunk's gradient is taken while
    its logits are there; the backward only scales.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes every input by position
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher_hidden: Tensor,
        how: tuple[nn.Module, TaughtRows],
    ) -> tuple[Tensor, ...]:
        teacher_head, rows = how
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight) if needs_weight else None
        d_bias = torch.zeros_like(bias) if bias is not None and needs_bias else None
        kl, entropy, chosen, scale = (torch.empty(len(hidden), device=hidden.device) for _ in range(4))
        kept = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        for part in chunks(len(hidden), weight.shape[0]):
            # In place from here on: one chunk of [n, V] logits is the largest tensor of the whole step.
            logits = functional.linear(hidden[part], weight, bias).float()
            student = logits.div_(rows.temperature).log_softmax(-1)
            p = student.exp()
            entropy[part] = -torch.linalg.vecdot(p, student)
            chosen[part] = student.gather(1, rows.targets[part, None]).squeeze(1)
            _, kept[part] = in_importance_range(chosen[part], rows.sampler_logprobs[part], *rows.importance)
            scale[part] = rows.weights[part] * kept[part]
            logits = teacher_head(teacher_hidden[part]).float().div_(rows.temperature)
            # `student` becomes d = log p - log q; p was taken out before.
            difference = student.sub_(logits.log_softmax(-1))
            kl[part] = torch.linalg.vecdot(p, difference)
            factor = (scale[part] / rows.temperature)[:, None]
            # p (d - KL): sums to 0 over the vocabulary, as a gradient behind a softmax must.
            d_logits = difference.sub_(kl[part, None]).mul_(p).mul_(factor).to(weight.dtype)
            if d_hidden is not None:
                torch.mm(d_logits, weight, out=d_hidden[part])
            if d_weight is not None:
                d_weight.addmm_(d_logits.T, hidden[part])
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        ctx.gradients = (d_hidden, d_weight, d_bias)
        # The importance ratio is held still (sg[r]), so kept and scale need no gradient.
        gap = (chosen - rows.sampler_logprobs).abs()
        ctx.mark_non_differentiable(kl, kept, entropy, gap)
        return (scale * kl).sum(), kl, kept, entropy, gap

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if g is None else g * grads[0] for g in ctx.gradients), None, None
