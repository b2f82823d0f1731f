"""What a person types into a field of the run form: pairs, a number, or a JSON object."""

from __future__ import annotations

import json
import re
from typing import Any

from kascade.errors import Fault

FORM = "run form"


def pairs(field: str, text: str, allowed: str, faults: list[Fault]) -> dict[str, str]:
    """`name=value` between semicolons or lines: each name once, nothing empty."""
    found: dict[str, str] = {}
    for part in parts(text):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if not name or not value:
            faults.append(Fault(f"{FORM} {field}", f"{part!r} lacks a name or a value", allowed))
        elif name in found:
            faults.append(Fault(f"{FORM} {field}", f"{name} is given twice", "each name once"))
        else:
            found[name] = value
    return found


class _Twice(Exception):
    """A name that is given twice in one object: which of the two was meant?"""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise _Twice(f"{', '.join(twice)} is given twice")
    return dict(pairs)


def json_object(field: str, text: str, faults: list[Fault]) -> dict[str, Any]:
    """What a JSON object says; {} for an empty field."""
    where = f"{FORM} {field}"
    if not text.strip():
        return {}
    try:
        value = json.loads(text, object_pairs_hook=_each_once)
    except (_Twice, RecursionError) as error:
        what = str(error) if isinstance(error, _Twice) else "is nested too deeply"
        faults.append(Fault(where, what, "a JSON object, each name in it once"))
        return {}
    except json.JSONDecodeError as error:
        what = f"is not JSON: {error.msg} at character {error.pos + 1}"
        faults.append(Fault(where, what, "a JSON object", 'check quotes ("), commas and brackets there'))
        return {}
    if not isinstance(value, dict):
        faults.append(Fault(where, f"is JSON, but no object: {text.strip()[:40]}", '{"name": ...}'))
        return {}
    return value


def positive(field: str, text: str, faults: list[Fault]) -> float | None:
    """A number above 0; None for an empty field."""
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        faults.append(Fault(f"{FORM} {field}", f"{text!r} will not do", "a number > 0, or nothing"))
        return None
    return number


def parts(text: str) -> list[str]:
    """What stands between semicolons or lines."""
    return [part for part in map(str.strip, re.split(r"[;\n]", text)) if part]
