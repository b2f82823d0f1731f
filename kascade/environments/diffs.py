"""Unified diffs: read, applied to files, made from two versions, and compared with each other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kascade.environments.edits import EditError

HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@")
BODY = (" ", "+", "-", "\\", "")  # how lines of a hunk begin; an empty one has lost its space
PATH = re.compile(r"(?:[ab]/)?([^\t\n]+)")


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines to find, about line `start` (from 0), and lines to put there."""

    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]


def parse_diff(text: str) -> dict[str, list[Hunk]]:
    """Hunks by path of the new version. Raises EditError when there are none."""
    found: dict[str, list[Hunk]] = {}
    path: str | None = None
    lines = text.splitlines()
    index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if line.startswith("+++ ") and (match := PATH.match(line[4:])):
            path = match[1].strip()
        elif path is not None and (hunk := HUNK.match(line)):
            end = index
            while (
                end < len(lines) and lines[end][:1] in (" ", "+", "-", "\\", "") and not _begins(lines, end)
            ):
                end += 1
            body = [one for one in lines[index:end] if not one.startswith("\\")]
            old = tuple(one[1:] for one in body if one[:1] in (" ", "-", ""))
            new = tuple(one[1:] for one in body if one[:1] in (" ", "+", ""))
            found.setdefault(path, []).append(Hunk(max(0, int(hunk[1]) - 1), old, new))
            index = end
    if not found:
        raise EditError("no unified diff in the text")
    return found


def _begins(lines: Sequence[str], index: int) -> bool:
    """Whether the next file's part begins here, though its first line looks like a removed one."""
    return lines[index].startswith("--- ") and index + 1 < len(lines) and lines[index + 1].startswith("+++ ")


def apply_diff(files: Mapping[str, str], text: str) -> dict[str, str]:
    """The files after a diff, whose hunks must be found near where they say.

    Raises EditError when it names a file that is not there, or a hunk fits nowhere.
    """
    result = dict(files)
    for path, hunks in parse_diff(text).items():
        if path not in result:
            raise EditError(f"{path}: not one of {', '.join(result)}")
        lines, shift = result[path].splitlines(), 0
        for hunk in hunks:
            place = _find(lines, hunk.old, hunk.start + shift)
            if place is None:
                raise EditError(f"{path}: the lines about line {hunk.start + 1} are not there")
            lines[place : place + len(hunk.old)] = hunk.new
            shift += len(hunk.new) - len(hunk.old)
        result[path] = "\n".join(lines) + ("\n" if lines else "")
    if result == files:
        raise EditError("the diff changes nothing")
    return result


def _find(lines: list[str], wanted: tuple[str, ...], near: int) -> int | None:
    """Where the lines are, the place nearest to `near`; white space at their ends does not count."""
    stripped, sought = [line.rstrip() for line in lines], [line.rstrip() for line in wanted]
    places = [i for i in range(len(lines) - len(sought) + 1) if stripped[i : i + len(sought)] == sought]
    return min(places, key=lambda place: abs(place - near), default=None)


def diff_of(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """One unified diff of all files that differ, in the order of their paths."""
    parts = []
    for path in sorted({*before, *after}):
        old, new = before.get(path, ""), after.get(path, "")
        if old != new:
            lines = difflib.unified_diff(
                old.splitlines(), new.splitlines(), f"a/{path}", f"b/{path}", lineterm=""
            )
            parts.append("\n".join(lines))
    return "\n".join(parts)


def similarity(ours: str, theirs: str) -> float:
    """How alike two texts are, in [0, 1]: difflib's ratio, the reward of SWE-RL (arXiv 2502.18449 §2)."""
    return difflib.SequenceMatcher(None, ours, theirs, autojunk=False).ratio()
