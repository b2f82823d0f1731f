"""Micro-batches that share prompts, and the rectangles within a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kascade.data.packing import LEAST_BLOCK_TOKENS, LEAST_FILL, buckets, shared_micro_batches

Rows = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60)), max_size=40)


@given(Rows, st.integers(1, 400))
def test_every_row_is_there_once_and_tokens_stay_within_the_budget(
    rows: list[tuple[int, int]], budget: int
) -> None:
    prefixes = [prefix for prefix, _ in rows]
    prefix_lengths = [10 * prefix for prefix in prefixes]
    suffix_lengths = [suffix for _, suffix in rows]
    groups = shared_micro_batches(prefixes, prefix_lengths, suffix_lengths, budget)
    assert sorted(row for group in groups for row in group) == list(range(len(rows)))
    for group in groups:
        tokens = sum(10 * p for p in {prefixes[row] for row in group}) + sum(suffix_lengths[r] for r in group)
        assert len(group) == 1 or tokens <= budget


def test_a_group_that_fits_is_not_taken_apart() -> None:
    prefixes = [0, 1, 0, 1, 0, 1]
    groups = shared_micro_batches(prefixes, [10] * 6, [5] * 6, 30)
    assert [sorted(group) for group in groups] == [[0, 2, 4], [1, 3, 5]]


def test_a_group_larger_than_the_budget_is_cut() -> None:
    assert [len(g) for g in shared_micro_batches([0] * 8, [10] * 8, [5] * 8, 30)] == [4, 4]
    with pytest.raises(ValueError, match="positive"):
        shared_micro_batches([], [], [], 0)


@given(st.lists(st.integers(1, 200), max_size=80))
def test_rectangles_hold_every_row_once_and_pad_little(lengths: list[int]) -> None:
    groups = buckets(lengths)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        widest = max(lengths[row] for row in group)
        small = [row for row in group if lengths[row] < LEAST_FILL * widest]
        full = [row for row in group if lengths[row] >= LEAST_FILL * widest]
        assert not small or len(full) * widest < LEAST_BLOCK_TOKENS
