"""Prompts of rows that decode: each stored once for all the rows that continue it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Ints = npt.NDArray[np.int64]
MAX_BLOCKS = 4  # more blocks of prompts than this are joined: each costs a few operations a layer
SHORTEST_SHARE = 0.7  # prompts shorter than this share of their block's longest start another block


class Prefix:
    """Keys and values of neighbouring prompts, per layer [P, kv heads, L, D], shorter ones padded right."""

    def __init__(self, lengths: Sequence[int], keys: list[Tensor], values: list[Tensor]) -> None:
        self.lengths, self.keys, self.values = list(lengths), keys, values
        longest, device = keys[0].shape[2], keys[0].device
        slots = torch.arange(longest, device=device)
        beyond = slots >= torch.tensor(self.lengths, device=device)[:, None]
        self._hidden = None if min(self.lengths) == longest else hiding(beyond, keys[0].dtype)

    @classmethod
    def empty(cls, lengths: Sequence[int], num_layers: int, like: Tensor) -> Prefix:
        """Room for prompts of these lengths; like: [kv heads, D], gives type and device."""
        shape = (len(lengths), like.shape[0], max(lengths), like.shape[1])
        stores = [[like.new_zeros(shape) for _ in range(num_layers)] for _ in range(2)]
        return cls(lengths, *stores)

    @classmethod
    def joined(cls, one: Prefix, other: Prefix) -> Prefix:
        """The prompts of both, `one`'s first."""
        longest = max(one.lengths + other.lengths)

        def join(ours: list[Tensor], theirs: list[Tensor]) -> list[Tensor]:
            return [
                torch.cat([F.pad(x, (0, 0, 0, longest - x.shape[2])) for x in pair])
                for pair in zip(ours, theirs, strict=True)
            ]

        return cls(one.lengths + other.lengths, join(one.keys, other.keys), join(one.values, other.values))

    def narrowed(self, kept: Sequence[int]) -> Prefix:
        """Only the prompts at these places."""
        lengths = [self.lengths[i] for i in kept]
        longest = max(lengths)
        index = torch.tensor(kept, device=self.keys[0].device)
        stores = ([x[:, :, :longest].index_select(0, index) for x in s] for s in (self.keys, self.values))
        return Prefix(lengths, *stores)

    def flush_right(self) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values with the padding moved to the left."""
        if self._hidden is None:
            return self.keys, self.values
        longest, device = self.keys[0].shape[2], self.keys[0].device
        shift = longest - torch.tensor(self.lengths, device=device)
        index = (torch.arange(longest, device=device) - shift[:, None]).clamp_(min=0)[:, None, :, None]
        moved = ([torch.take_along_dim(x, index, dim=2) for x in s] for s in (self.keys, self.values))
        keys, values = moved
        return keys, values

    def attend(self, layer: int, query: Tensor) -> tuple[Tensor, Tensor]:
        """query: heads sorted by (prompt, kv head), [P kv G, heads per kv head x D]; see `attend`."""
        keys, values = self.keys[layer], self.values[layer]
        prompts, kv_heads, _, width = keys.shape
        query = query.view(prompts * kv_heads, -1, width)
        out, mass = attend(query, keys.flatten(0, 1), values.flatten(0, 1), self._hidden)
        return out.view(-1, out.shape[-1]), mass.view(-1)


def hiding(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to scores so that hidden [rows, L] slots take no part: [rows, 1, L]."""
    added = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return added.masked_fill_(hidden, -torch.inf).unsqueeze(1)


def scores_of(query: Tensor, keys: Tensor, hidden: Tensor | None) -> Tensor:
    """Scores of [B, m, D] over [B, L, D], B = rows x heads; hidden: [rows, 1, L], see `hiding`."""
    scores = torch.bmm(query, keys.transpose(1, 2))
    if hidden is not None:
        scores.view(len(hidden), -1, scores.shape[-1]).add_(hidden)
    return scores


