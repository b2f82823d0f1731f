"""What sampling takes and gives: tokens in, tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kascade.recipe.schema import Conversation

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample. temperature 0 is greedy; top_k None and top_p 1 keep the whole vocabulary.

    max_new_tokens: of one answer. conversation: when a conversation of several answers ends.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    conversation: Conversation = field(default_factory=Conversation)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids to continue, `num_samples` times; `seed` fixes each sample whatever the batching."""

    token_ids: tuple[int, ...]
    num_samples: int
    seed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled continuation (the end token included when finish_reason is "stop").

    logprobs: log-probability of each drawn token under the distribution it was drawn from, in nats.
    weights_version: which weights drew it. drawn: per token whether the policy drew it; in a conversation
    the environment's words lie between its answers. None: it drew all of them.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    weights_version: int
    drawn: tuple[bool, ...] | None = None

    @property
    def scored(self) -> list[bool]:
        """Which tokens are learnt from; as many are as there are log-probabilities."""
        return [True] * len(self.token_ids) if self.drawn is None else list(self.drawn)


class RolloutEngine(Protocol):
    """Samples answers. Engines: the native one (torch, CPU and CUDA); others behind the same face.

    weights_checksum: `kascade.models.checksum.weights_checksum` of the weights taken over last.
    """

    weights_checksum: int

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """For each prompt, its samples in order."""
        ...

    def load_weights(self, version: int) -> None:
        """Take over the model's current weights and stamp what is sampled from now on with `version`."""
        ...
