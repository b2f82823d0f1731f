"""Scores of a batch's tokens under another model: a reference, a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kascade.learning.trainer import Example, collate, cut
from kascade.models.logprobs import TokenBatch

ScoreTokens = Callable[[PreTrainedModel, TokenBatch], Tensor]


@torch.no_grad()
def score_examples(
    model: PreTrainedModel,
    examples: Sequence[Example],
    score: ScoreTokens,
    *,
    micro_batch_tokens: int,
    pad_id: int,
) -> list[Tensor]:
    """For each example `score` of its n scored tokens, on the CPU: [n, ...].

    score: from model and batch to one row a scored token, [N, ...].
    """
    found: dict[int, Tensor] = {}
    for chosen in cut(model, examples, micro_batch_tokens):
        batch, _ = collate(model, chosen, pad_id)
        values = torch.split(score(model, batch).cpu(), [sum(e.scored) for e in chosen])
        found.update(zip(map(id, chosen), values, strict=True))
    return [found[id(example)] for example in examples]
