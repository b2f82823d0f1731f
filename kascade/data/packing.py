"""Micro-batches of about equal length, sized by tokens; rectangles within them; prompts shared by a group."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby

LEAST_BLOCK_TOKENS = 256  # a rectangle smaller than this costs more in calls than the padding it saves
LEAST_FILL = 0.8  # a row shorter than this share of its rectangle begins another one


def micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Row indices grouped so that rows x longest row of each group is at most `token_budget`.

    Rows of similar length go together, longest first (the peak of memory comes at the start, not
    hours later). A row longer than the budget is alone in its group. Deterministic.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget must be positive, not {token_budget}")
    groups: list[list[int]] = []
    widest = 0
    for row in longest_first(lengths):
        if not groups or (len(groups[-1]) + 1) * widest > token_budget:
            groups.append([])
            widest = lengths[row]
        groups[-1].append(row)
    return groups


def shared_micro_batches(
    prefixes: Sequence[Hashable],
    prefix_lengths: Sequence[int],
    suffix_lengths: Sequence[int],
    token_budget: int,
) -> list[list[int]]:
    """Row indices grouped so that the tokens of each group are at most `token_budget`, each prefix once.

    Rows with equal prefixes stay together unless they alone exceed the budget; then their prefix is counted
    in each of their groups. Longest prefixes first. A row longer than the budget is alone. Deterministic.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget must be positive, not {token_budget}")
    families: dict[Hashable, list[int]] = {}
    for row in longest_first(suffix_lengths):
        families.setdefault(prefixes[row], []).append(row)
    groups: list[list[int]] = []
    left = 0
    for rows in sorted(families.values(), key=lambda rows: (-prefix_lengths[rows[0]], rows[0])):
        prefix = prefix_lengths[rows[0]]
        whole = prefix + sum(suffix_lengths[row] for row in rows)
        left = left - prefix if groups and whole <= left else -1
        for row in rows:
            if suffix_lengths[row] > left:
                groups.append([])
                left = token_budget - prefix
            groups[-1].append(row)
            left -= suffix_lengths[row]
    return groups


def buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Row indices grouped into rectangles that are padded little, longest first. Deterministic."""
    groups: list[list[int]] = []
    widest = 0
    for row in longest_first(lengths):
        full = not groups or len(groups[-1]) * widest >= LEAST_BLOCK_TOKENS
        if not groups or (full and lengths[row] < LEAST_FILL * widest):
            groups.append([])
            widest = lengths[row]
        groups[-1].append(row)
    return groups


def equal_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Row indices grouped into rectangles without padding, longest first. Deterministic."""
    return [list(rows) for _, rows in groupby(longest_first(lengths), key=lengths.__getitem__)]


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Row indices by falling length, equals in their order."""
    return sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
