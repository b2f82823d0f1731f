"""Lines of files, as repairs find and replace them: what one cannot see at their ends decides nothing.

Only LF and CRLF end a line. A file keeps its own line ends, and a last line without one stays so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile


class EditError(ValueError):
    """The edits cannot be read or do not apply."""


@dataclass(slots=True)
class Lines:
    """A file's lines without their ends, and how it ends them."""

    lines: list[str]
    end: str = "\n"
    last_ends: bool = True

    @classmethod
    def of(cls, text: str) -> Lines:
        end = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
        return cls(split_lines(text), end, text.endswith("\n") or not text)

    def __str__(self) -> str:
        joined = self.end.join(self.lines)
        return joined + (self.end if self.last_ends and self.lines else "")

    def places(self, wanted: Sequence[str]) -> list[int]:
        """Where the lines are, white space at their ends aside."""
        here, sought = [line.rstrip() for line in self.lines], [line.rstrip() for line in wanted]
        if not sought:
            return []
        starts = (index for index, line in enumerate(here) if line == sought[0])
        return [index for index in starts if here[index : index + len(sought)] == sought]

    def replace(self, place: int, old: Sequence[str], new: Sequence[str]) -> None:
        """Put `new` where `old` is. Lines at the beginning and the end that stay keep what the file has."""
        pairs = [(a.rstrip(), b.rstrip()) for a, b in zip(old, new, strict=False)]
        head = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        rest = list(zip(reversed(old[head:]), reversed(new[head:]), strict=False))
        tail = sum(1 for _ in takewhile(lambda pair: pair[0].rstrip() == pair[1].rstrip(), rest))
        self.lines[place + head : place + len(old) - tail] = new[head : len(new) - tail]


def split_lines(text: str) -> list[str]:
    """Lines without LF or CRLF; a last line need not be ended."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def same_files(ours: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    """Whether two versions hold the same lines; how they end is no difference."""
    return ours.keys() == theirs.keys() and all(
        text == theirs[path] or split_lines(text) == split_lines(theirs[path]) for path, text in ours.items()
    )


def known_path(name: str, files: Mapping[str, str]) -> str | None:
    """The file that a name in an answer means: as it is, or without marks, `./`, `a/` or `b/` before it."""
    bare = name.strip().strip("`*\"'").removesuffix(":").strip("`*\"'").removeprefix("./")
    for path in (name.strip(), bare, bare[2:] if bare[:2] in ("a/", "b/") else bare):
        if path in files:
            return path
    return None


def new_path(name: str) -> str | None:
    """The path that a name in an answer gives to a new file; None where it is none."""
    bare = name.strip().strip("`*\"'").removesuffix(":").strip("`*\"'").removeprefix("./")
    bare = bare[2:] if bare[:2] in ("a/", "b/") else bare
    usable = (
        bare and not bare.startswith("/") and ".." not in bare.split("/") and not set(bare) & set(" \0\t")
    )
    return bare if usable else None
