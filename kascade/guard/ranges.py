"""Numbers that the statistics take, checked: one out of range would give a confident wrong answer."""

from __future__ import annotations

import math
from numbers import Integral, Real

from kascade.errors import KascadeError


def part(name: str, value: float) -> float:
    """`value`, a number from 0 to 1. Raises KascadeError for another, NaN included."""
    if not (_is_finite(value) and 0 <= value <= 1):
        raise KascadeError(f"{name} is a number from 0 to 1, not {value!r}")
    return float(value)


def between(name: str, value: float) -> float:
    """`value`, a number between 0 and 1, neither of them included. Raises KascadeError for another."""
    if not (_is_finite(value) and 0 < value < 1):
        raise KascadeError(f"{name} is a number between 0 and 1, not {value!r}")
    return float(value)


def count(name: str, value: int) -> int:
    """`value`, a whole number from 1 on. Raises KascadeError for another."""
    if not isinstance(value, Integral) or value < 1:
        raise KascadeError(f"{name} is a whole number from 1 on, not {value!r}")
    return int(value)


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)
