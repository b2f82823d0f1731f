"""Whether two mathematical answers are equal: cheaply where both are numbers, else by math-verify."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kascade.environments.math.boxes import LONGEST
from kascade.sandbox.line_worker import LineWorker, WorkerDied, WorkerError, WorkerTooSlow

SECONDS = 5.0  # CPU time of one comparison: math-verify's own default; NeMo-Gym allows 10
WALL_SECONDS = 300.0  # after which a comparison is given up, however busy the machine is
MOST_FAILURES = 1000  # remembered, so that a group of answers that all hang the same way waits once


class VerificationError(Exception):
    """The answer cannot be compared: it takes too long, too much memory, or ends the process each time."""


class VerifierUnavailable(Exception):
    """This machine can compare nothing: it is too busy, or the verifier does not start."""


@dataclass(slots=True)
class Verifier:
    """Compares in a process of its own, which is ended when it takes too long and made anew.

    seconds: CPU time of a comparison that names none of its own; wall_seconds: until it is given up, on a
    machine too busy to give them. Safe to share between threads (they take turns) and across forks.
    """

    seconds: float = SECONDS
    wall_seconds: float = WALL_SECONDS
    _worker: LineWorker = field(default_factory=lambda: LineWorker("kascade.environments.math.worker"))
    _failed: dict[tuple[str, str, float], str] = field(default_factory=dict)

    def equal(
        self,
        expected: str,
        given: str,
        *,
        boxed: bool = True,
        seconds: float | None = None,
        wall_seconds: float | None = None,
    ) -> bool:
        """Whether `given` (LaTeX, or text with an answer) equals `expected`.

        boxed: `given` is the answer and nothing else. Raises VerificationError and VerifierUnavailable.
        """
        if len(given) > LONGEST or not given.strip():
            return False
        cpu_seconds = seconds or self.seconds
        asked = (expected, given, cpu_seconds)
        if asked in self._failed:
            raise VerificationError(self._failed[asked])
        request = {"expected": expected, "given": given, "boxed": boxed}
        try:
            answer = self._ask(request, cpu_seconds, wall_seconds or self.wall_seconds)
        except WorkerTooSlow as error:
            answer = {"error": f"took {error}"}
        except WorkerDied as error:
            answer = {"error": str(error)}
        except WorkerError as error:
            raise VerifierUnavailable(f"math-verify: {error}") from error
        if "error" in answer:
            if len(self._failed) < MOST_FAILURES:
                self._failed[asked] = f"math-verify: {answer['error']}"
            raise VerificationError(f"math-verify: {answer['error']}")
        return bool(answer["equal"])

    def _ask(self, request: Mapping[str, Any], cpu_seconds: float, wall_seconds: float) -> Any:
        """The worker's answer, asked for once more where its process died: that may have been chance."""
        try:
            return self._worker.ask(request, cpu_seconds=cpu_seconds, wall_seconds=wall_seconds)
        except WorkerDied:
            return self._worker.ask(request, cpu_seconds=cpu_seconds, wall_seconds=wall_seconds)

    def close(self) -> None:
        self._worker.close()
