"""What the lean decoders share: slots for keys, values and states; prompts prefilled by the model itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.data.packing import micro_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFILL_TOKENS = 4096  # padded prompt tokens of one forward: bounds the memory of activations
ANY_TOKEN = 0  # fills the left of padded prompts; masked, so its value never matters
ATTENTION_BLOCK = 32  # rows
GROWTH = 64  # key-value slots are added in multiples of this


class LeanDecoder(ABC):
    """Decodes on plain tensors that share the model's weights; rows of any lengths side by side.

    Prompts run through the model, left-padded, once each; their cache is then copied into slots. A row
    that ends is overwritten by the last one, so nothing else moves.
    """

    uneven = True

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self._attention_layers = self.attention_layers()
        self.start(0)
        self.refresh()

    @classmethod
    @abstractmethod
    def supports(cls, model: PreTrainedModel) -> bool:
        """Whether this decoder computes exactly what `model` does."""

    @abstractmethod
    def attention_layers(self) -> list[int]:
        """Indices of the layers that keep keys and values."""

    @abstractmethod
    def refresh(self) -> None:
        """Derive again what was derived from the weights."""

    @abstractmethod
    def forward(self, tokens: Tensor, attend: Attention) -> Tensor:
        """Hidden states [n, H] after the final norm for one more token of each active row."""

    def place_states(self, cache: Any, row: int, slots: slice) -> None:
        """Take over what else the cache holds of its row (recurrent states), where there is any."""
        return

    def row_states(self) -> list[Tensor]:
        """Recurrent states, each [rows, ...]."""
        return []

    def start(self, rows: int) -> None:
        config = self._model.config
        device, dtype = self._model.device, self._model.dtype
        self._rows, self._count = rows, 0
        self._lengths = torch.zeros(rows, dtype=torch.long, device=device)
        shape = (rows, config.num_key_value_heads, 0, config.head_dim)
        self._keys = [torch.empty(shape, device=device, dtype=dtype) for _ in self._attention_layers]
        self._values = [torch.empty_like(keys) for keys in self._keys]

    def admit(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Tensor:
        """See `Decoder.admit`."""
        starts = [self._count + sum(copies[:i]) for i in range(len(prompts) + 1)]
        self._grow(max(map(len, prompts)) + 1)
        logits: list[Tensor] = [torch.empty(0)] * len(prompts)
        for group in micro_batches([len(prompt) for prompt in prompts], PREFILL_TOKENS):
            cache, last = self._prefill([prompts[i] for i in group])
            scores = self.head(last)
            for row, i in enumerate(group):
                slots = slice(starts[i], starts[i] + copies[i])
                self._place(cache, row, len(prompts[i]), slots)
                logits[i] = scores[row].expand(copies[i], -1)
        self._count = starts[-1]
        return torch.cat(logits)

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder.step`."""
        lengths = self._lengths[: self._count]
        self._grow(int(lengths.max()) + 1)
        attend = Attention(self._keys, self._values, lengths)
        logits = self.head(self.forward(tokens, attend))
        lengths += 1
        return logits

    def retain(self, order: Sequence[int]) -> None:
        """See `Decoder.retain`."""
        targets = [i for i, source in enumerate(order) if source != i]
        sources = [order[i] for i in targets]
        self._count = len(order)
        if not targets:
            return
        into = torch.tensor(targets, device=self._lengths.device)
        from_ = torch.tensor(sources, device=self._lengths.device)
        for state in [self._lengths, *self.row_states(), *self._keys, *self._values]:
            state[into] = state[from_]

    def head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._model.get_output_embeddings()(hidden)
        return logits

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Any, Tensor]:
        """The model's cache of left-padded prompts, and the last hidden states [P, H]."""
        device = self._model.device
        longest = max(map(len, prompts))
        pads = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
        ids = torch.tensor([[ANY_TOKEN] * (longest - len(p)) + list(p) for p in prompts], device=device)
        positions = torch.arange(longest, device=device) - pads[:, None]
        output = self._model.base_model(
            input_ids=ids,
            attention_mask=(positions >= 0).long() if bool(pads.any()) else None,
            position_ids=positions.clamp(min=0),
            use_cache=True,
        )
        return output.past_key_values, output.last_hidden_state[:, -1]

    def _place(self, cache: Any, row: int, length: int, slots: slice) -> None:
        for index, keys, values in zip(self._attention_layers, self._keys, self._values, strict=True):
            layer = cache.layers[index]
            keys[slots, :, :length] = layer.keys[row, :, -length:]
            values[slots, :, :length] = layer.values[row, :, -length:]
        self._lengths[slots] = length
        self.place_states(cache, row, slots)

    def _grow(self, length: int) -> None:
        """Make room for rows of `length` tokens."""
        room = self._keys[0].shape[2] if self._keys else length
        if length > room:
            more = -(-max(length - room, room // 4) // GROWTH) * GROWTH
            for buffers in (self._keys, self._values):
                for i, buffer in enumerate(buffers):
                    buffers[i] = F.pad(buffer, (0, 0, 0, more))


def rms_norm(x: Tensor, norm: Any) -> Tensor:
    """What transformers' RMSNorm module `norm` computes, in one fused operation."""
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


class Attention:
    """Attention of one new token of each row over its slots.

    Rows are taken in blocks, each as long as its longest row: prompts are admitted in order of length,
    so neighbours are alike and short rows do not pay for long ones.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], lengths: Tensor) -> None:
        """keys, values: per layer [rows, kv heads, slots, D]; lengths: tokens already stored, [n]."""
        self._keys, self._values, self.lengths = keys, values, lengths
        self._index = torch.arange(len(lengths), device=lengths.device)
        known = lengths.tolist()
        size = len(known) if min(known) == max(known) else ATTENTION_BLOCK
        self._blocks = [_Block.of(lengths, known, slice(i, i + size)) for i in range(0, len(known), size)]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend, after storing key and value as the rows' newest: [n, heads * D].

        layer counts attention layers only; query: [n, heads, D]; key, value: [n, kv heads, D].
        """
        keys, values = self._keys[layer], self._values[layer]
        keys[self._index, :, self.lengths] = key
        values[self._index, :, self.lengths] = value
        query = query * query.shape[-1] ** -0.5
        parts = [block.attend(query[block.rows], keys, values) for block in self._blocks]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True, slots=True)
class _Block:
    """Neighbouring rows, how many slots the longest has, and which of them a row may not see."""

    rows: slice
    longest: int
    beyond: Tensor | None

    @classmethod
    def of(cls, lengths: Tensor, known: Sequence[int], rows: slice) -> _Block:
        longest = max(known[rows]) + 1
        if min(known[rows]) + 1 == longest:  # every slot is filled: no mask
            return cls(rows, longest, None)
        slots = torch.arange(longest, device=lengths.device)
        return cls(rows, longest, (slots > lengths[rows, None])[:, None, None])

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """query: [m, heads, D], scaled; returns [m, heads * D]. Query heads share their key-value head."""
        rows, _, width = query.shape
        kv_heads = keys.shape[1]
        keys = keys[self.rows, :, : self.longest][:rows].flatten(0, 1)
        values = values[self.rows, :, : self.longest][:rows].flatten(0, 1)
        scores = torch.bmm(query.reshape(rows * kv_heads, -1, width), keys.transpose(1, 2))
        if self.beyond is not None:
            scores.view(rows, kv_heads, -1, self.longest).masked_fill_(self.beyond, -torch.inf)
        return torch.bmm(scores.softmax(-1), values).view(rows, -1)
