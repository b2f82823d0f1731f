"""What a user may write about a DPO stage. [DPO] arXiv 2305.18290, [T3] Tülu 3 (arXiv 2411.15124)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from kascade.recipe.parts import Optimizer
from kascade.recipe.stages import StagePart


class DPOStage(StagePart):
    """Direct preference optimisation on given pairs of answers, held to the stage's start. [DPO §4]"""

    kind: Literal["dpo"] = Field(description="direct preference optimisation on chosen and rejected answers")
    optimizer: Optimizer = Field(
        Optimizer(learning_rate=5e-7), description="a small learning rate [T3 §5: 5e-7 for 8B]"
    )
    pairs_per_step: PositiveInt = Field(128, description="pairs of answers an update learns from [T3 §5]")
    beta: PositiveFloat = Field(
        0.1,
        description="how closely the stage stays to its start; with length_normalized about 50 times as much "
        "[DPO App. B: 0.1; T3 §5: 5]",
    )
    length_normalized: bool = Field(
        False, description="compare the mean log-ratio of an answer's tokens, not their sum [T3 §5]"
    )
    max_tokens: PositiveInt = Field(
        262_144, description="longest prompt with answer; pairs with a longer one are left out and counted"
    )

    @property
    def samples_per_step(self) -> int:
        return 2 * self.pairs_per_step

    @property
    def most_tokens_per_step(self) -> int:
        return self.samples_per_step * self.max_tokens

    @property
    def batch_words(self) -> str:
        return f"{self.pairs_per_step} preference pairs"

    def longest_given(self) -> int:
        return self.max_tokens

    def copies_that_score(self) -> tuple[int, int]:
        return 1, 0  # the stage's start
