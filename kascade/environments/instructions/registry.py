"""Verifiable instructions by id: what each asks of an answer, and which arguments it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]


@dataclass(frozen=True, slots=True)
class Instruction:
    """name: the published id. needs: arguments without which it cannot be checked."""

    name: str
    check: Check
    needs: tuple[str, ...]

    def follows(self, answer: str, arguments: Arguments) -> bool:
        """Whether the answer follows it; an empty answer follows nothing.

        Raises KeyError, TypeError or ValueError for arguments that make no sense, never for an answer.
        """
        return bool(answer.strip()) and self.check(answer, arguments)

    def fault(self, arguments: Arguments) -> str | None:
        """What is wrong with a row's arguments, if anything."""
        for name in self.needs:
            if name not in arguments:
                return f"{name}: missing; {self.name} needs it"
        try:
            self.follows("A probe, nothing more.", arguments)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return f"{self.name} cannot use {dict(arguments)!r}: {error}"
        return None


INSTRUCTIONS: dict[str, Instruction] = {}


def instruction(name: str, *needs: str) -> Callable[[Check], Check]:
    """Register a check under its instruction id, with the arguments that it needs."""

    def register(check: Check) -> Check:
        assert name not in INSTRUCTIONS, name
        INSTRUCTIONS[name] = Instruction(name, check, needs)
        return check

    return register


def number(arguments: Arguments, name: str) -> int:
    """A whole-number argument; published rows write many as floats (5.0)."""
    value = arguments[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value % 1:
        raise ValueError(f"{name}: {value!r} is not a whole number")
    return int(value)


def text_of(arguments: Arguments, name: str) -> str:
    """A text argument, which must hold more than spaces."""
    value = arguments[name]
    if isinstance(value, list) and len(value) == 1:  # some rows wrap a word in a list
        value = value[0]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: {value!r} is not text")
    return value


def compare(count: float, bound: float, relation: str | None) -> bool:
    """IFEval's two relations; "at least" is the default."""
    if relation not in (None, "at least", "less than"):
        raise ValueError(f"relation: {relation!r} is neither 'at least' nor 'less than'")
    return count < bound if relation == "less than" else count >= bound
