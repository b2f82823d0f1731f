"""Regular expressions that rows bring along, run within a time limit."""

from __future__ import annotations

from typing import Any

REGEX_SECONDS = 1.0  # a pattern that backtracks for longer is at fault, not the answer


def _engine() -> Any:
    """The `regex` package: as `re`, with a time limit."""
    import regex  # type: ignore[import-untyped]

    return regex


class RegexTimeout(Exception):
    """A pattern took too long on an answer: an error of the row, never a zero."""


def find_all(pattern: str, text: str, *, flags: int = 0, seconds: float = REGEX_SECONDS) -> list[list[str]]:
    """All matches, each as its groups (the whole match first; a group that took no part is empty).

    Raises RegexTimeout.
    """
    try:
        found = _engine().finditer(pattern, text, flags=flags, timeout=seconds)
        return [[one[0], *(group or "" for group in one.groups())] for one in found]
    except TimeoutError as error:
        raise RegexTimeout(f"the pattern {pattern!r} took longer than {seconds} s") from error


def matches(pattern: str, text: str, *, seconds: float = REGEX_SECONDS) -> bool:
    """Whether the pattern is found somewhere in the text. Raises RegexTimeout."""
    try:
        return _engine().search(pattern, text, timeout=seconds) is not None
    except TimeoutError as error:
        raise RegexTimeout(f"the pattern {pattern!r} took longer than {seconds} s") from error


def pattern_fault(pattern: str) -> str | None:
    """Why a pattern cannot be used, if so."""
    engine = _engine()
    try:
        engine.compile(pattern)
    except engine.error as error:
        return str(error)
    return None
