"""SEARCH/REPLACE edits: read from an answer, applied to files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

EDIT = re.compile(
    r"^(?:### *(?P<path>[^\n]+)\n)?"
    r"<<<<<<< SEARCH\n(?P<search>.*?\n|)=======\n(?P<replace>.*?\n|)>>>>>>> REPLACE[ \t]*$",
    re.DOTALL | re.MULTILINE,
)


class EditError(ValueError):
    """The edits cannot be read or do not apply."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace lines by others in one file; `path` None means the only file there is."""

    search: str
    replace: str
    path: str | None = None

    def __str__(self) -> str:
        heading = f"### {self.path}\n" if self.path else ""
        return f"{heading}<<<<<<< SEARCH\n{self.search}=======\n{self.replace}>>>>>>> REPLACE"


def parse_edits(text: str) -> list[Edit]:
    """All edits in a text, in order. Raises EditError when there is none."""
    edits = [Edit(m["search"], m["replace"], m["path"] and m["path"].strip()) for m in EDIT.finditer(text)]
    if not edits:
        raise EditError("no SEARCH/REPLACE edit in the answer")
    return edits


def apply_edits(files: Mapping[str, str], edits: list[Edit]) -> dict[str, str]:
    """The files after the edits, each of which must match whole lines in exactly one place.

    Raises EditError when an edit names no file, matches nowhere or more than once, or changes nothing.
    """
    result = dict(files)
    for edit in edits:
        path = edit.path or (next(iter(result)) if len(result) == 1 else None)
        if path not in result:
            raise EditError(f"{edit.path or 'an edit without a path'}: not one of {', '.join(result)}")
        found = "\n" + result[path]
        if not edit.search or found.count("\n" + edit.search) != 1:
            raise EditError(f"{path}: the lines to replace are not there exactly once")
        result[path] = found.replace("\n" + edit.search, "\n" + edit.replace)[1:]
    if result == files:
        raise EditError("the edits change nothing")
    return result
