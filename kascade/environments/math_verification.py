"""Whether two mathematical answers are equal: cheaply where both are numbers, else by math-verify."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import unicodedata
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from threading import Lock

PACKAGES = Path(__file__).resolve().parents[2]  # where the worker finds this package, wherever we run
SECONDS = 5.0  # for one comparison: math-verify's own default; NeMo-Gym allows 10
MOST_FAILURES = 1000  # remembered, so that a group of answers that all hang the same way waits once
LOADING_SECONDS = 120.0  # until a new worker has its libraries
MOST_BOXES = 20  # at the end of an answer, of which the last complete one counts
LONGEST = 2000  # characters; a longer answer is no short answer, and not equal to one


class VerificationError(Exception):
    """The comparison could not be made: too slow, out of memory, or the worker died. Never a zero."""


class TooSlow(VerificationError):
    """This comparison takes too long, and would again."""


@dataclass(slots=True)
class Verifier:
    """Compares in a process of its own, which is killed when it takes too long and made anew.

    seconds: for one comparison that names no time of its own. Safe to share between threads (they take
    turns) and across forks.
    """

    seconds: float = SECONDS
    _lock: Lock = None  # type: ignore[assignment]
    _worker: subprocess.Popen[bytes] | None = None
    _failed: dict[tuple[str, str, float], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = Lock()
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def equal(self, expected: str, given: str, *, seconds: float | None = None) -> bool:
        """Whether `given` (LaTeX, or text with an answer) equals `expected`. Raises VerificationError."""
        if len(given) > LONGEST or not given.strip():
            return False
        asked = (expected, given, seconds or self.seconds)
        with self._lock:
            if asked in self._failed:
                raise VerificationError(self._failed[asked])
            try:
                return self._compared(*asked)
            except TooSlow as error:
                if len(self._failed) < MOST_FAILURES:
                    self._failed[asked] = str(error)
                raise

    def _compared(self, expected: str, given: str, seconds: float) -> bool:
        worker = self._running()
        request = json.dumps({"expected": expected, "given": given}).encode() + b"\n"
        try:
            assert worker.stdin is not None
            worker.stdin.write(request)
            worker.stdin.flush()
            answer = json.loads(self._line(seconds))
        except (OSError, ValueError) as error:
            self._kill()
            raise VerificationError(f"math-verify's process died: {error}") from error
        if "error" in answer:
            raise VerificationError(answer["error"])
        return bool(answer["equal"])

    def close(self) -> None:
        with self._lock:
            self._kill()

    def _forget(self) -> None:
        """In a forked child: the worker belongs to the parent, and its lock may be held by a thread there."""
        self._lock, self._worker = Lock(), None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._worker is None or self._worker.poll() is not None:
            command = [sys.executable, "-m", "kascade.environments.math_worker"]
            path = os.pathsep.join(filter(None, (str(PACKAGES), os.environ.get("PYTHONPATH"))))
            self._worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # ours may be a pipe whose reader waits until all have closed it
                env={**os.environ, "PYTHONPATH": path},
            )
            try:
                self._line(LOADING_SECONDS)
            except TooSlow as error:  # of the machine, not of the answer
                raise VerificationError(f"math-verify did not load: {error}") from error
        return self._worker

    def _line(self, seconds: float) -> bytes:
        """The worker's next line; it is killed when none comes in time."""
        assert self._worker is not None
        assert self._worker.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._worker.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                self._kill()
                raise TooSlow(f"math-verify took longer than {seconds:g} s")
        return self._worker.stdout.readline()

    def _kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            for pipe in (self._worker.stdin, self._worker.stdout):
                if pipe is not None:
                    pipe.close()
            self._worker = None


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
