"""Fenced code blocks of an answer, in every form that is usual: what CommonMark reads, and a little more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Before a fence: blanks, and the marks of the quote or the list that it stands in.
OPENING = re.compile(
    r"(?P<indent>[ \t]*(?:(?:>|[-*+]|\d{1,3}[.)])[ \t]+)*)(?P<mark>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)"
)
WITHIN_A_LINE = re.compile(r"\S.*?(?P<mark>`{3,})[ \t]*(?P<info>[A-Za-z][\w+#.-]*)[ \t]*")
TAG = re.compile(r"[\s{.]*([^\s{}:,=]*)")
QUOTE = re.compile(r"[ \t]*>[ \t]?")
CLOSED_WITH_WORDS = re.compile(r"(?P<mark>`{3,}|~{3,})[ \t]+\S+[ \t]+\S.*")
DEEPEST = 3  # blanks before a fence; deeper ones (of a list) open a block only where they name a language


@dataclass(frozen=True, slots=True)
class FencedBlock:
    """A fenced block. tag: the first word behind the fence, in lower case. closed: whether its fence came."""

    tag: str
    text: str
    closed: bool = True


def fenced_blocks(text: str) -> list[FencedBlock]:
    """All blocks in order; one that is never closed reaches to the end, as CommonMark has it."""
    return list(_blocks(text.replace("\r\n", "\n").split("\n")))


def _blocks(lines: Sequence[str]) -> Iterator[FencedBlock]:
    index = 0
    while index < len(lines):
        found = _opening(lines[index])
        index += 1
        if found is None:
            continue
        indent, mark, tag = found
        end, last = _end(lines, index, mark, indent)
        body = [_inner(line, indent) for line in lines[index:end]] + ([last] if last else [])
        yield FencedBlock(tag, "".join(f"{line}\n" for line in body), closed=end < len(lines))
        index = end + 1


def _opening(line: str) -> tuple[str, str, str] | None:
    """Indentation, fence and tag where a block opens in this line."""
    found = OPENING.fullmatch(line)
    if found is None:
        within = WITHIN_A_LINE.fullmatch(line) if "```" in line else None
        return ("", within["mark"], within["info"].lower()) if within else None
    tag = _tag(found["info"])
    if not found["indent"].isspace() and found["indent"] and not tag:
        return None  # marks of a list or a quote open a block only where a language follows
    if len(found["indent"]) > DEEPEST and not tag:
        return None
    return found["indent"], found["mark"], tag


def _inner(line: str, indent: str) -> str:
    """A line of a block without what its opening fence stands behind: blanks, a quote's mark, a list's."""
    if not indent or indent.isspace():
        return line.removeprefix(indent)
    for _ in range(indent.count(">")):
        line = QUOTE.sub("", line, count=1)
    depth = len(indent.rpartition(">")[2].lstrip(" \t"))  # a list's lines stand below its words
    return line[min(depth, len(line) - len(line.lstrip(" \t"))) :]


def _tag(info: str) -> str:
    found = TAG.match(info)
    return found[1].lower() if found else ""


def _end(lines: Sequence[str], start: int, mark: str, indent: str) -> tuple[int, str]:
    """The line that ends a block opened before `start`, and what stands before the fence in that line.

    A fence at the end of a line of code ends the block only where no line holds a fence alone, or before
    words of prose.
    """
    for index in range(start, len(lines)):
        line = lines[index]
        if mark[0] in line:
            line = _inner(line, indent) if ">" in indent else line
            bare = line.strip()
            near = len(line) - len(line.lstrip()) <= len(indent) + DEEPEST
            if near and len(bare) >= len(mark) and not bare.strip(mark[0]):
                return index, ""
            words = CLOSED_WITH_WORDS.fullmatch(bare) if near else None
            if words and words["mark"].startswith(mark):
                return index, ""
    for index in range(start, len(lines)):
        if lines[index].rstrip().endswith(mark):
            return index, lines[index].rstrip().rstrip(mark[0]).removeprefix(indent)
    return len(lines), ""
