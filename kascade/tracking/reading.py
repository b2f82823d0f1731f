"""Reads what a run folder holds, and goes on when a piece is missing or broken: a report of half a run
is worth having. What could not be read is kept in `problems` and shown, never silently dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kascade.errors import KascadeError
from kascade.guard.lineage import Outcome
from kascade.guard.scores import Score
from kascade.guard.verdict import Verdict
from kascade.learning.metrics import read_metrics
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import MANIFEST, CheckpointRef, Manifest, open_checkpoint
from kascade.storage.files import read_json
from kascade.storage.layout import RunLayout

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled answer with its grade; `reward` is None where the grader failed."""

    task_id: str
    prompt: str
    answer: str
    reward: float | None
    error: str | None
    greedy: bool


@dataclass(slots=True)
class RunReader:
    """Tolerant access to the files of one run."""

    layout: RunLayout
    problems: list[str] = field(default_factory=list)

    def attempt(self, path: Path, read: Callable[[Path], Read]) -> Read | None:
        """What `read` makes of a file; None, with a note in `problems`, when it cannot be read."""
        try:
            return read(path)
        except (OSError, ValueError, KeyError, TypeError, KascadeError) as error:
            reason = " ".join(str(error).split())[:200]
            self.problems.append(f"{path.relative_to(self.layout.root)}: {type(error).__name__}: {reason}")
            return None

    def _each(self, folder: str, pattern: str, read: Callable[[Path], Read]) -> Iterator[tuple[Path, Read]]:
        for path in sorted((self.layout.root / folder).rglob(pattern)):
            value = self.attempt(path, read)
            if value is not None:
                yield path, value

    def text(self, path: Path) -> str | None:
        return self.attempt(path, lambda p: p.read_text(encoding="utf-8")) if path.exists() else None

    def recipe(self) -> Recipe | None:
        path = self.layout.resolved_recipe
        return self.attempt(path, lambda p: Recipe.model_validate_json(p.read_text(encoding="utf-8")))

    def checkpoints(self) -> list[tuple[CheckpointRef, Manifest]]:
        """Every complete checkpoint, oldest first."""
        found = [pair for _, pair in self._each("checkpoints", MANIFEST, lambda p: open_checkpoint(p.parent))]
        return sorted(found, key=lambda pair: pair[1].created)

    def scores(self) -> list[Score]:
        return [score for _, score in self._each("scores", "*.json", _model_reader(Score))]

    def verdicts(self) -> dict[str, Verdict]:
        """Verdicts by checkpoint id."""
        return {
            path.relative_to(self.layout.root / "verdicts").with_suffix("").as_posix(): verdict
            for path, verdict in self._each("verdicts", "*.json", _model_reader(Verdict))
        }

    def outcomes(self) -> list[Outcome]:
        """Every outcome, oldest first."""
        found = [outcome for _, outcome in self._each("outcomes", "*.json", _model_reader(Outcome))]
        return sorted(found, key=lambda outcome: outcome.created)

    def json_files(self, folder: str, pattern: str) -> dict[str, dict[str, Any]]:
        """JSON objects of a folder by their path in it, without the suffix of `pattern` ("*.json")."""
        suffix = pattern.removeprefix("*")
        return {
            path.relative_to(self.layout.root / folder).as_posix().removesuffix(suffix): value
            for path, value in self._each(folder, pattern, read_json)
            if isinstance(value, dict)
        }

    def curve(self, checkpoint_id: str) -> list[dict[str, float | str]]:
        """The lines of a training's metrics.jsonl; [] when there are none."""
        path = self.layout.training(checkpoint_id) / "metrics.jsonl"
        return self.attempt(path, read_metrics) or []

    def answers(self, digest: str, benchmark: str) -> list[Answer]:
        """The kept answers of one benchmark on one checkpoint; [] when there are none."""
        return self._lines(self.layout.samples(digest) / f"{benchmark}.jsonl", _answer)

    def _lines(self, path: Path, read: Callable[[dict[str, Any]], Read]) -> list[Read]:
        """JSONL by line; a torn line (the run was killed while writing) is counted among the problems."""
        if not path.exists():
            return []
        kept = []
        for number, row in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            try:
                kept.append(read(json.loads(row)))
            except (ValueError, KeyError, TypeError):
                where = path.relative_to(self.layout.root)
                self.problems.append(f"{where}:{number}: not a complete line, left out")
        return kept


def _model_reader(model: type[Any]) -> Callable[[Path], Any]:
    return lambda path: model.model_validate_json(path.read_text(encoding="utf-8"))


def _answer(row: dict[str, Any]) -> Answer:
    reward = row["reward"]
    failed = row.get("error") is not None or reward is None or not math.isfinite(reward)
    return Answer(
        task_id=str(row["task_id"]),
        prompt=_prompt_text(row["prompt"]),
        answer=str(row["answer"]),
        reward=None if failed else float(reward),
        error=None if row.get("error") is None else str(row["error"]),
        greedy=bool(row["greedy"]),
    )


def _prompt_text(prompt: Any) -> str:
    """A prompt kept as text, or as chat messages."""
    if isinstance(prompt, list):
        return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
    return str(prompt)
