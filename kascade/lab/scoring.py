"""Scores of a race on validation tasks, and what training cost between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from kascade.clock import Clock, cpu_seconds
from kascade.errors import KascadeError
from kascade.exams.draws import sit_exam
from kascade.lab.results import ArmPoint
from kascade.lab.settings import RaceSettings
from kascade.recipe.schema import Benchmark
from kascade.rollout.answers import sampling_params
from kascade.rollout.policy import Policy
from kascade.rollout.pools import source_tasks
from kascade.seeds import derive_seed
from kascade.task import Task


@dataclass(slots=True)
class Exams:
    """The validation tasks of each benchmark, and the seed that fixes all draws: the same for every arm."""

    tasks: dict[str, tuple[Benchmark, list[Task]]]
    samples: int
    seed: int

    @classmethod
    def of(cls, benchmarks: Sequence[Benchmark], settings: RaceSettings, seed: int) -> Exams:
        count = settings.validation_tasks
        tasks = {
            one.name: (one, source_tasks(one.source, split="validation", seed=seed, count=count))
            for one in benchmarks
        }
        return cls(tasks, settings.validation_samples, seed)

    def score(self, policy: Policy, step: int, names: Sequence[str]) -> dict[str, float]:
        """Mean reward by benchmark. Raises KascadeError when all grades of one are errors."""
        return {name: self._score(policy, step, *self.tasks[name]) for name in names}

    def _score(self, policy: Policy, step: int, benchmark: Benchmark, tasks: list[Task]) -> float:
        groups = sit_exam(
            policy,
            tasks,
            sampling_params(benchmark.sampling),
            num_samples=self.samples,
            seed=derive_seed(self.seed, "validation", benchmark.name, step),
            clock=Clock(),
        )
        grades = [grade for group in groups for grade in group.grades]
        rewards = [grade.reward for grade in grades if grade.error is None]
        if not rewards:
            raise KascadeError(f"benchmark {benchmark.name}: no answer could be graded: {grades[0].error}")
        return float(np.mean(rewards))


@dataclass(slots=True)
class Recorder:
    """Called after each update: scores the policy now and then, and adds up what training alone cost."""

    score: Callable[[int], dict[str, float]]
    every: int
    steps: int
    points: list[ArmPoint]
    spent: float = 0.0
    since: float = field(default_factory=cpu_seconds)

    def __call__(self, done: int) -> None:
        if done % self.every and done != self.steps:
            return
        self.spent += cpu_seconds() - self.since
        self.points.append(ArmPoint(step=done, cpu_s=round(self.spent, 3), scores=self.score(done)))
        self.since = cpu_seconds()
