"""Checks of row fields that several domains share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def one_of(name: str, value: Any, allowed: Collection[str]) -> str:
    """The value, which must be one of the allowed words. Raises ValueError naming the field."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(allowed)}")
    return value


def positive_options(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options that are all to be positive numbers. Raises ValueError naming the first that is not."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise ValueError(f"options.{name}: {value!r} is not a positive number")
    return given
