"""A score: one benchmark on one checkpoint, kept per task, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from kascade.guard.rewards import TaskRewards, missing_share
from kascade.storage.files import write_record
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain

Phase = Literal["screen", "confirm", "end", "promotion"]
Draws = Literal["own", "shared"]
RIGHT = 1 - 1e-6  # rewards from which on an answer counts as right


class Score(BaseModel):
    """Rewards of one benchmark on one checkpoint.

    checkpoint: digest. round: which fresh draw of a phase this is (recoveries are judged on fresh samples).
    draws: shared where every checkpoint answers from the same random numbers; own in scores of old runs.
    rewards: per task id, one entry a sample; None where the grader failed (masked, never zero).
    greedy: reward of the greedy answer per task, where it was asked for.
    switch_obeyed: share of answers that think exactly if their prompt asks for it; thought: share that think.
    None where the benchmark's source has no `mode`, or leaves the mode open.
    fixed: asking again brings the same answers, so there are no fresh ones to judge by. asked: what another
    tool was asked, hashed; None where our own environment posed the tasks.
    """

    model_config = ConfigDict(extra="forbid")

    benchmark: str
    domain: Domain
    checkpoint: str
    phase: Phase
    round: int
    draws: Draws = "own"
    temperature: float
    rewards: dict[str, list[float | None]]
    greedy: dict[str, float | None] = {}
    mean_response_tokens: float
    num_truncated: int
    switch_obeyed: float | None = None
    thought: float | None = None
    fixed: bool = False
    asked: str | None = None

    @property
    def num_tasks(self) -> int:
        return len(self.rewards)

    @property
    def num_errors(self) -> int:
        """Answers without a grade."""
        return sum(reward is None for rewards in self.rewards.values() for reward in rewards)

    @property
    def missing(self) -> float:
        """The share of answers without a grade, as `TaskRewards.missing`."""
        return missing_share(self.rewards)

    def task_rewards(self) -> TaskRewards:
        """The rewards as comparisons take them. Raises KascadeError for one outside [0, 1]."""
        return TaskRewards(self.benchmark, f"checkpoint {self.checkpoint[:12]}", self.rewards)

    def task_means(self) -> dict[str, float]:
        """Mean reward per task over its graded samples; tasks with none are left out."""
        graded = {task: [r for r in rewards if r is not None] for task, rewards in self.rewards.items()}
        return {task: float(np.mean(rewards)) for task, rewards in graded.items() if rewards}

    @property
    def mean(self) -> float:
        """Mean reward over tasks, each of its graded answers; NaN without any."""
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
        """Mean reward of the graded greedy answers; None without any."""
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


def score_path(layout: RunFolder, score: Score) -> Path:
    """Where a score is. Old and new draws have files of their own, so that neither is taken for the
    other."""
    return layout.score(score.checkpoint, score.benchmark, _named(score.phase, score.draws), score.round)


def answers_path(layout: RunFolder, digest: str, benchmark: str, phase: Phase, draw: int = 0) -> Path:
    """Where every answer of a benchmark with shared random numbers is kept."""
    return layout.answers(digest, benchmark, _named(phase, "shared"), draw)


def kept_answers_path(layout: RunFolder, score: Score) -> Path:
    """Where the answers behind a score are kept."""
    return layout.answers(score.checkpoint, score.benchmark, _named(score.phase, score.draws), score.round)


def _named(phase: str, draws: Draws) -> str:
    return phase if draws == "own" else f"shared-{phase}"


def write_score(layout: RunFolder, score: Score) -> None:
    """Write a score into its file, in place of one of the same draw."""
    write_record(score_path(layout, score), score.model_dump_json())


def read_score(layout: RunFolder, digest: str, benchmark: str, phase: Phase, draw: int = 0) -> Score | None:
    """One score, of an old run where there is no new one; None when it has not been drawn.

    Raises UserError for a broken file.
    """
    new = layout.load(layout.score(digest, benchmark, _named(phase, "shared"), draw), _parse)
    return new or layout.load(layout.score(digest, benchmark, phase, draw), _parse)


def read_scores(layout: RunFolder, digest: str, phase: Phase, draw: int = 0) -> dict[str, Score]:
    """All scores of one phase and draw (`Score.round`) on a checkpoint, by benchmark; new draws before
    old."""
    found: dict[str, Score] = {}
    kinds: tuple[Draws, ...] = ("own", "shared")
    for draws in kinds:
        files = layout.score_files(digest, phase=_named(phase, draws), round=draw)
        found |= {score.benchmark: score for score in layout.each(files, _parse).values()}
    return found


def all_scores(layout: RunFolder, benchmark: str = "*") -> list[Score]:
    """Every score of a run, or every one of a benchmark, in order of their files; new draws in place of
    old."""
    found = list(layout.each(layout.score_files(benchmark=benchmark), _parse).values())
    new = {_key(score) for score in found if score.draws == "shared"}
    return [score for score in found if score.draws == "shared" or _key(score) not in new]


def _key(score: Score) -> tuple[str, str, str, int]:
    return score.checkpoint, score.benchmark, score.phase, score.round


def _parse(path: Path) -> Score:
    return Score.model_validate_json(path.read_text(encoding="utf-8"))
