"""Which tasks when: by how often the policy solves them, from easier to harder as training continues.

Each task's pass rate is measured once. Tasks that are always solved teach nothing and are left out; those
never solved come back now and then. The others are drawn so that the pass rates of a batch follow a
Gaussian whose mean falls over training. [N3 §3.2.2; LN §5.1]

[N3] Nemotron 3 Nano (arXiv 2512.20848), [LN] Llama-Nemotron (arXiv 2505.00949).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kascade.recipe.schema import Curriculum
from kascade.task import Task


class CurriculumPool:
    """Draws the tasks of a step. What it gives depends on (seed, step) only, whatever was drawn before.

    Every source has the same share of every batch. The plan of all steps is made in order and kept, so a
    resumed run draws what an uninterrupted one would have drawn.
    """

    def __init__(  # noqa: PLR0917 - a plan's determinants
        self,
        sources: Sequence[Sequence[Task]],
        weights: Sequence[float],
        rates: Mapping[str, float],
        rule: Curriculum,
        num_steps: int,
        seed: int,
    ) -> None:
        """sources: tasks of each source. rates: pass rate by task id; tasks not in it are left out.

        num_steps: over how many steps the target falls. Raises ValueError when a source has no task left.
        """
        self._shares = [weight / sum(weights) for weight in weights]
        self._plans = [
            SourcePlan([task for task in tasks if task.id in rates], rates, rule, f"{seed}/{number}")
            for number, tasks in enumerate(sources)
        ]
        self._rule, self._num_steps = rule, num_steps
        self._given = [0] * len(sources)
        self._steps: list[list[Task]] = []

    def draw(self, step: int, count: int) -> list[Task]:
        """The tasks of one step. Raises ValueError when `count` is not that of earlier calls."""
        if self._steps and len(self._steps[0]) != count:
            raise ValueError(f"every step draws {len(self._steps[0])} tasks, not {count}")
        while len(self._steps) <= step:
            mean = target_mean(self._rule, len(self._steps), self._num_steps)
            counts = self._counts(count)
            self._steps.append(
                [task for plan, n in zip(self._plans, counts, strict=True) for task in plan.take(n, mean)]
            )
        return self._steps[step]

    def _counts(self, count: int) -> list[int]:
        """How many tasks each source gives to the next step: its share, what rounding took made up later."""
        due = [
            share * count * (len(self._steps) + 1) - given
            for share, given in zip(self._shares, self._given, strict=True)
        ]
        counts = apportion([max(0.0, one) for one in due], count)
        self._given = [given + n for given, n in zip(self._given, counts, strict=True)]
        return counts


class SourcePlan:
    """Tasks of one source in bins of pass rate, each gone through in a new random order every epoch."""

    def __init__(
        self, tasks: Sequence[Task], rates: Mapping[str, float], rule: Curriculum, seed: str
    ) -> None:
        """Raises ValueError when no task teaches anything."""
        self._rule, self._seed, self._epoch = rule, seed, 0
        self._unsolved = [task for task in tasks if rates[task.id] == 0]
        self._bins: list[list[Task]] = [[] for _ in range(rule.bins)]
        for task in tasks:
            if 0 < rates[task.id] < rule.drop_from:
                self._bins[min(int(rates[task.id] * rule.bins), rule.bins - 1)].append(task)
        if not any(self._bins) and not (self._unsolved and rule.unsolved_odds):
            raise ValueError("no task is left: all are always or never solved")
        self._left: list[list[Task]] = [[] for _ in self._bins]

    def take(self, count: int, mean: float) -> list[Task]:
        """`count` tasks whose pass rates follow the target around `mean`, as far as there are such."""
        taken: list[Task] = []
        while len(taken) < count:
            while not any(self._left):
                self._refill()
            taken += self._take_some(count - len(taken), mean)
        return taken

    def _take_some(self, count: int, mean: float) -> list[Task]:
        """Each bin's target number, or what it has; then from the fullest bins; fewer when all are empty."""
        middles = [(number + 0.5) / len(self._left) for number in range(len(self._left))]
        weights = [math.exp(-0.5 * ((middle - mean) / self._rule.width) ** 2) for middle in middles]
        taken: list[Task] = []
        for tasks, wanted in zip(self._left, apportion(weights, count), strict=True):
            start = max(0, len(tasks) - wanted)
            taken += tasks[start:]
            del tasks[start:]
        while len(taken) < count and any(self._left):
            taken.append(max(self._left, key=len).pop())
        random.Random(f"{self._seed}/order/{len(taken)}/{taken[0].id}").shuffle(taken)
        return taken

    def _refill(self) -> None:
        """Begin an epoch: all tasks anew, those never solved each with the rule's odds."""
        rng = random.Random(f"{self._seed}/{self._epoch}")
        self._epoch += 1
        self._left = [rng.sample(tasks, len(tasks)) for tasks in self._bins]
        readmitted = [task for task in self._unsolved if rng.random() < self._rule.unsolved_odds]
        self._left[0] = rng.sample(self._left[0] + readmitted, len(self._left[0]) + len(readmitted))


@dataclass(frozen=True, slots=True)
class PoolSummary:
    """How many tasks a profile found always solved, never solved, and in between."""

    always: int
    never: int
    between: int


def summarise(rates: Mapping[str, float], rule: Curriculum) -> PoolSummary:
    """Count by what the rule makes of a task."""
    always = sum(rate >= rule.drop_from for rate in rates.values())
    never = sum(rate == 0 for rate in rates.values())
    return PoolSummary(always, never, len(rates) - always - never)


def target_mean(rule: Curriculum, step: int, num_steps: int) -> float:
    """Mean of the target pass rates at a step: linear from the first to the last."""
    done = step / (num_steps - 1) if num_steps > 1 else 0.0
    return rule.first_mean + (rule.last_mean - rule.first_mean) * min(done, 1.0)


def apportion(weights: Sequence[float], count: int) -> list[int]:
    """Whole numbers in proportion to the weights that sum to `count` (largest remainder)."""
    total = sum(weights)
    exact = [count * weight / total for weight in weights]
    whole = [math.floor(one) for one in exact]
    largest = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in largest[: count - sum(whole)]:
        whole[i] += 1
    return whole
