"""What a stage has tried: its trained checkpoint, the recoveries of it, and what was judged of each."""

from __future__ import annotations

from itertools import takewhile

from kascade.errors import KascadeError
from kascade.guard.lineage import Ancestor, walk
from kascade.guard.verdict import Verdict, read_verdict
from kascade.run.context import Run


def attempts_of(checkpoint: str) -> list[Ancestor]:
    """A stage's attempts behind a checkpoint, the newest first and the trained one last."""
    line = list(walk(checkpoint))
    stage = line[0].manifest.stage
    return list(takewhile(lambda one: one.manifest.stage == stage, line))


def verdicts_of(run: Run, attempts: list[Ancestor]) -> list[Verdict]:
    """The attempts' verdicts, oldest first. Raises KascadeError for one that was not judged."""
    found = [(one, read_verdict(run.layout, one.manifest.id)) for one in reversed(attempts)]
    if missing := [one.manifest.id for one, verdict in found if verdict is None]:
        raise KascadeError(f"{', '.join(missing)}: has not been judged yet")
    return [verdict for _, verdict in found if verdict is not None]