def attend(query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention of [B, m, D] over [B, L, D], and the logarithm of its normaliser: [B, m, D], [B, m]."""
    scores = scores_of(query, keys, hidden)
    weights = scores.softmax(-1)
    return torch.bmm(weights, values), mass_of(scores, weights)


def mass_of(scores: Tensor, weights: Tensor) -> Tensor:
    """The logarithm of the normaliser of weights [..., L], the softmax of the scores."""
    # Log sum exp without a second pass: the largest weight is exp(largest score - log sum exp).
    return scores.amax(-1) - weights.amax(-1).log()


@dataclass(frozen=True, slots=True)
class _Plan:
    """How rows of heads are sorted by prompt, [rows kv heads] each way, and each block's part of them."""

    source: Tensor
    target: Tensor
    parts: tuple[slice, ...]


class Prefixes:
    """The prompts that the active rows continue, in blocks of alike lengths.

    Samples of one prompt attend to its one copy together, in one matrix product; rows need not be sorted.
    """

    def __init__(self, rows: int, like: Tensor) -> None:
        """like: [kv heads, D], gives shape, type and device of keys and values."""
        self._like = like
        self._blocks: list[Prefix] = []
        self._block, self._place = (np.zeros(rows, dtype=np.int64) for _ in range(2))  # of each row's prompt
        self._plan: _Plan | None = None

    def admit(self, prefix: Prefix, rows: Sequence[int], places: Sequence[int]) -> None:
        """Rows that continue the prompt at their place in the prefix."""
        self._place[list(rows)] = places
        self._block[list(rows)] = len(self._blocks)
        self._blocks.append(prefix)
        self._plan = None

    def retain(self, order: Sequence[int]) -> None:
        """Row i becomes what row order[i] was."""
        chosen = np.array(order, dtype=np.int64)
        for array in (self._block, self._place):
            array[: len(order)] = array[chosen]
        self._plan = None

    def begin(self, count: int) -> None:
        """Before the layers of a step of `count` rows."""
        if self._plan is None:
            self._tidy(count)
            self._plan = self._sorted_by_prompt(count)

    def attend(self, layer: int, query: Tensor) -> tuple[Tensor, Tensor]:
        """query: [rows kv, m, D]; its attention, and the logarithm of the normaliser [rows kv, m]."""
        assert self._plan is not None
        by_prompt = query.view(len(query), -1).index_select(0, self._plan.source)
        parts = [
            prefix.attend(layer, by_prompt[part])
            for prefix, part in zip(self._blocks, self._plan.parts, strict=True)
        ]
        out, mass = parts[0] if len(parts) == 1 else (torch.cat(x) for x in zip(*parts, strict=True))
        width = query.shape[1] * query.shape[2]
        out = out.view(-1, width).index_select(0, self._plan.target).view_as(query)
        return out, mass.view(-1, query.shape[1]).index_select(0, self._plan.target)

    def _tidy(self, count: int) -> None:
        """Drop prompts that no row needs, once half of their block's are gone; join blocks if many."""
        block, place = self._block[:count], self._place[:count]
        for number in reversed(range(len(self._blocks))):
            of_block = block == number
            places = np.unique(place[of_block])
            if not len(places):
                del self._blocks[number]
                block[block > number] -= 1
            elif 2 * len(places) <= len(self._blocks[number].lengths):
                self._blocks[number] = self._blocks[number].narrowed(places.tolist())
                place[of_block] = np.searchsorted(places, place[of_block])
        while len(self._blocks) > MAX_BLOCKS:
            self._join_neighbours(block, place)

    def _join_neighbours(self, block: Ints, place: Ints) -> None:
        """Join the two blocks, one admitted after the other, that need the fewest slots together."""

        def slots(number: int) -> int:
            lengths = self._blocks[number].lengths + self._blocks[number + 1].lengths
            return max(lengths) * len(lengths)

        first = min(range(len(self._blocks) - 1), key=slots)
        one, other = self._blocks[first : first + 2]
        self._blocks[first : first + 2] = [Prefix.joined(one, other)]
        place[block == first + 1] += len(one.lengths)
        block[block > first] -= 1

    def _sorted_by_prompt(self, count: int) -> _Plan:
        """Rows of one prompt next to each other, each prompt of a block padded to its block's most rows."""
        kv_heads = self._like.shape[0]
        source: list[Ints] = []
        target = np.zeros(count * kv_heads, dtype=np.int64)
        parts: list[slice] = []
        start = 0
        for number, prefix in enumerate(self._blocks):
            rows = np.flatnonzero(self._block[:count] == number)
            rows = rows[np.argsort(self._place[rows], kind="stable")]
            places = self._place[rows]
            counts = np.bincount(places, minlength=len(prefix.lengths))
            most = int(counts.max())
            # rank: which of its prompt's rows a row is; sorted_: its place in the padded block.
            rank = np.arange(len(rows)) - (np.cumsum(counts) - counts)[places]
            heads = np.arange(kv_heads)
            sorted_ = ((places[:, None] * kv_heads + heads) * most + rank[:, None]).ravel()
            row_heads = (rows[:, None] * kv_heads + heads).ravel()
            # Places without a row compute row 0 again; nothing reads them.
            chosen = np.zeros(len(prefix.lengths) * kv_heads * most, dtype=np.int64)
            chosen[sorted_] = row_heads
            target[row_heads] = start + sorted_
            source.append(chosen)
            parts.append(slice(start, start + len(chosen)))
            start += len(chosen)
        device = self._like.device
        return _Plan(
            torch.from_numpy(np.concatenate(source)).to(device),
            torch.from_numpy(target).to(device),
            tuple(parts),
        )


def blocks_of(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of prompts, longest first, in blocks of alike lengths."""
    blocks: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not blocks or lengths[index] < SHORTEST_SHARE * lengths[blocks[-1][0]]:
            blocks.append([])
        blocks[-1].append(index)
    return blocks
