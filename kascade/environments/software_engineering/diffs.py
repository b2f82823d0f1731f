"""Unified diffs: read, applied to files, made from two versions, and compared with each other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kascade.environments.software_engineering.lines import (
    EditError,
    Lines,
    known_path,
    new_path,
    same_files,
    split_lines,
)

HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@|@@(?: \.\.\.)?(?: @@)?\s*$")
BODY = (" ", "+", "-", "\\", "")  # how lines of a hunk begin; an empty one has lost its space
NOTHING = "/dev/null"
MOST_PAIRS = 50_000_000  # of letters that are compared with each other: patches of 7,000 characters each
Body = list[str]


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines to find, about line `start` (from 0; None: anywhere), and lines to put there.

    readings: bodies in order of trust: as long as the header says, all that follows, that without its end.
    """

    start: int | None
    readings: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


@dataclass(slots=True)
class FileChange:
    """What a diff does with one file: old and new name (NOTHING for none), and its hunks."""

    old: str
    new: str
    hunks: list[Hunk] = field(default_factory=list)


def parse_diff(text: str) -> list[FileChange]:
    """What a diff does, file by file. Raises EditError when it does nothing."""
    lines = split_lines(text)
    found: list[FileChange] = []
    index, old = 0, ""
    while index < len(lines):
        line = lines[index]
        index += 1
        if line.startswith(("--- ", "rename from ")):
            old = _named(line.partition("from ")[2] or line[4:])
        elif line.startswith("rename to "):
            found.append(FileChange(old, _named(line[10:])))
        elif line.startswith("+++ "):
            new = _named(line[4:])
            if not (found and found[-1].new == _bare(new) and not found[-1].hunks):
                found.append(FileChange(old or new, new))
            old = ""
        elif found and (hunk := HUNK.match(line)):
            end = _end(lines, index)
            found[-1].hunks.append(_hunk(hunk, lines[index:end]))
            index = end
    found = [one for one in found if one.hunks or one.old != one.new]
    if not found:
        raise EditError("no unified diff in the text")
    return found


def _named(text: str) -> str:
    return text.partition("\t")[0].strip().strip('"')


def _bare(name: str) -> str:
    return name[2:] if name[:2] in ("a/", "b/") else name


def _end(lines: Sequence[str], index: int) -> int:
    while index < len(lines) and lines[index][:1] in BODY and not _begins(lines, index):
        index += 1
    return index


def _begins(lines: Sequence[str], index: int) -> bool:
    """Whether the next file's part begins here, though its first line looks like a removed one."""
    return lines[index].startswith("--- ") and index + 1 < len(lines) and lines[index + 1].startswith("+++ ")


def _hunk(header: re.Match[str], body: Sequence[str]) -> Hunk:
    said = [one for one in body if not one.startswith("\\")]
    end = len(said)
    while end and said[end - 1] == "":  # blank lines behind a diff are none of it
        end -= 1
    bodies = [said[:end], said]
    start = None
    if header[1] is not None:
        start = max(0, int(header[1]) - 1)
        counts = int(header[2] or 1), int(header[3] or 1)
        bodies = [*([counted] if (counted := _counted(said, *counts)) is not None else []), *bodies]
    return Hunk(start, tuple(dict.fromkeys(_sides(one) for one in bodies)))


def _counted(body: Sequence[str], old: int, new: int) -> Body | None:
    """The beginning that has as many lines of both sides as the header says; None where none has."""
    for index in range(len(body) + 1):
        if old == 0 and new == 0:
            return list(body[:index])
        if index < len(body):
            old -= body[index][:1] in (" ", "-", "")
            new -= body[index][:1] in (" ", "+", "")
    return None


def _sides(body: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    old = tuple(one[1:] for one in body if one[:1] in (" ", "-", ""))
    return old, tuple(one[1:] for one in body if one[:1] in (" ", "+", ""))


def apply_diff(files: Mapping[str, str], text: str) -> dict[str, str]:
    """The files after a diff, which may add, remove and rename files; hunks are found near where they say.

    Raises EditError when it names a file that is not there, or a hunk fits nowhere.
    """
    result = dict(files)
    for change in parse_diff(text):
        old = None if change.old == NOTHING else known_path(change.old, result)
        old = old or (known_path(change.new, result) if change.new != NOTHING else None)
        if old is None:
            path: str | None = _new_file(change, result)
            file = Lines([])
        else:
            path, file = _target(change, old), Lines.of(result.pop(old))
        _apply(change.hunks, file, path or change.old)
        if path is not None:
            result[path] = str(file)
    if same_files(result, files):
        raise EditError("the diff changes nothing")
    return result


def _new_file(change: FileChange, files: Mapping[str, str]) -> str:
    path = new_path(change.new)
    adds = change.old == NOTHING or all(not old for hunk in change.hunks for old, _ in hunk.readings[:1])
    if path is None or not adds:
        raise EditError(f"{change.new}: not one of {', '.join(files)}")
    return path


def _target(change: FileChange, old: str) -> str | None:
    """Where the changed file goes: None where it is removed."""
    if change.new == NOTHING:
        return None
    renamed = change.old != NOTHING and _bare(change.old) != _bare(change.new)
    return (new_path(change.new) or old) if renamed else old


def _apply(hunks: Sequence[Hunk], file: Lines, path: str) -> None:
    shift = 0
    for hunk in hunks:
        found = next(_placed(hunk, file, shift), None)
        if found is None:
            where = f" about line {hunk.start + 1}" if hunk.start is not None else ""
            raise EditError(f"{path}: the lines{where} are not there")
        place, old, new = found
        file.replace(place, old, new)
        shift += len(new) - len(old)


def _placed(hunk: Hunk, file: Lines, shift: int) -> Iterator[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    """Where each reading of a hunk fits: the place nearest to what it says, or the only one."""
    for old, new in hunk.readings:
        if not old and (hunk.start is not None or not file.lines):
            near = min(len(file.lines), max(0, (hunk.start or 0) + shift + (1 if file.lines else 0)))
            yield near, old, new
            continue
        places = file.places(old)
        if hunk.start is not None and places:
            near = hunk.start + shift
            yield min(places, key=lambda place: abs(place - near)), old, new
        elif len(places) == 1:
            yield places[0], old, new


def diff_of(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """One unified diff of all files whose lines differ, in the order of their paths."""
    parts = []
    for path in sorted({*before, *after}):
        old, new = (split_lines(files.get(path, "")) for files in (before, after))
        if old != new or (path in before) != (path in after):
            lines = difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", lineterm="")
            parts.append("\n".join(lines) or f"--- a/{path}\n+++ b/{path}")
    return "\n".join(parts)


def similarity(ours: str, theirs: str) -> float:
    """How alike two texts are, in [0, 1]: difflib's ratio, the reward of SWE-RL (arXiv 2502.18449 §2).

    Texts that are too long for that, which takes their product's time, are compared line by line.
    """
    if len(ours) * len(theirs) > MOST_PAIRS:
        return difflib.SequenceMatcher(None, split_lines(ours), split_lines(theirs)).ratio()
    return difflib.SequenceMatcher(None, ours, theirs, autojunk=False).ratio()
