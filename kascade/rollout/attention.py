"""Decoding attention whose prompts are stored once for all their samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Ints = npt.NDArray[np.int64]
GROWTH = 64  # slots for new tokens are added in multiples of this
MAX_BLOCKS = 4  # more blocks of prompts than this are joined: each costs a few operations a layer
SHORTEST_SHARE = 0.7  # prompts shorter than this share of their block's longest start another block


class Prefix:
    """Keys and values of neighbouring prompts, per layer [P, kv heads, L, D], shorter ones padded right."""

    def __init__(self, lengths: Sequence[int], keys: list[Tensor], values: list[Tensor]) -> None:
        self.lengths, self.keys, self.values = list(lengths), keys, values
        longest, device = keys[0].shape[2], keys[0].device
        slots = torch.arange(longest, device=device)
        self._beyond = (
            None
            if min(self.lengths) == longest
            else (slots >= torch.tensor(self.lengths, device=device)[:, None])[:, None, None]
        )

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

    def attend(self, layer: int, query: Tensor) -> tuple[Tensor, Tensor]:
        """query: heads sorted by (prompt, kv head), [P kv G, heads per kv head x D]; see `_attend`."""
        keys, values = self.keys[layer], self.values[layer]
        prompts, kv_heads, _, width = keys.shape
        query = query.view(prompts * kv_heads, -1, width)
        out, mass = _attend(query, keys.flatten(0, 1), values.flatten(0, 1), self._beyond, prompts)
        return out.view(-1, out.shape[-1]), mass.view(-1)


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, beyond: Tensor | None, rows: int
) -> tuple[Tensor, Tensor]:
    """Attention of [B, m, D] over [B, L, D], and the logarithm of its normaliser: [B, m, D], [B, m]."""
    scores = torch.bmm(query, keys.transpose(1, 2))
    if beyond is not None:
        scores.view(rows, -1, scores.shape[1], scores.shape[2]).masked_fill_(beyond, -torch.inf)
    weights = scores.softmax(-1)
    mass = scores.amax(-1) - weights.amax(-1).log()
    return torch.bmm(weights, values), mass


@dataclass(frozen=True, slots=True)
class _Plan:
    """How rows of heads are sorted by prompt, [rows kv heads] each way, and each block's part of them."""

    source: Tensor
    target: Tensor
    parts: tuple[slice, ...]


