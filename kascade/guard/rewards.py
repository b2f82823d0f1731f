"""Graded answers of one model to the tasks of one benchmark: the input of every comparison.

This module, `flips`, `comparison` and `looks` are one small statistics package. It needs numpy and scipy
alone, so that other teams can use it without a run: see docs/guard.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from kascade.errors import KascadeError

Reward = float | None
SHOWN = 5  # tasks that an error names


@dataclass(frozen=True, slots=True)
class TaskRewards:
    """Rewards of one model on one benchmark, by task.

    name: of the benchmark. model: whose answers these are, for messages.
    rewards: per task id one entry a sample, in [0, 1]; None where no grade was given (masked, never zero).
    Entry i of two models is compared as a pair, so both should answer from the same random numbers there.

    Raises KascadeError for a reward that is no number, not finite or outside [0, 1].
    """

    name: str
    model: str
    rewards: Mapping[str, Sequence[Reward]]

    def __post_init__(self) -> None:
        wrong = [
            f"{task}: {reward}"
            for task, rewards in self.rewards.items()
            for reward in _each(rewards)
            if reward is not None and not _is_share(reward)
        ]
        if wrong:
            more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
            raise KascadeError(
                f"benchmark {self.name}: rewards must be finite and in [0, 1], but {self.model} has "
                f"{', '.join(wrong[:SHOWN])}{more}. Declare the range as `reward_range`, or fix the grader"
            )

    @property
    def num_samples(self) -> int:
        """Samples that every task has, graded or not."""
        return min(map(len, self.rewards.values()), default=0)

    @property
    def missing(self) -> float:
        """The share of answers without a grade; 1 where there are no answers."""
        every = [reward for rewards in self.rewards.values() for reward in rewards]
        return sum(reward is None for reward in every) / len(every) if every else 1.0

    def first(self, samples: int) -> TaskRewards:
        """The same with the first `samples` answers of each task."""
        cut = {task: rewards[:samples] for task, rewards in self.rewards.items()}
        return TaskRewards(self.name, self.model, cut)

    def task_means(self) -> dict[str, float]:
        """Mean reward of each task over its graded answers; tasks with none are left out."""
        graded = {task: [r for r in rewards if r is not None] for task, rewards in self.rewards.items()}
        return {task: float(np.mean(rewards)) for task, rewards in graded.items() if rewards}

    def bounds(self) -> tuple[float, float]:
        """The mean over tasks if every missing grade were 0, and if every one were 1."""
        low = [np.mean([r or 0.0 for r in rewards]) for rewards in self.rewards.values() if rewards]
        high = [np.mean([1.0 if r is None else r for r in s]) for s in self.rewards.values() if s]
        return (float(np.mean(low)), float(np.mean(high))) if low else (0.0, 1.0)


def _each(rewards: object) -> Iterable[object]:
    """A task's rewards, one by one; where there is no list of them, what an error says of it."""
    if isinstance(rewards, (Sequence, np.ndarray)) and not isinstance(rewards, str):
        return rewards
    return (f"{rewards!r} is no list",)


def _is_share(reward: object) -> bool:
    number = float(reward) if isinstance(reward, (Real, np.bool_)) else math.nan
    return math.isfinite(number) and 0 <= number <= 1
