"""Decoding attention of rows of any age: short prompts copied to each row, long ones shared by its group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kascade.rollout.loops import kernels_for
from kascade.rollout.prefix import Prefix, Prefixes, hiding, mass_of, scores_of

GROWTH = 16  # at least so many slots for new tokens are added at a time; unused ones lie between rows
MOST_COPIED = 64  # tokens; attending to the group's one copy of a shorter prompt costs more than it saves


class RowAttention:
    """Attention of each row's newest token over its prompt and over what it added itself.

    All rows write to the same slot, whenever they began: slots [rows, kv heads, slots, D] before a row's
    first are hidden. Prompts either are there too, or once for all their rows in `Prefixes`; then the two
    parts are merged by their normalisers, so that the result is that of one softmax over both.
    """

    def __init__(self, num_layers: int, rows: int, like: Tensor) -> None:
        """like: [kv heads, D], gives shape, type and device of keys and values."""
        self._like, self._num_layers = like, num_layers
        kernels = kernels_for(like)
        self._kernel = kernels and kernels.attention_of_width(like.shape[1])
        self._keys, self._values = self._room_for(rows, 0)  # [layers, rows, kv heads, slots, D]
        self._first = np.zeros(rows, dtype=np.int64)  # slot of each row
        self._low = self._now = 0  # the lowest of the first slots, and the one that comes next
        self._count = 0
        self._shared: Prefixes | None = None
        self._hidden: Tensor | None = None
        self._changed = True

    def admit(self, prefix: Prefix, rows: Sequence[int], places: Sequence[int]) -> None:
        """Start rows, each after the prompt at its place in the prefix."""
        longest = max(prefix.lengths)
        if self._count == 0:
            self._low = self._now = 0
            shares = longest > MOST_COPIED and len(rows) > len(prefix.lengths)
            self._shared = Prefixes(len(self._first), self._like) if shares else None
        if self._shared is None:
            self._copy(prefix, rows, places)
        else:
            self._shared.admit(prefix, rows, places)
            self._first[list(rows)] = self._now
            self._clear(rows, self._now)
        self._count += len(rows)
        self._changed = True

    def retain(self, order: Sequence[int], into: Tensor, from_: Tensor) -> None:
        """Row i becomes what row order[i] was; into, from_: the rows that change, as indices."""
        for row, source in enumerate(order):
            if row != source:
                for store in (self._keys, self._values):
                    store[:, row, :, self._low : self._now] = store[:, source, :, self._low : self._now]
        self._first[: len(order)] = self._first[np.array(order, dtype=np.int64)]
        if self._shared is not None:
            self._shared.retain(order)
        self._count = len(order)
        self._changed = True

    def begin(self) -> None:
        """Before the layers of a step: what they share."""
        if self._changed:
            self._low = int(self._first[: self._count].min())
        if self._now == self._values.shape[3]:
            used = self._now - self._low
            self._relocate(0, used + self._growth(used))
        if self._changed:
            self._hidden = self._hide() if self._kernel is None else None  # which never looks there
            self._changed = False
        if self._shared is not None:
            self._shared.begin(self._count)
        if self._kernel is None:
            stores = [store[:, : self._count] for store in (self._keys, self._values)]
            self._newest = [store[..., self._now, :].unbind() for store in stores]
            slots = slice(self._low, self._now + 1)
            self._seen = [store[..., slots, :].flatten(1, 2).unbind() for store in stores]

    def end(self) -> None:
        """After the layers of a step."""
        self._now += 1

    def __call__(self, layer: int, heads: Tensor) -> Tensor:
        """Attend, after storing keys and values as the rows' newest: [n, Q * D].

        layer counts attention layers only; heads: [n, Q + 2 K, D], queries (scaled), keys and values.
        """
        rows, (kv_heads, width) = heads.shape[0], self._like.shape
        query = heads[:, : heads.shape[1] - 2 * kv_heads]
        own, own_mass = self._attend(layer, query, heads)
        if self._shared is None:
            return own.view(rows, -1)
        prompt, mass = self._shared.attend(layer, query.reshape(rows * kv_heads, -1, width))
        share = (mass - own_mass().view_as(mass)).sigmoid_()
        return torch.lerp(own.view_as(prompt), prompt, share[..., None]).view(rows, -1)

    def _attend(self, layer: int, query: Tensor, heads: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        """Attention over what rows have stored, and what gives the logarithm of its normaliser."""
        if self._kernel is not None:
            out, mass = query.new_empty(query.shape), query.new_empty(query.shape[:2])
            stored, first = (x[layer].numpy() for x in (self._keys, self._values)), self._first
            self._kernel(heads.numpy(), *stored, first, self._now, out.numpy(), mass.numpy())
            return out, lambda: mass
        kv_heads, width = self._like.shape
        key, value = heads[:, -2 * kv_heads :].split_with_sizes([kv_heads, kv_heads], 1)
        self._newest[0][layer].copy_(key)
        self._newest[1][layer].copy_(value)
        hidden = None if self._hidden is None else self._hidden[..., self._low : self._now + 1]
        keys, values = self._seen[0][layer], self._seen[1][layer]
        scores = scores_of(query.reshape(len(keys), -1, width), keys, hidden)
        weights = scores.softmax(-1)
        return torch.bmm(weights, values), lambda: mass_of(scores, weights)

    def _copy(self, prefix: Prefix, rows: Sequence[int], places: Sequence[int]) -> None:
        """Put each row's prompt right before the next slot."""
        longest = max(prefix.lengths)
        if longest > self._now:
            self._relocate(self._low + longest - self._now, longest + self._growth(0))
        into, from_ = (torch.tensor(x, device=self._like.device) for x in (rows, places))
        taken = slice(self._now - longest, self._now)
        for store, prompts in zip((self._keys, self._values), prefix.flush_right(), strict=True):
            for layer, prompt in enumerate(prompts):
                store[layer][into, :, taken] = prompt[from_]
        self._first[list(rows)] = [self._now - prefix.lengths[place] for place in places]
        if taken.start < self._low:
            for store in (self._keys, self._values):
                store[:, : self._count, :, taken.start : self._low] = 0
            self._low = taken.start
        self._clear(rows, taken.start)

    def _clear(self, rows: Sequence[int], end: int) -> None:
        """Set what is before slot `end` of rows to 0: though hidden, it must be a number in products."""
        if self._kernel is None and self._low < end:
            for store in (self._keys, self._values):
                for row in rows:
                    store[:, row, :, self._low : end] = 0

    def _hide(self) -> Tensor | None:
        """What hides slots before each row's first, [n, 1, slots]; None where there are none in use."""
        first = self._first[: self._count]
        if first.max() == self._low:
            return None
        slots = torch.arange(self._values.shape[3], device=self._like.device)
        return hiding(slots < torch.from_numpy(first).to(slots.device)[:, None], self._like.dtype)

    def _growth(self, used: int) -> int:
        """How many slots to add to those in use, so that they move a logarithmic number of times."""
        return max(GROWTH, used // 8)

    def _relocate(self, start: int, room: int) -> None:
        """Move what is stored to slots from `start` on, in memory for `room` slots or one more."""
        room |= 1  # rows that begin a power of two apart would push each other out of the cache
        old, new = slice(self._low, self._now), slice(start, start + self._now - self._low)
        before = (self._keys, self._values)
        self._keys, self._values = self._room_for(self._values.shape[1], room)
        for store, moved in zip((self._keys, self._values), before, strict=True):
            store[:, : self._count, :, new] = moved[:, : self._count, :, old]
        self._first += start - self._low
        self._low, self._now, self._changed = new.start, new.stop, True

    def _room_for(self, rows: int, room: int) -> tuple[Tensor, Tensor]:
        kv_heads, width = self._like.shape
        shape = (self._num_layers, rows, kv_heads, room, width)
        return self._like.new_empty(shape), self._like.new_empty(shape)
