"""What sampling takes and gives: tokens in, tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kascade.recipe.schema import ConversationLimits

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]  # [G], an entry per rollout
Mask = NDArray[np.bool_]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample. temperature 0 is greedy; top_k None and top_p 1 keep the whole vocabulary.

    max_new_tokens: of one answer. conversation: when a conversation of several answers ends.
    stop_ids, stop_texts: an answer also ends once its tokens end with one of these sequences, or its text
    holds one of these strings; what stopped it stays in the answer. thinking_budget: tokens after which an
    open think block is closed for the model, where the prompt says that one is open; None: no budget.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    stop_ids: tuple[tuple[int, ...], ...] = ()
    stop_texts: tuple[str, ...] = ()
    thinking_budget: int | None = None
    conversation: ConversationLimits = field(default_factory=ConversationLimits)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids to continue, `num_samples` times; `seed` fixes each sample whatever the batching.

    greedy: also one greedy answer, put before the samples; the prompt is still computed once.
    thinking: the prompt ends inside an open think block, so that a thinking budget applies.
    first: number of the first sample; sample i has its random numbers however many are drawn at once.
    """

    token_ids: tuple[int, ...]
    num_samples: int
    seed: int
    greedy: bool = False
    thinking: bool = False
    first: int = 0

    @property
    def num_answers(self) -> int:
        return self.num_samples + self.greedy


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled continuation (the end token included when finish_reason is "stop").

    logprobs: log-probability of each drawn token under the distribution it was drawn from (greedy: under the
    model's own), in nats. weights_version: which weights drew it. drawn: per token whether the policy drew
    it; the end of a thinking budget is put there, and in a conversation the environment's words are between
    its answers. None: it drew all of them. routing: experts used for the
    prompt's tokens and all of these but the last, [tokens, layers, experts a token] int16, where recorded.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    weights_version: int
    drawn: tuple[bool, ...] | None = None
    routing: Tensor | None = field(default=None, compare=False)

    @property
    def scored(self) -> list[bool]:
        """Which tokens are learnt from; as many are as there are log-probabilities."""
        return [True] * len(self.token_ids) if self.drawn is None else list(self.drawn)


class RolloutEngine(Protocol):
    """Samples answers. Engines: the native one (torch, CPU and CUDA); others behind the same face.

    weights_checksum: `models.checksum.weights_checksum` of the weights that it took over last.
    """

    weights_checksum: int

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """For each prompt, its answers in order, a greedy one first."""
        ...

    def load_weights(self, version: int) -> None:
        """Take over the model's current weights and stamp what is sampled from now on with `version`."""
        ...
