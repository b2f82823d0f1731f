"""Faults of rows: from "field: what is wrong", as readers and environments raise it."""

from __future__ import annotations

from kascade.errors import Fault

LONGEST_SHOWN = 300  # characters of a path in a message


def field_fault(place: str, error: Exception | str, remedy: str, allowed: str | None = None) -> Fault:
    """A fault at a place, and at a field of it where the message begins with one."""
    message = str(error)
    name, colon, what = message.partition(": ")
    if colon and name and " " not in name:
        return Fault(f"{place} {name}", what, allowed, remedy)
    return Fault(place, message, allowed, remedy)


def shown(path: str) -> str:
    """A path as messages can hold it."""
    clean = path.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= LONGEST_SHOWN else f"{clean[:LONGEST_SHOWN]}..."
