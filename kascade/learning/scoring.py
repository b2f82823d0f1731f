"""Scores of a batch's tokens under another model: a reference, a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kascade.learning.example import Example
from kascade.learning.group import BesidePolicy, GroupModel, Reference, ScoreTokens
from kascade.learning.sharded import share_of, shares
from kascade.learning.trainer import collate, cut
from kascade.models.adapter_set import seen_with
from kascade.models.logprobs import TokenBatch, scored_hidden, token_logprobs
from kascade.models.mesh import gathered
from kascade.models.resting import on_device
from kascade.models.seams import inside, is_sharded, through_head


def score_examples(
    model: Reference,
    examples: Sequence[Example],
    score: ScoreTokens,
    *,
    micro_batch_tokens: int,
    pad_id: int,
) -> list[Tensor]:
    """For each example `score` of its n scored tokens, on the CPU: [n, ...].

    score: from model and batch to one row a scored token, [N, ...]; it runs inside the model's root. A spread
    model's processes call this together, compute a share each, and all return all of it.
    """
    how = {"micro_batch_tokens": micro_batch_tokens, "pad_id": pad_id}
    if isinstance(model, GroupModel):
        return model.group.score(model.name, examples, score, **how)
    if isinstance(model, BesidePolicy):
        with seen_with(model.model, model.adapter):
            return score_examples(model.model, examples, score, **how)
    mine = score_share(model, examples, score, **how)
    return gathered(mine) if is_sharded(model) else mine


@torch.no_grad()
def score_share(
    model: PreTrainedModel,
    examples: Sequence[Example],
    score: ScoreTokens,
    *,
    micro_batch_tokens: int,
    pad_id: int,
) -> list[Tensor]:
    """`score_examples` of this process's `share_of` the examples; of all for a model that is whole."""

    def mine(share: Sequence[Example]) -> Iterator[list[Example]]:
        return cut(model, share, micro_batch_tokens)

    spread = is_sharded(model)
    # By identity: micro-batches are sorted by length, and equal examples may occur twice.
    found: dict[int, Tensor] = {}
    with on_device(model):
        for chosen, counted in shares(examples, mine) if spread else ((c, True) for c in mine(examples)):
            batch, _ = collate(model, chosen, pad_id)
            scores = inside(model, partial(score, model, batch))
            values = torch.split(scores.cpu(), [sum(e.scored) for e in chosen])
            if counted:
                found.update(zip(map(id, chosen), values, strict=True))
    return [found[id(example)] for example in (share_of(examples) if spread else examples)]


@dataclass(frozen=True, slots=True)
class ScoreLogprobs:
    """Log-probabilities of the scored tokens [N] under the distribution that they were drawn from."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __call__(self, model: PreTrainedModel, batch: TokenBatch) -> Tensor:
        how = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return token_logprobs(model, batch, **how).logprobs  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class ScoreHidden:
    """Final hidden states of the scored tokens: [N, H]."""

    def __call__(self, model: PreTrainedModel, batch: TokenBatch) -> Tensor:
        hidden = scored_hidden(model, batch)
        # A spread model's norm and head are gathered together, and let go when both have run.
        return through_head(model, hidden, lambda weight, bias: hidden)
