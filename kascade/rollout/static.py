"""Decoding over buffers that stay where they are, so that a step can be recorded once and replayed.

On CUDA a step of a small batch costs more in launches than in arithmetic; recorded as a CUDA graph it is one
launch. A graph repeats the very operations on the very memory, so shapes are rounded up: rows to a power of
two, slots to a multiple of SLOTS. Elsewhere the same step runs without a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.rollout.prefix import Prefix

SLOTS = 256


class StaticAttention:
    """Keys and values of each row in slots of its own, prompt included: [rows, kv heads, slots, D]."""

    def __init__(self, num_layers: int, rows: int, like: Tensor, lengths: Tensor) -> None:
        """like: [kv heads, D], gives shape, type, device. lengths: of the rows, kept by the decoder."""
        shape = (rows, like.shape[0], 0, like.shape[1])
        self._keys = [like.new_zeros(shape) for _ in range(num_layers)]
        self._values = [like.new_zeros(shape) for _ in range(num_layers)]
        self._lengths, self._rows = lengths, torch.arange(rows, device=like.device)
        self._known = [0] * rows
        self._count = 0
        self.slots = 0  # of the step at hand

    @property
    def room(self) -> int:
        """Slots there are; another number means other memory."""
        return self._keys[0].shape[2]

    def admit(self, prefix: Prefix, rows: Sequence[int], places: Sequence[int]) -> None:
        """Start rows, each after a copy of the prompt at its place in the prefix."""
        longest = max(prefix.lengths)
        self._grow(longest + 1)
        device = self._rows.device
        into, from_ = torch.tensor(rows, device=device), torch.tensor(places, device=device)
        for stores, prompts in ((self._keys, prefix.keys), (self._values, prefix.values)):
            for store, prompt in zip(stores, prompts, strict=True):
                store[into, :, :longest] = prompt[from_]
        for row, place in zip(rows, places, strict=True):
            self._known[row] = prefix.lengths[place]
        self._count += len(rows)

    def retain(self, order: Sequence[int], into: Tensor, from_: Tensor) -> None:
        """Row i becomes what row order[i] was; into, from_: the rows that change, as indices."""
        for store in (*self._keys, *self._values):
            store[into] = store[from_]
        self._known[: len(order)] = [self._known[source] for source in order]
        self._count = len(order)

    def begin(self) -> None:
        """Before the layers of a step."""
        longest = max(self._known[: self._count]) + 1
        self._grow(longest)
        self.slots = -(-longest // SLOTS) * SLOTS

    def end(self) -> None:
        """After the layers of a step."""
        self._known[: self._count] = [length + 1 for length in self._known[: self._count]]

    def __call__(self, layer: int, heads: Tensor) -> Tensor:
        """As `RowAttention.__call__`."""
        rows, kv_heads = len(heads), self._keys[0].shape[1]
        query, key, value = heads.split_with_sizes([heads.shape[1] - 2 * kv_heads, kv_heads, kv_heads], 1)
        lengths, index = self._lengths[:rows], self._rows[:rows]
        keys, values = self._keys[layer], self._values[layer]
        # The new token goes behind each row's last one: a write by index, whose shape never changes.
        keys[index, :, lengths], values[index, :, lengths] = key, value
        seen = torch.arange(self.slots, device=query.device) <= lengths[:, None]
        out = F.scaled_dot_product_attention(
            query[:, :, None],
            keys[:rows, :, : self.slots],
            values[:rows, :, : self.slots],
            attn_mask=seen[:, None, None],
            scale=1.0,
            enable_gqa=True,
        )
        return out.reshape(rows, -1)

    def _grow(self, length: int) -> None:
        if length > self.room:
            # By half again: moving everything, and recording anew, happens a logarithmic number of times.
            room = -(-max(length, self.room * 3 // 2) // SLOTS) * SLOTS
            for stores in (self._keys, self._values):
                stores[:] = [F.pad(store, (0, 0, 0, room - store.shape[2])) for store in stores]


class StepGraphs:
    """Recordings of a step, one for each shape it was asked for."""

    def __init__(self, step: Callable[[Tensor], Tensor], states: Callable[[], list[Tensor]]) -> None:
        """step: tokens [n] to logits [n, V], writing to memory that stays. states: what a step adds to."""
        self._step, self._states = step, states
        self._graphs: dict[tuple[int, ...], tuple[Any, Tensor, Tensor]] = {}

    def run(self, tokens: Tensor, capacity: int, shape: tuple[int, ...]) -> Tensor:
        """What `step` gives for tokens [n]; rows up to the next power of two go along and do not count.

        capacity: rows there are. shape: what else the operations depend on.
        """
        rows = min(capacity, 1 << (len(tokens) - 1).bit_length())
        key = (rows, *shape)
        if key not in self._graphs:
            self._graphs[key] = self._record(rows, tokens)
        graph, given, logits = self._graphs[key]
        given[: len(tokens)] = tokens
        graph.replay()
        # A copy: the next replay writes over these logits.
        return logits[: len(tokens)].clone()

    def forget(self) -> None:
        """Drop all recordings, when memory they read has moved."""
        self._graphs.clear()

    def _record(self, rows: int, tokens: Tensor) -> tuple[Any, Tensor, Tensor]:
        """Run the step once on a stream of its own, as recording demands, undo it, and record it."""
        given = torch.zeros(rows, dtype=tokens.dtype, device=tokens.device)
        before = [state.clone() for state in self._states()]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step(given)
        torch.cuda.current_stream().wait_stream(stream)
        # The trial run has advanced the states; a recording itself computes nothing.
        for state, old in zip(self._states(), before, strict=True):
            state.copy_(old)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._step(given)
        return graph, given, logits
