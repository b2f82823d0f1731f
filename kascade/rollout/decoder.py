"""Decoders: what turns tokens into next-token logits for rows that come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Decoder(Protocol):
    """Keeps the state of the active rows, numbered 0 ... n - 1.

    uneven: whether rows of different length can be active at once; if not, `admit` is called only when
    no row is active, with prompts of one length.
    """

    uneven: bool

    def start(self, rows: int) -> None:
        """Forget all rows and make room for up to `rows`."""
        ...

    def admit(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Tensor:
        """Append `copies[i]` rows of prompt i, computed once; their next-token logits: [sum(copies), V]."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each active row: [n] to next-token logits [n, V]."""
        ...

    def retain(self, order: Sequence[int]) -> None:
        """Row i becomes what row order[i] was; rows not named are dropped. order[i] >= i."""
        ...

    def refresh(self) -> None:
        """Derive again what was derived from the model's weights."""
        ...


class CacheDecoder:
    """Any causal language model of transformers, through its own cache."""

    uneven = False

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self._cache: Any = None

    def start(self, rows: int) -> None:
        self._cache = None

    def admit(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Tensor:
        ids = torch.tensor([list(prompt) for prompt in prompts], device=self._model.device)
        output = self._model(input_ids=ids, use_cache=True, logits_to_keep=1)
        self._cache = output.past_key_values
        rows = torch.arange(len(ids), device=ids.device).repeat_interleave(
            torch.tensor(copies, device=ids.device)
        )
        self._cache.reorder_cache(rows)
        logits: Tensor = output.logits[rows, -1]
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        output = self._model(input_ids=tokens[:, None], past_key_values=self._cache, use_cache=True)
        logits: Tensor = output.logits[:, -1]
        return logits

    def retain(self, order: Sequence[int]) -> None:
        self._cache.reorder_cache(torch.tensor(order, dtype=torch.long, device=self._model.device))

    def refresh(self) -> None:
        """Nothing is derived: the model itself is run."""


def make_decoder(model: PreTrainedModel) -> Decoder:
    """The fastest decoder that knows the model's architecture."""
    from kascade.rollout.lean_nemotron_h import NemotronHDecoder
    from kascade.rollout.lean_qwen3 import Qwen3Decoder

    for lean in (NemotronHDecoder, Qwen3Decoder):
        if lean.supports(model):
            return lean(model)
    return CacheDecoder(model)