class SharedAttention:
    """Attention of each row's newest token over its prompt and over what it added itself.

    Samples of one prompt attend to its one copy together, in one matrix product; rows need not be sorted.
    The two parts are merged by their normalisers, so the result is that of one softmax over both.
    """

    def __init__(self, num_layers: int, rows: int, like: Tensor) -> None:
        """like: [kv heads, D], gives shape, type and device of keys and values."""
        self._like = like
        self._keys = [like.new_empty(rows, like.shape[0], 0, like.shape[1]) for _ in range(num_layers)]
        self._values = [torch.empty_like(keys) for keys in self._keys]
        self._prefixes: list[Prefix] = []
        # of each row: tokens added after its prompt, its prompt's block, the prompt's place there
        self._added, self._block, self._place = (np.zeros(rows, dtype=np.int64) for _ in range(3))
        self._count = 0
        self._plan: _Plan | None = None

    def admit(self, prefix: Prefix, rows: Sequence[int], places: Sequence[int]) -> None:
        """Start rows, each after the prompt at its place in the prefix."""
        self._added[list(rows)] = 0
        self._place[list(rows)] = places
        self._block[list(rows)] = len(self._prefixes)
        self._count += len(rows)
        self._prefixes.append(prefix)
        self._plan = None

    def retain(self, order: Sequence[int], into: Tensor, from_: Tensor) -> None:
        """Row i becomes what row order[i] was; into, from_: the rows that change, as indices."""
        chosen = np.array(order, dtype=np.int64)
        used = int(self._added[: self._count].max(initial=0))
        for store in (*self._keys, *self._values):
            store[into, :, :used] = store[from_, :, :used]
        for array in (self._added, self._block, self._place):
            array[: len(order)] = array[chosen]
        self._count = len(order)
        self._plan = None

    def begin(self) -> None:
        """Before the layers of a step: what they share."""
        if self._plan is None:
            self._tidy()
            self._plan = self._sorted_by_prompt()
            added = self._added[: self._count]
            self._even = bool((added == added[0]).all())
            self._index = torch.arange(self._count, device=self._like.device)
            self._lengths = torch.from_numpy(added.copy()).to(self._like.device)
        self._longest = int(self._added[: self._count].max()) + 1
        self._grow(self._longest)
        slots = torch.arange(self._longest, device=self._like.device)
        self._beyond = None if self._even else (slots > self._lengths[:, None])[:, None, None]

    def end(self) -> None:
        """After the layers of a step."""
        self._added[: self._count] += 1
        self._lengths += 1

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend, after storing key and value as the rows' newest: [n, heads * D].

        layer counts attention layers only; query: [n, heads, D], scaled; key, value: [n, kv heads, D].
        """
        assert self._plan is not None
        rows, kv_heads, width = key.shape
        keys, values = self._keys[layer][:rows], self._values[layer][:rows]
        if self._even:
            keys[:, :, self._longest - 1], values[:, :, self._longest - 1] = key, value
        else:
            keys[self._index, :, self._lengths] = key
            values[self._index, :, self._lengths] = value
        query = query.reshape(rows * kv_heads, -1, width)
        keys, values = (x[:, :, : self._longest].flatten(0, 1) for x in (keys, values))
        own, own_mass = _attend(query, keys, values, self._beyond, rows)
        by_prompt = query.view(len(query), -1).index_select(0, self._plan.source)
        parts = [
            prefix.attend(layer, by_prompt[part])
            for prefix, part in zip(self._prefixes, self._plan.parts, strict=True)
        ]
        out, mass = parts[0] if len(parts) == 1 else (torch.cat(x) for x in zip(*parts, strict=True))
        out = out.view(-1, query.shape[1] * width).index_select(0, self._plan.target).view_as(own)
        mass = mass.view(-1, query.shape[1]).index_select(0, self._plan.target)
        return torch.lerp(own, out, (mass - own_mass).sigmoid_()[..., None]).view(rows, -1)

    def _tidy(self) -> None:
        """Drop prompts that no row needs, once half of their block's are gone; join blocks if many."""
        for number in reversed(range(len(self._prefixes))):
            of_block = self._block[: self._count] == number
            places = np.unique(self._place[: self._count][of_block])
            if not len(places):
                del self._prefixes[number]
                self._block[: self._count][self._block[: self._count] > number] -= 1
            elif 2 * len(places) <= len(self._prefixes[number].lengths):
                self._prefixes[number] = self._prefixes[number].narrowed(places.tolist())
                self._place[: self._count][of_block] = np.searchsorted(
                    places, self._place[: self._count][of_block]
                )
        while len(self._prefixes) > MAX_BLOCKS:
            self._join_neighbours()

    def _join_neighbours(self) -> None:
        """Join the two blocks, one admitted after the other, that need the fewest slots together."""

        def slots(number: int) -> int:
            lengths = self._prefixes[number].lengths + self._prefixes[number + 1].lengths
            return max(lengths) * len(lengths)

        first = min(range(len(self._prefixes) - 1), key=slots)
        one, other = self._prefixes[first : first + 2]
        self._prefixes[first : first + 2] = [Prefix.joined(one, other)]
        block, place = self._block[: self._count], self._place[: self._count]
        place[block == first + 1] += len(one.lengths)
        block[block > first] -= 1

    def _sorted_by_prompt(self) -> _Plan:
        """Rows of one prompt next to each other, each prompt of a block padded to its block's most rows."""
        kv_heads = self._like.shape[0]
        source: list[Ints] = []
        target = np.zeros(self._count * kv_heads, dtype=np.int64)
        parts: list[slice] = []
        start = 0
        for number, prefix in enumerate(self._prefixes):
            rows = np.flatnonzero(self._block[: self._count] == number)
            rows = rows[np.argsort(self._place[rows], kind="stable")]
            places = self._place[rows]
            counts = np.bincount(places, minlength=len(prefix.lengths))
            most = int(counts.max())
            rank = np.arange(len(rows)) - (np.cumsum(counts) - counts)[places]
            heads = np.arange(kv_heads)
            sorted_ = ((places[:, None] * kv_heads + heads) * most + rank[:, None]).ravel()
            row_heads = (rows[:, None] * kv_heads + heads).ravel()
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

    def _grow(self, length: int) -> None:
        room = self._keys[0].shape[2] if self._keys else length
        if length > room:
            more = -(-max(length - room, room // 2) // GROWTH) * GROWTH
            for stores in (self._keys, self._values):
                for i, store in enumerate(stores):
                    stores[i] = F.pad(store, (0, 0, 0, more))


def blocks_of(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of prompts, longest first, in blocks of alike lengths."""
    blocks: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not blocks or lengths[index] < SHORTEST_SHARE * lengths[blocks[-1][0]]:
            blocks.append([])
        blocks[-1].append(index)
    return blocks
