"""Checks of row fields that several domains share."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from kascade.data.shapes import is_blank

LONGEST_LIST = 200  # characters of the fields that a message lists


def one_of(name: str, value: Any, allowed: Collection[str]) -> str:
    """The value, which must be one of the allowed words. Raises ValueError naming the field."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(allowed)}")
    return value


def gold_text(row: Mapping[str, Any], name: str) -> str:
    """The final answer in a field, text or a number. Raises ValueError naming the field."""
    value = row.get(name)
    if value is None or (isinstance(value, float) and not math.isfinite(value)) or is_blank(str(value)):
        if name not in row:
            others = [str(field) for field in row if field != "responses_create_params"]
            there = ", ".join(others)[:LONGEST_LIST] or "a prompt only"
            raise ValueError(f"{name}: is missing; the row holds {there}")
        shown = "missing or empty" if value is None or isinstance(value, str) else f"{value!r} is no answer"
        raise ValueError(f"{name}: {shown}; give the final answer as text")
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"{name}: a {type(value).__name__} is no answer; give the final answer as text")
    return str(value)
