"""Reads what trainings and exams leave for people: curves, and answers with their grades."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from kascade.learning.metrics import read_metrics
from kascade.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One sampled answer with its grade; `reward` is None where the grader failed."""

    task_id: str
    prompt: str
    answer: str
    reward: float | None
    error: str | None
    greedy: bool


def curve(folder: RunFolder, checkpoint_id: str) -> list[dict[str, float | str]]:
    """The lines of a training's curves; [] when there are none."""
    return folder.load(folder.training(checkpoint_id).curves, read_metrics) or []


def answers_of(folder: RunFolder, digest: str, benchmark: str) -> list[ShownAnswer]:
    """The kept answers of one benchmark on one checkpoint; [] when there are none.

    A torn line (the run was killed while it was written) is left out and noted in the folder's problems.
    """
    path = folder.samples(digest, benchmark)
    if not path.exists():
        return []
    kept = []
    for number, row in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            kept.append(_answer(json.loads(row)))
        except (ValueError, KeyError, TypeError):
            folder.note(path, f"line {number} is not complete and is left out")
    return kept


def _answer(row: dict[str, Any]) -> ShownAnswer:
    reward = row["reward"]
    failed = row.get("error") is not None or reward is None or not math.isfinite(reward)
    return ShownAnswer(
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
