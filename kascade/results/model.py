"""Graded answers of one model to several benchmarks, wherever they were written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kascade.errors import Fault, UserError
from kascade.guard.rewards import TaskRewards

TWICE = "every sample of a task once"
TWICE_REMEDY = "give each line its own `sample`, or name one file"


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
        """Raises UserError where there are none, a sample is there twice, or a reward is outside [0, 1]."""
        rewards: dict[str, dict[str, list[float | None]]] = {}
        kept: dict[tuple[str, str], list[Answer]] = {}
        for (benchmark, task), own in by_task(answers, name).items():
            for one in own:
                if one.reward is not None and not 0 <= one.reward <= 1:
                    where, what = f"{name}, {benchmark}, task {task}", f"{one.reward!r} is no reward"
                    raise UserError(Fault(where, what, "a number from 0 to 1", "name another with --metric"))
            rewards.setdefault(benchmark, {})[task] = [one.reward for one in own]
            if said := [one for one in own if one.text is not None]:
                kept[benchmark, task] = said
        if not rewards:
            raise UserError(Fault(name, "holds no graded answers"))
        benchmarks = {benchmark: TaskRewards(benchmark, name, tasks) for benchmark, tasks in rewards.items()}
        return cls(name, benchmarks, kept)


def by_task(answers: Iterable[Answer], name: str) -> dict[tuple[str, str], list[Answer]]:
    """The answers of each (benchmark, task) in order of their samples. name: of what holds them.

    Raises UserError for a sample that is there twice: it would count twice.
    """
    found: dict[tuple[str, str], dict[int, Answer]] = {}
    for one in answers:
        samples = found.setdefault((one.benchmark, one.task), {})
        if one.sample in samples:
            where = f"{name}, {one.benchmark}, task {one.task}"
            raise UserError(Fault(where, f"sample {one.sample} is there twice", TWICE, TWICE_REMEDY))
        samples[one.sample] = one
    return {key: [own[sample] for sample in sorted(own)] for key, own in found.items()}
