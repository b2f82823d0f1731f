"""Micro-batches of about equal length, sized by padded tokens."""

from __future__ import annotations

from collections.abc import Sequence


def micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Row indices grouped so that rows x longest row of each group is at most `token_budget`.

    Rows of similar length go together, longest first (the peak of memory comes at the start, not
    hours later). A row longer than the budget is alone in its group. Deterministic.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget must be positive, not {token_budget}")
    groups: list[list[int]] = []
    widest = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if not groups or (len(groups[-1]) + 1) * widest > token_budget:
            groups.append([])
            widest = lengths[row]
        groups[-1].append(row)
    return groups
