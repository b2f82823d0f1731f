"""Decoders: what turns tokens into next-token logits for rows that come and go."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ANY_TOKEN = 0  # fills the left of padded prompts; masked, so its value never matters


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
    """Any causal language model of transformers, through its own cache.

    Where the cache holds plain keys and values, rows of different length are padded on the left and masked.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self.uneven = _keeps_plain_keys(model)
        self.start(0)

    def start(self, rows: int) -> None:
        self._cache: Any = None
        self._mask = torch.empty(0, 0, dtype=torch.long, device=self._model.device)  # [n, T]: 0 = padding

    def admit(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Tensor:
        device = self._model.device
        longest = max(map(len, prompts))
        pads = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
        ids = torch.tensor([[ANY_TOKEN] * (longest - len(p)) + list(p) for p in prompts], device=device)
        # Padding is on the left, so that the last column is the last token of every row.
        positions = torch.arange(longest, device=device) - pads[:, None]
        mask = (positions >= 0).long()
        output = self._model(
            input_ids=ids, use_cache=True, logits_to_keep=1, **self._where(mask, positions.clamp(min=0))
        )
        rows = torch.arange(len(ids), device=device).repeat_interleave(torch.tensor(copies, device=device))
        output.past_key_values.reorder_cache(rows)
        self._join(output.past_key_values, mask[rows])
        logits: Tensor = output.logits[rows, -1]
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        # The mask counts real tokens, so its sum is the position of the new one.
        self._mask = F.pad(self._mask, (0, 1), value=1)
        where = self._where(self._mask, self._mask.sum(-1, keepdim=True) - 1)
        output = self._model(input_ids=tokens[:, None], past_key_values=self._cache, use_cache=True, **where)
        logits: Tensor = output.logits[:, -1]
        return logits

    def retain(self, order: Sequence[int]) -> None:
        if not order:
            self.start(0)
            return
        rows = torch.tensor(order, dtype=torch.long, device=self._model.device)
        self._cache.reorder_cache(rows)
        self._mask = self._mask[rows]
        # Columns that are padding in all rows that stay.
        unused = int(self._mask.any(0).int().argmax())
        if unused:  # the longest rows have left
            self._mask = self._mask[:, unused:]
            for layer in self._cache.layers:
                layer.keys, layer.values = layer.keys[:, :, unused:], layer.values[:, :, unused:]

    def refresh(self) -> None:
        """Nothing is derived: the model itself is run."""

    def _where(self, mask: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """Nothing where no row is padded: then a model's own idea of masks and positions is right."""
        return {} if bool(mask.all()) else {"attention_mask": mask, "position_ids": positions}

    def _join(self, cache: Any, mask: Tensor) -> None:
        """Append the rows of another cache, both padded on the left to the longer."""
        if self._cache is None:
            self._cache, self._mask = cache, mask
            return
        more = mask.shape[1] - self._mask.shape[1]
        pads = (max(more, 0), max(-more, 0))
        for ours, theirs in zip(self._cache.layers, cache.layers, strict=True):
            for name in ("keys", "values"):
                pair = zip((getattr(ours, name), getattr(theirs, name)), pads, strict=True)
                setattr(ours, name, torch.cat([F.pad(x, (0, 0, pad, 0)) for x, pad in pair]))
        self._mask = torch.cat([F.pad(self._mask, (pads[0], 0)), F.pad(mask, (pads[1], 0))])


def _keeps_plain_keys(model: PreTrainedModel) -> bool:
    """Whether every layer's cache is keys and values of all tokens, and positions can be given."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    layers = DynamicCache(config=model.config).layers
    positions = "position_ids" in signature(type(model).forward).parameters
    return bool(layers) and positions and all(type(layer) is DynamicLayer for layer in layers)


def make_decoder(model: PreTrainedModel) -> Decoder:
    """The fastest decoder that knows the model's architecture."""
    from kascade.rollout.lean_nemotron_h import NemotronHDecoder
    from kascade.rollout.lean_qwen3 import Qwen3Decoder

    for lean in (NemotronHDecoder, Qwen3Decoder):
        if lean.supports(model):
            return lean(model)
    return CacheDecoder(model)
