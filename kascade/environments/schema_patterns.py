r"""The patterns of JSON Schema, which are JavaScript's (ECMA-262), as the engine here reads them.

There `$` is the very end, also where a line break comes before it; `\d` and `\w` know ASCII only. A group is
named `(?<year>...)` and called by `\k<year>`; `[^]` is any character, and `-` beside a class in brackets is a
sign. What only Python writes, such as `(?P<year>...)`, is left as it is: published rows have it.
"""

from __future__ import annotations

import re
from functools import lru_cache

from kascade.environments.bounded import pattern_fault

CLASSES = {"d": "0-9", "w": "A-Za-z0-9_"}
TOKEN = re.compile(
    r"\\c(?P<control>[A-Za-z])|\\k<(?P<called>\w+)>|\\u\{(?P<point>[0-9A-Fa-f]{1,6})\}"
    r"|\\u(?P<high>[dD][89abAB][0-9A-Fa-f]{2})\\u(?P<low>[dD][c-fC-F][0-9A-Fa-f]{2})"
    r"|\\(?P<class>[dDwWsS])|\\.|(?P<empty>\[\^?\])|.",
    re.DOTALL,
)


@lru_cache(maxsize=4096)
def as_read_here(pattern: str) -> str:
    """The pattern in the engine's own syntax; what the two share stays as it is."""
    made: list[str] = []
    tokens = list(TOKEN.finditer(pattern))
    inside = False
    for number, found in enumerate(tokens):
        text = _character(found) or found[0]
        if found["empty"] and not inside:
            text = r"[\s\S]" if len(found[0]) == 3 else "(?!)"
        elif found["class"] in CLASSES:
            text = CLASSES[found["class"]] if inside else f"[{CLASSES[found['class']]}]"
        elif found["class"] in ("D", "W"):
            text = text if inside else f"[^{CLASSES[found['class'].lower()]}]"
        elif found["called"]:
            text = f"(?P={found['called']})"
        elif inside:
            text, inside = _in_brackets(text, tokens, number), text != "]"
        elif text == "$":
            text = r"\Z"
        else:
            inside = text == "["
        made.append(text)
    return "".join(made)


def _character(found: re.Match[str]) -> str | None:
    """What an escape of a single character that only JavaScript knows stands for."""
    if found["control"]:
        return re.escape(chr(ord(found["control"].upper()) - 64))
    if found["point"] and int(found["point"], 16) <= 0x10FFFF:
        return re.escape(chr(int(found["point"], 16)))
    if found["high"]:
        return re.escape(bytes.fromhex(found["high"] + found["low"]).decode("utf-16-be"))
    return None


def _in_brackets(text: str, tokens: list[re.Match[str]], number: int) -> str:
    beside = (tokens[number - 1], tokens[min(number + 1, len(tokens) - 1)])
    if text == "-" and any(one["class"] for one in beside):
        return r"\-"
    return {r"\b": r"\x08", "[": r"\["}.get(text, text)


def schema_pattern_fault(pattern: str) -> str | None:
    """Why a schema's pattern cannot be used, if so."""
    return pattern_fault(as_read_here(pattern))
