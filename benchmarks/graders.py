"""Answers graded per CPU second in each environment: to each task its reference, another's, and none."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measure import Measurement, median_cpu_time
from kascade.environments import BUILTIN, get_environment
from kascade.environments.base import Task, generate_tasks


def run(quick: bool) -> list[Measurement]:
    count, rounds = (16, 1) if quick else (100, 5)
    return [measure(name, count, rounds) for name in BUILTIN]


def measure(name: str, count: int, rounds: int) -> Measurement:
    environment = get_environment(name)
    groups = answered(generate_tasks(environment, split="test", count=count, seed=0))
    seconds = median_cpu_time(lambda: environment.grade_all(groups), rounds)
    return Measurement(f"grader, {name}", 3 * count / seconds, "answers / CPU s")


def answered(tasks: Sequence[Task]) -> list[tuple[Task, list[str]]]:
    references = [str(task.reference) for task in tasks]
    others = references[1:] + references[:1]
    return [(task, [own, other, ""]) for task, own, other in zip(tasks, references, others, strict=True)]
