"""A score: one benchmark on one checkpoint, kept per task, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from kascade.environments.base import Domain
from kascade.storage.files import write_text
from kascade.storage.layout import RunLayout

Phase = Literal["screen", "confirm"]
RIGHT = 1 - 1e-6  # rewards from which on an answer counts as right


class Score(BaseModel):
    """Rewards of one benchmark on one checkpoint.

    checkpoint: digest. round: which fresh draw of a phase this is (recoveries are judged on fresh samples).
    rewards: per task id, one entry a sample; None where the grader failed (masked, never zero).
    greedy: reward of the greedy answer per task, where it was asked for.
    """

    model_config = ConfigDict(extra="forbid")

    benchmark: str
    domain: Domain
    checkpoint: str
    phase: Phase
    round: int
    temperature: float
    rewards: dict[str, list[float | None]]
    greedy: dict[str, float | None] = {}
    mean_response_tokens: float
    num_truncated: int

    @property
    def num_tasks(self) -> int:
        return len(self.rewards)

    @property
    def num_errors(self) -> int:
        return sum(reward is None for rewards in self.rewards.values() for reward in rewards)

    def task_means(self) -> dict[str, float]:
        """Mean reward per task over its graded samples; tasks with none are left out."""
        graded = {task: [r for r in rewards if r is not None] for task, rewards in self.rewards.items()}
        return {task: float(np.mean(rewards)) for task, rewards in graded.items() if rewards}

    @property
    def mean(self) -> float:
        means = self.task_means()
        return float(np.mean(list(means.values()))) if means else float("nan")

    def pass_at(self, k: int) -> float:
        """pass@k: the chance that one of k answers is right (reward 1), over tasks; NaN without any."""
        chances = self._chances(k)
        return float(np.mean(chances)) if chances else float("nan")

    def pass_interval(self, k: int, z: float = 1.96) -> tuple[float, float]:
        """Normal interval of pass@k, clustered by task."""
        return _interval(self._chances(k), z)

    def _chances(self, k: int) -> list[float]:
        """Of each task with at least k graded answers the chance that one of k of them is right.

        The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), from n graded
        answers of which c are right.
        """
        graded = [[r for r in rewards if r is not None] for rewards in self.rewards.values()]
        return [
            1 - comb(len(found) - sum(r >= RIGHT for r in found), k) / comb(len(found), k)
            for found in graded
            if len(found) >= k
        ]

    @property
    def num_samples(self) -> int:
        """Answers a task, the k of avg@k; where some have more than others, the most."""
        return max(map(len, self.rewards.values()), default=0)

    def passes(self) -> dict[int, float]:
        """pass@k for k = 1, 2, 4, … and the number of samples, where a task has that many graded answers."""
        most = self.num_samples
        doubled = [2**power for power in range(most.bit_length())]
        return {k: self.pass_at(k) for k in sorted({*doubled, most} - {0}) if self._chances(k)}

    @property
    def greedy_mean(self) -> float | None:
        graded = [reward for reward in self.greedy.values() if reward is not None]
        return float(np.mean(graded)) if graded else None

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Normal interval of the mean, clustered by task."""
        return _interval(list(self.task_means().values()), z)


def _interval(of_tasks: Sequence[float], z: float) -> tuple[float, float]:
    """Of the mean over tasks, whose answers are not independent; NaN with fewer than two."""
    means = np.array(of_tasks)
    if len(means) < 2:
        return (float("nan"), float("nan"))
    half = z * means.std(ddof=1) / np.sqrt(len(means))
    return (float(means.mean() - half), float(means.mean() + half))


def write_score(layout: RunLayout, score: Score) -> None:
    path = layout.score(score.checkpoint, score.benchmark, score.phase, score.round)
    write_text(path, score.model_dump_json() + "\n")


def read_score(layout: RunLayout, digest: str, benchmark: str, phase: Phase, draw: int = 0) -> Score | None:
    """One score; None when it has not been drawn. Raises ValueError for a broken file."""
    path = layout.score(digest, benchmark, phase, draw)
    return Score.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def read_scores(layout: RunLayout, digest: str, phase: Phase, draw: int = 0) -> dict[str, Score]:
    """All scores of one phase and draw (`Score.round`) on a checkpoint, by benchmark."""
    paths = sorted(layout.scores(digest).glob(f"*.{phase}-{draw}.json"))
    found = [Score.model_validate_json(path.read_text(encoding="utf-8")) for path in paths]
    return {score.benchmark: score for score in found}
