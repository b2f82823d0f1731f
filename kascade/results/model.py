"""Graded answers of one model to several benchmarks, wherever they were written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kascade.errors import Fault, UserError
from kascade.guard.rewards import TaskRewards


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to one task. reward None: no grade was given. text: what was said, where it was kept."""

    benchmark: str
    task: str
    sample: int
    reward: float | None
    text: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """benchmarks: rewards by benchmark. answers: (benchmark, task) → the answers that were kept."""

    name: str
    benchmarks: Mapping[str, TaskRewards]
    answers: Mapping[tuple[str, str], list[Answer]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, answers: Iterable[Answer]) -> Results:
        """Raises UserError where there are none, or a reward is outside [0, 1]."""
        rewards: dict[str, dict[str, list[tuple[int, float | None]]]] = {}
        kept: dict[tuple[str, str], list[Answer]] = {}
        for one in answers:
            if one.reward is not None and not 0 <= one.reward <= 1:
                where, what = f"{name}, {one.benchmark}, task {one.task}", f"{one.reward!r} is no reward"
                raise UserError(Fault(where, what, "a number from 0 to 1", "name another with --metric"))
            rewards.setdefault(one.benchmark, {}).setdefault(one.task, []).append((one.sample, one.reward))
            if one.text is not None:
                kept.setdefault((one.benchmark, one.task), []).append(one)
        if not rewards:
            raise UserError(Fault(name, "holds no graded answers"))
        benchmarks = {
            benchmark: TaskRewards(
                benchmark,
                name,
                {task: [r for _, r in sorted(own, key=lambda s: s[0])] for task, own in tasks.items()},
            )
            for benchmark, tasks in rewards.items()
        }
        return cls(name, benchmarks, kept)
