"""The canary: fixed tokens that the trainer and another engine score after every hand-over of weights.

Equal bits on arrival do not prove that an engine computes with them: vllm 0.32 prepares the experts of a
Qwen3-MoE on a CPU once, and scores with the old ones after a reload.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kascade.errors import TrainingStopped
from kascade.models.batch import TokenBatch
from kascade.models.logprobs import token_logprobs
from kascade.recipe.vllm import Canary

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SEED = 0  # the tokens are the same in every run
MOVED = 0.5  # share of the trainer's scores that changed from which vLLM's cannot all be the same
Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Watch:
    """The tokens, and the bounds of the mean gap in nats: in float32 and otherwise."""

    rows: Rows
    max_gap: float
    max_gap_fp32: float

    @classmethod
    def of(cls, part: Canary, vocabulary: int, longest: int | None = None) -> Watch:
        """longest: tokens that the engine takes at once; None: any number."""
        draw = random.Random(SEED)
        length = max(2, part.tokens // part.rows)
        length = length if longest is None else min(length, longest - 1)
        rows = [[draw.randrange(vocabulary) for _ in range(length)] for _ in range(part.rows)]
        return cls(rows, part.max_gap, part.max_gap_fp32)

    def check(
        self, mine: Sequence[Tensor], theirs: Sequence[Sequence[float]], version: int, dtype: str
    ) -> float:
        """The mean gap in nats. Raises TrainingStopped beyond the bound, or where a score is no number.

        mine, theirs: per row the log-probabilities of every token after the first. dtype: of both.
        """
        scores = torch.tensor([score for row in theirs for score in row], dtype=torch.float64)
        gaps = (torch.cat(list(mine)).double() - scores).abs()
        mean, most = float(gaps.mean()), float(gaps.max())
        bound = self.max_gap_fp32 if dtype == "float32" else self.max_gap
        if mean <= bound:  # a NaN is not
            return mean
        raise TrainingStopped(
            f"weights version {version}: the trainer and vLLM score the same {len(gaps)} tokens {mean:.3g} "
            f"nats apart on average (at most {most:.3g}; {bound:g} is allowed in {dtype}). So vLLM does not "
            "compute with the weights that it was given. To do: sample with model.rollout.engine: native, or "
            "with another version of vLLM. If both are right and only round differently, raise the bound in "
            "model.rollout.vllm.canary. Then resume"
        )


@dataclass(frozen=True, slots=True)
class Scored:
    """Both sides' scores of the canary's tokens after one hand-over. checksum: of the weights."""

    mine: Sequence[Tensor]
    theirs: Sequence[Sequence[float]]
    checksum: int

    def refuse_standstill(self, before: Scored, version: int) -> None:
        """Raise TrainingStopped when the trainer's scores moved since `before`, and not one of vLLM's.

        One update at a rate of RL moves scores by less than the bound: a hand-over that does nothing would
        be seen after many updates only. For sides that compute in one type, as rounding may hide an update.
        """
        pairs = zip(self.mine, before.mine, strict=True)
        moved = torch.cat([a != b for a, b in pairs]).double().mean()
        if self.checksum == before.checksum or float(moved) < MOVED or self.theirs != before.theirs:
            return
        raise TrainingStopped(
            f"weights version {version}: {float(moved):.0%} of the trainer's scores of the canary's tokens "
            "changed with the update, and vLLM's are the same to the last bit. So the hand-over did nothing. "
            "To do: sample with model.rollout.engine: native, or with another version of vLLM, and resume"
        )


@torch.no_grad()
def logprobs_of(model: PreTrainedModel, rows: Rows) -> list[Tensor]:
    """Per row the log-probabilities of every token after the first, on the CPU. For a model that is whole."""
    found = []
    for row in rows:
        batch = TokenBatch.collate([row], [[False] + [True] * (len(row) - 1)], pad_id=0)
        found.append(token_logprobs(model, batch.to(model.device)).logprobs.float().cpu())
    return found
