"""What a stage sees of the models that a trainer group holds: names, heads and scores, never weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor
from transformers import PreTrainedModel

from kascade.learning.example import Example
from kascade.models.batch import TokenBatch

ScoreTokens: TypeAlias = Callable[[PreTrainedModel, TokenBatch], Tensor]
POLICY = "policy"  # the name of the model in training among those that a group holds


@runtime_checkable
class TrainerGroup(Protocol):
    """Processes that train together and hold frozen models beside the one in training."""

    def add_model(self, name: str, folder: Path, base: Path | None = None) -> GroupModel:
        """Load a frozen model, spread as the one in training. base: of the adapter in `folder`."""
        ...

    def checksum_of(self, name: str) -> int:
        """`weights_checksum` of a model that the group holds, as a sampler would have it."""
        ...

    def score(self, name: str, examples: Sequence[Example], score: ScoreTokens, **how: int) -> list[Tensor]:
        """`score_examples` under the model called `name`."""
        ...


@dataclass(frozen=True, slots=True)
class GroupHead:
    """The output layer of a model that a trainer group holds."""

    name: str


@dataclass(frozen=True, slots=True)
class GroupModel:
    """A model that a trainer group holds. folder: where its weights are."""

    group: TrainerGroup
    name: str
    folder: Path

    def get_output_embeddings(self) -> GroupHead:
        return GroupHead(self.name)


@dataclass(frozen=True, slots=True)
class BesidePolicy:
    """A frozen model over the base of the one in training, which is there once. model: the one in training.

    adapter: the name of its own adapter, which hangs over that base, too; None: the base alone.
    """

    model: PreTrainedModel
    adapter: str | None


Scored: TypeAlias = PreTrainedModel | GroupModel
Reference: TypeAlias = Scored | BesidePolicy
