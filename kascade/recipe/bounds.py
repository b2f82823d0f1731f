"""Numbers that no computer counts to: told at once, where a run would only end in a crash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kascade.recipe.checks import Problem

LARGEST = 2**53  # beyond it JSON's readers disagree about whole numbers
MOST_GENERATED = 10_000_000  # tasks of one source or benchmark, each of which takes a kilobyte of memory
MOST_THREADS, MOST_PROCESSES = 4096, 1024  # of one machine


def bound_problems(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Every whole number of a recipe (given as JSON value) that is too large to be meant."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from bound_problems(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from bound_problems(part, (*path, index))
    elif isinstance(value, int) and abs(value) > LARGEST:
        yield Problem(path, f"a number of {value.bit_length()} bits is too large", f"at most {LARGEST:,}")
