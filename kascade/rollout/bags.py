"""Attention of one query of each row as weighted sums of rows of a table (`embedding_bag`), for CPUs.

Scores are the sum over d of q_d times row d of the transposed keys; the output is the sum over slots of a
weight times a value. A batched product costs MKL about a microsecond for each such small matrix; the bag,
which FBGEMM computes, takes a third of that.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

LINE = 16  # floats of a cache line: the slots of each dimension of a key fill whole ones


def by_bags(like: Tensor) -> bool:
    """Whether bags are the faster way for keys and values like these.

    With wider vectors than 256 bits neither way was measured, so products stay.
    """
    return like.device.type == "cpu" and like.dtype == torch.float32 and _has_narrow_kernel()


@cache
def _has_narrow_kernel() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def transposed(like: Tensor, layers: int, rows: int, room: int) -> Tensor:
    """Memory for keys that looks like [layers, rows, kv heads, room, D]. like: [kv heads, D]."""
    kv_heads, width = like.shape
    whole = -(-room // LINE) * LINE
    return like.new_empty(layers, rows, kv_heads, width, whole)[..., :room].transpose(-1, -2)


class Bags:
    """Keys and values of the first `rows` rows as tables, and which rows of them each head adds up."""

    def __init__(self, keys: Tensor, values: Tensor, rows: int) -> None:
        """keys: made by `transposed`; values: [layers, all rows, kv heads, room, D]."""
        self.rows, self._heads = rows, 0
        self._kv_heads, self._room, self._width = values.shape[2:]
        # With the padding of each line: the rows of a table lie next to each other.
        lines = keys.transpose(-1, -2)
        lines = lines.as_strided((*lines.shape[:4], lines.stride(3)), lines.stride())
        self._keys, self._values = lines.flatten(1, 3).unbind(), values.flatten(1, 3).unbind()

    def look_at(self, slots: slice) -> None:
        """The slots in use from now on."""
        self._slots, self._stale = slots, True

    def scores(self, layer: int, query: Tensor) -> Tensor:
        """query: [n, heads, D], scaled; to [n, heads, slots]."""
        if self._stale:
            self._find(query.shape[1])
        scores = _weighted_sums(self._keys[layer], self._dimensions, self._queries, query.reshape(-1))
        return scores.view(self.rows, self._heads, -1)[..., self._slots]

    def sums(self, layer: int, weights: Tensor) -> Tensor:
        """weights: [n, heads, slots]; the values that they weigh, added up: [n, heads, D]."""
        sums = _weighted_sums(self._values[layer], self._places, self._starts, weights.view(-1))
        return sums.view(self.rows, self._heads, -1)

    def _find(self, heads: int) -> None:
        if heads != self._heads:  # once: all layers have as many
            self._heads = heads
            numbers = torch.arange(self.rows * self._kv_heads, dtype=torch.int32)
            owners = numbers.repeat_interleave(heads // self._kv_heads)[:, None]
            dimensions = torch.arange(self._width, dtype=torch.int32)
            self._dimensions = (owners * self._width + dimensions).view(-1)
            self._numbers = torch.arange(len(owners), dtype=torch.int32)
            self._queries = self._numbers * self._width
            self._first = owners * self._room
        slots = torch.arange(self._slots.start, self._slots.stop, dtype=torch.int32)
        self._places = (self._first + slots).view(-1)
        self._starts = self._numbers * len(slots)
        self._stale = False


def _weighted_sums(table: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """For each start the sum of weights times the rows of the table, up to the next start."""
    # As F.embedding_bag, whose checks take longer than a small sum.
    return torch.embedding_bag(table, rows, starts, False, 0, False, weights)[0]
