"""Graded answers of one model to the tasks of one benchmark: the input of every comparison.

This module, `ranges`, `flips`, `comparison`, `looks` and `share` are one small statistics package. It needs
numpy and scipy alone, so that other teams can use it without a run: see docs/guard.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from kascade.errors import KascadeError
from kascade.guard.ranges import count

Reward = float | None
SHOWN = 5  # tasks that an error names
NO_LISTS = (str, bytes, bytearray, memoryview)  # sequences that hold no rewards: b"1" would read as 49


@dataclass(frozen=True, slots=True)
class TaskRewards:
    """Rewards of one model on one benchmark, by task.

    name: of the benchmark. model: whose answers these are, for messages.
    rewards: per task id one entry a sample, in [0, 1]; None where no grade was given (masked, never zero).
    Entry i of two models is compared as a pair, so both should answer from the same random numbers there.
    Every task was asked as often as the one with the most entries. Entries that a task lacks are missing
    grades, too: what crashed and left no line must not count for less than what says `None`.

    Raises KascadeError for a reward that is no number, not finite or outside [0, 1].
    """

    name: str
    model: str
    rewards: Mapping[str, Sequence[Reward]]

    def __post_init__(self) -> None:
        if not isinstance(self.rewards, Mapping):
            raise KascadeError(f"benchmark {self.name}: rewards of {self.model} are no mapping of tasks")
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
    def num_asked(self) -> int:
        """Answers that each task was asked for: those of the task with the most, at least one."""
        return max(1, max(map(len, self.rewards.values()), default=0))

    @property
    def missing(self) -> float:
        """The share of answers without a grade; 1 where there are no tasks."""
        return missing_share(self.rewards)

    def first(self, samples: int) -> TaskRewards:
        """The same with the first `samples` answers of each task. Raises KascadeError for fewer than one."""
        cut = {task: rewards[: count("samples", samples)] for task, rewards in self.rewards.items()}
        return TaskRewards(self.name, self.model, cut)

    def with_tasks(self, other: TaskRewards) -> TaskRewards:
        """The same, where the tasks that only `other` has are there without an answer."""
        absent: dict[str, Sequence[Reward]] = {task: () for task in other.rewards if task not in self.rewards}
        return TaskRewards(self.name, self.model, {**self.rewards, **absent})

    def task_means(self) -> dict[str, float]:
        """Mean reward of each task over its graded answers; tasks with none are left out."""
        graded = {task: [r for r in rewards if r is not None] for task, rewards in self.rewards.items()}
        return {task: float(np.mean(rewards)) for task, rewards in graded.items() if rewards}

    def lacks(self, task: str, samples: int) -> NDArray[np.int64]:
        """1 for each of a task's first `samples` answers that has no grade, else 0, [samples]."""
        rewards = self.rewards[task]
        return np.array([int(i >= len(rewards) or rewards[i] is None) for i in range(samples)])

    def bounds(self) -> tuple[float, float]:
        """The mean over tasks if every missing grade were 0, and if every one were 1; 0 and 1 without
        tasks."""
        if not self.rewards:
            return 0.0, 1.0
        asked = self.num_asked
        lacking = [asked - sum(r is not None for r in rewards) for rewards in self.rewards.values()]
        low = [sum(r or 0.0 for r in rewards) for rewards in self.rewards.values()]
        high = np.add(low, lacking)
        return float(np.mean(low) / asked), float(np.mean(high) / asked)


def missing_share(rewards: Mapping[str, Sequence[Reward]]) -> float:
    """The share of answers without a grade, as `TaskRewards.missing`."""
    asked = max(1, max(map(len, rewards.values()), default=0)) * len(rewards)
    graded = sum(reward is not None for of_task in rewards.values() for reward in of_task)
    return (asked - graded) / asked if asked else 1.0


def _each(rewards: object) -> Iterable[object]:
    """A task's rewards, one by one; where there is no list of them, what an error says of it."""
    if isinstance(rewards, (Sequence, np.ndarray)) and not isinstance(rewards, NO_LISTS):
        return rewards
    return (f"{rewards!r} is no list",)


def _is_share(reward: object) -> bool:
    number = float(reward) if isinstance(reward, (Real, np.bool_)) else math.nan
    return math.isfinite(number) and 0 <= number <= 1
