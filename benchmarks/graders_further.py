"""Graders beyond the quickstart's, in answers per CPU second: tools, dialogues, repairs, judges, long texts.

A judge that answers from memory stands for the endpoint, so that what is measured is ours: prompts, fences,
verdicts read. The longest common stretch of two texts is compared with difflib's search for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher

from benchmarks.graders import measure
from benchmarks.measure import Measurement, compare, median_cpu_time
from kascade.environments import get_environment
from kascade.environments.base import Environment
from kascade.environments.judging.equality import EQUAL
from kascade.environments.judging.judge import Conversation, use_judge
from kascade.environments.long_context.copying import longest_common
from kascade.environments.math.python_session import PythonSession
from kascade.task import Task

GENERATED = (
    "bfcl",
    "single_step_tool_use_with_argument_comparison",
    "workplace_dialogues",
    "tool_dialogues",
    "ruler",
    "reasoning_gym",
    "ns_tools",
    "math_with_code",
    "swerl_llm_judge",
)


class FromMemory:
    """A judge that finds everything equal at once."""

    concurrency = 1

    def ask(self, conversation: Conversation, *, draw: int = 0) -> str:
        return EQUAL


def run(quick: bool) -> list[Measurement]:
    count, rounds = (8, 1) if quick else (50, 3)
    return [
        *(measure(name, count, rounds) for name in GENERATED),
        measure("swe_agents", 1 if quick else 4, rounds),
        lexical(count, rounds),
        judged("equivalence_llm_judge", count, rounds),
        judged("lc_judge", count, rounds),
        judged("math_with_judge", count, rounds),
        overlap(quick),
        cells(quick),
    ]


def lexical(count: int, rounds: int) -> Measurement:
    """Repairs by likeness to the gold patch, which run nothing."""
    environment = get_environment("swerl_gen").with_options({"reward": "lexical"})
    groups = [(task, [str(task.reference), ""]) for task in _posed(environment, count)]
    seconds = median_cpu_time(lambda: environment.grade_all(groups), rounds)
    return Measurement("grader, swerl_gen by likeness", 2 * count / seconds, "answers / CPU s")


def _posed(environment: Environment, count: int) -> Sequence[Task]:
    return [environment.pose(random.Random(seed), 1.0) for seed in range(count)]


def judged(name: str, count: int, rounds: int) -> Measurement:
    """Answers in words, which only a judge can find equal; each is asked about in both orders."""
    environment = get_environment(name)
    row = {"responses_create_params": {"input": "Which?"}, "expected_answer": r"\text{a red rose}"}
    groups = [(environment.from_row(row), [rf"\boxed{{\text{{rose number {n}}}}}" for n in range(count)])]
    with from_memory():
        seconds = median_cpu_time(lambda: environment.grade_all(groups), rounds)
    return Measurement(f"grader, {name} with a judge", count / seconds, "answers / CPU s")


@contextmanager
def from_memory() -> Iterator[None]:
    use_judge(FromMemory())
    try:
        yield
    finally:
        use_judge(None)


def overlap(quick: bool) -> Measurement:
    """What of a reasoning of 2,000 characters is copied from a context of 40,000."""
    rng = random.Random(0)
    context = "".join(rng.choice("0123456789abcdef ->\n") for _ in range(40_000))
    reasoning = context[500:900] + "".join(rng.choice("0123456789abcdef") for _ in range(1_600))

    def difflib() -> None:
        SequenceMatcher(None, reasoning, context, autojunk=False).find_longest_match()

    own, other = compare(lambda: longest_common(reasoning, context), difflib, 1 if quick else 3)
    return Measurement("lc_niah, longest copied stretch", 1 / own, "answers / CPU s", 1 / other, "difflib")


def cells(quick: bool) -> Measurement:
    """Cells of one stateful Python session, start and end of the session included."""
    count, rounds = (10, 1) if quick else (100, 3)

    def session() -> None:
        python = PythonSession(cell_seconds=60, session_seconds=600, memory_mb=2048, output_chars=20_000)
        for number in range(count):
            python.run(f"x = {number}\nsum(range(x))")
        python.close()

    seconds = median_cpu_time(session, rounds)
    return Measurement("sandbox, cells of one Python session", count / seconds, "cells / CPU s")
