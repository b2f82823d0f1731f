"""SEARCH/REPLACE edits: read from an answer, applied to files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kascade.environments.software_engineering.lines import (
    EditError,
    Lines,
    known_path,
    new_path,
    same_files,
    split_lines,
)

# A marker is a whole line; blanks around it do not count. Seven signs are usual, five to nine are read.
SEARCH = re.compile(r"[ \t]*(?P<mark><{5,9}) ?SEARCH:?\s*", re.IGNORECASE)
DIVIDER = re.compile(r"(?P<indent>[ \t]*)(?P<mark>={5,9})\s*")
REPLACE = re.compile(r"[ \t]*>{5,9} ?REPLACE\s*", re.IGNORECASE)
HEADING = re.compile(r"#{1,6}\s*(\S+)")  # with words behind it, a heading names no file
MOST_EDITS = 1000  # of an answer; each is looked for in a whole file
MOST_DIVIDERS = 20  # of an edit, each of which may be the one


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace lines by others in one file; `path` None means the only file there is.

    others: further readings (search, replace), where a line of the text looks like the divider.
    named: whether the path stands in a heading, and not in what may be a sentence.
    """

    search: str
    replace: str
    path: str | None = None
    others: tuple[tuple[str, str], ...] = ()
    named: bool = True

    def __str__(self) -> str:
        heading = f"### {self.path}\n" if self.path else ""
        return f"{heading}<<<<<<< SEARCH\n{self.search}=======\n{self.replace}>>>>>>> REPLACE"

    @property
    def ways(self) -> Iterator[tuple[list[str], list[str]]]:
        """Every reading as lines, the longest to find first."""
        for search, replace in ((self.search, self.replace), *self.others):
            yield split_lines(search), split_lines(replace)


def holds_edits(text: str) -> bool:
    """Whether a line of the text opens an edit."""
    return "<<<<<" in text and any(SEARCH.fullmatch(line) for line in split_lines(text) if "<<<<<" in line)


def parse_edits(text: str) -> list[Edit]:
    """All edits in a text, in order. Raises EditError when there is none."""
    lines = split_lines(text)
    edits: list[Edit] = []
    index = 0
    while index < len(lines) and len(edits) < MOST_EDITS:
        if "<<<<<" in lines[index] and (found := SEARCH.fullmatch(lines[index])):
            end = next((i for i in range(index + 1, len(lines)) if _ends(lines[i])), len(lines))
            if end < len(lines) and REPLACE.fullmatch(lines[end]):
                ways = _ways(lines[index + 1 : end], len(found["mark"]))
                path, named = _named(lines, index)
                edits += [Edit(*ways[0], path, ways[1:], named)] if ways else []
                index = end
        index += 1
    if not edits:
        raise EditError("no SEARCH/REPLACE edit in the answer")
    return edits


def _ends(line: str) -> bool:
    """Whether an edit is over here: its end, or, never ended, where the next one begins."""
    return bool((">>>>>" in line and REPLACE.fullmatch(line)) or ("<<<<<" in line and SEARCH.fullmatch(line)))


def _ways(body: Sequence[str], signs: int) -> tuple[tuple[str, str], ...]:
    """Each way to read what stands between the markers, as lines to find and lines to put there.

    signs: of the marker, which the divider has as many of. Its indentation may be that of all lines.
    """
    marks = [(index, DIVIDER.fullmatch(line)) for index, line in enumerate(body) if "=====" in line]
    dividers = [(index, found) for index, found in marks if found and len(found["mark"]) == signs]
    ways = []
    for at, found in reversed(dividers[:MOST_DIVIDERS]):
        inner = [line.removeprefix(found["indent"]) for line in body]
        ways += [
            (_text(one[:at]), _text(one[at + 1 :])) for one in (body, inner)[: 1 + bool(found["indent"])]
        ]
    return tuple(ways)


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _named(lines: Sequence[str], marker: int) -> tuple[str | None, bool]:
    """What names the file, and whether surely: a heading of one word, or a line before marker and fence."""
    for line in reversed(lines[max(0, marker - 3) : marker]):
        text = line.strip()
        if text and not text.startswith(("```", "~~~")):
            heading = HEADING.fullmatch(text)
            return (heading[1], True) if heading else (text, False)
    return None, False


def apply_edits(files: Mapping[str, str], edits: list[Edit]) -> dict[str, str]:
    """The files after the edits, each of which must match whole lines in exactly one place.

    An edit that finds nothing (no lines to find) makes a new file, or fills an empty one. Raises EditError
    when an edit names no file, matches nowhere or more than once, or when all of them change nothing.
    """
    result = dict(files)
    for edit in edits:
        path = _file_of(edit, result)
        file = Lines.of(result.get(path, ""))
        if not file.lines and not edit.search.strip():
            result[path] = edit.replace
            continue
        place, old, new = _place(edit, file, path)
        file.replace(place, old, new)
        result[path] = str(file)
    if same_files(result, files):
        raise EditError("the edits change nothing")
    return result


def _file_of(edit: Edit, files: Mapping[str, str]) -> str:
    """The path of the file that an edit is about; one that finds nothing may make it."""
    name = edit.path or ""
    known = known_path(name, files) if name else None
    if known is None and not edit.search.strip():
        known = new_path(name)
    if known is None and len(files) == 1 and not (name and edit.named):
        known = next(iter(files))
    if known is None:
        raise EditError(f"{name or 'an edit without a path'}: not one of {', '.join(files)}")
    return known


def _place(edit: Edit, file: Lines, path: str) -> tuple[int, list[str], list[str]]:
    """Where the one reading that applies does; blank lines around both sides count only where they must."""
    ways = list(edit.ways)
    for old, new in (*ways, *map(_trimmed, ways)):
        places = file.places(old)
        if len(places) == 1:
            return places[0], old, new
    raise EditError(f"{path}: the lines to replace are not there exactly once")


def _trimmed(way: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    """Both sides without the blank lines that both begin or end with."""
    old, new = list(way[0]), list(way[1])
    for end in (0, -1):
        while old and new and not old[end].strip() and not new[end].strip():
            old.pop(end)
            new.pop(end)
    return old, new
