"""Checks of row fields that several domains share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def one_of(name: str, value: Any, allowed: Collection[str]) -> str:
    """The value, which must be one of the allowed words. Raises ValueError naming the field."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(allowed)}")
    return value
