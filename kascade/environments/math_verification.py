"""Whether two mathematical answers are equal: cheaply where both are numbers, else by math-verify."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from fractions import Fraction

from kascade.environments.line_worker import LineWorker, WorkerError, WorkerTooSlow

SECONDS = 5.0  # CPU time of one comparison: math-verify's own default; NeMo-Gym allows 10
WALL_SECONDS = 300.0  # after which a comparison is given up, however busy the machine is
MOST_FAILURES = 1000  # remembered, so that a group of answers that all hang the same way waits once
MOST_BOXES = 20  # at the end of an answer, of which the last complete one counts
LONGEST = 2000  # characters; a longer answer is no short answer, and not equal to one


class VerificationError(Exception):
    """The comparison could not be made: too slow, out of memory, or its process died. Never a zero."""


@dataclass(slots=True)
class Verifier:
    """Compares in a process of its own, which is ended when it takes too long and made anew.

    seconds: CPU time of a comparison that names none of its own; wall_seconds: until it is given up, on a
    machine too busy to give them. Safe to share between threads (they take turns) and across forks.
    """

    seconds: float = SECONDS
    wall_seconds: float = WALL_SECONDS
    _worker: LineWorker = field(default_factory=lambda: LineWorker("kascade.environments.math_worker"))
    _failed: dict[tuple[str, str, float], str] = field(default_factory=dict)

    def equal(
        self, expected: str, given: str, *, seconds: float | None = None, wall_seconds: float | None = None
    ) -> bool:
        """Whether `given` (LaTeX, or text with an answer) equals `expected`. Raises VerificationError."""
        if len(given) > LONGEST or not given.strip():
            return False
        cpu_seconds = seconds or self.seconds
        asked = (expected, given, cpu_seconds)
        if asked in self._failed:
            raise VerificationError(self._failed[asked])
        try:
            answer = self._worker.ask(
                {"expected": expected, "given": given},
                cpu_seconds=cpu_seconds,
                wall_seconds=wall_seconds or self.wall_seconds,
            )
        except WorkerTooSlow as error:
            problem = f"math-verify took {error}"
            if len(self._failed) < MOST_FAILURES:
                self._failed[asked] = problem
            raise VerificationError(problem) from None
        except WorkerError as error:
            raise VerificationError(f"math-verify: {error}") from error
        if "error" in answer:
            raise VerificationError(f"math-verify: {answer['error']}")
        return bool(answer["equal"])

    def close(self) -> None:
        self._worker.close()


def as_number(text: str) -> Fraction | None:
    """The number that a text is: an integer, a decimal, a fraction; thousands may be set apart by commas."""
    clean = unicodedata.normalize("NFKC", text).replace("−", "-").replace(",", "").strip(" $\n\t")  # noqa: RUF001
    if len(clean) > 100 or "e" in clean.lower():  # Fraction("1e999999999") fills the memory
        return None
    try:
        return Fraction(clean)
    except (ValueError, ZeroDivisionError):
        return None


def last_boxed(text: str) -> str | None:
    r"""What the last complete \boxed{...} holds, braces inside included."""
    start = text.rfind(r"\boxed")
    for _ in range(MOST_BOXES):
        if start < 0:
            return None
        opening = start + len(r"\boxed")
        while text[opening : opening + 1].isspace():
            opening += 1
        content = _braced(text, opening)
        if content is not None:
            return content.strip()
        start = text.rfind(r"\boxed", 0, start)
    return None


def _braced(text: str, opening: int) -> str | None:
    """What stands between the brace at `opening` and its partner, of at most LONGEST characters."""
    if text[opening : opening + 1] != "{":
        return None
    depth = 0
    for index in range(opening, min(len(text), opening + LONGEST + 2)):
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return text[opening + 1 : index]
    return None


def without_delimiters(text: str) -> str:
    r"""An expected answer without its \( \), \[ \] or $ $."""
    text = text.strip()
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$"), ("$", "$")):
        if len(text) >= len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            return text[len(opening) : -len(closing)].strip()
    return text
