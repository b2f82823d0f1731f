"""Who proposes the tokens of speculative decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from kascade.models.mtp import mtp_head
from kascade.rollout.rollback import RollbackCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Drafter(Protocol):
    """Proposes tokens for one row; what it remembers of the row is its own."""

    def begin(self, token_ids: Tensor, hidden: Tensor) -> None:
        """Start a row: the prompt's tokens [1, T] and the model's states behind them [1, T, H]."""
        ...

    def copy(self) -> Drafter:
        """One that continues from here by itself."""
        ...

    def draft(
        self, tokens: Sequence[int], hidden: Tensor, count: int, choose: Callable[[Tensor], int]
    ) -> list[int]:
        """`count` tokens to follow; `tokens` are new since the last call, hidden [1, n, H] led to them.

        choose: draws a token from logits [V].
        """
        ...


class MTPDrafter:
    """The model's own multi-token-prediction head, fed its own output to look further ahead.

    Raises ValueError for a model without a head, and for one whose head has several steps or Mamba layers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = mtp_head(model)
        if head is None:
            raise ValueError("the model has no multi-token-prediction head to draft with")
        if head.num_steps > 1 or "linear_attention" in head.pattern:
            raise ValueError("drafting takes a head of one step (num_nextn_predict_layers 1) without Mamba")
        self._model: Any = model
        self._head = head
        self._cache: RollbackCache | None = None
        self._ahead = 0  # entries of the cache that rest on drafted states

    def begin(self, token_ids: Tensor, hidden: Tensor) -> None:
        from transformers import DynamicCache

        self._cache, self._ahead = RollbackCache(self._model, DynamicCache(config=self._head.config)), 0
        if token_ids.shape[1] > 1:
            self._forward(token_ids[:, 1:], hidden[:, :-1])

    def copy(self) -> MTPDrafter:
        other = MTPDrafter(self._model)
        other._cache, other._ahead = self._cache.copy() if self._cache else None, self._ahead
        return other

    def draft(
        self, tokens: Sequence[int], hidden: Tensor, count: int, choose: Callable[[Tensor], int]
    ) -> list[int]:
        if self._cache is None:
            raise RuntimeError("`begin` comes first")
        self._cache.keep(self._ahead, 0)
        states = self._forward(torch.tensor([list(tokens)], device=hidden.device), hidden)[:, -1:]
        drafted = [choose(self._model.get_output_embeddings()(states[0, -1]))]
        self._ahead = count - 1
        while len(drafted) < count:
            states = self._forward(torch.tensor([drafted[-1:]], device=hidden.device), states)
            drafted.append(choose(self._model.get_output_embeddings()(states[0, -1])))
        return drafted

    def _forward(self, token_ids: Tensor, hidden: Tensor) -> Tensor:
        cache = self._cache.cache if self._cache else None
        states: Tensor = self._head(self._model.get_input_embeddings()(token_ids), hidden, cache=cache)
        return states
