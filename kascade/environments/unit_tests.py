"""Unit tests of a program: inputs go into the sandbox, outputs come back, and we compare them here.

Expected outputs never enter the sandbox, so there is nothing in it that a program could tamper with.
Format and comparison follow LiveCodeBench's executor, which NeMo-Gym's `code_gen` runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from kascade.environments.sandbox import Job, Limits, Result, shared_sandbox

# The kernel counts the CPU seconds of a limit; the wall clock only ends programs that sleep, and is
# ample, so that a busy machine does not turn a right answer into a wrong one.
WALL_PER_CPU, MIN_WALL_SECONDS = 3.0, 10.0


@dataclass(frozen=True, slots=True)
class UnitTests:
    """Inputs and outputs of a program: standard input and output, or calls when `fn_name` is given.

    A call's input holds one JSON argument a line; its output is the JSON of what is returned.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fn_name: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ValueError("unit_tests.inputs: at least one test is needed")
        if len(self.inputs) != len(self.outputs):
            raise ValueError(
                f"unit_tests: {len(self.inputs)} inputs, but {len(self.outputs)} outputs; one of each a test"
            )
        if self.fn_name is not None:
            _check_json("inputs", [line for text in self.inputs if text for line in text.split("\n")])
            _check_json("outputs", self.outputs)

    @classmethod
    def parse(cls, value: Any) -> UnitTests:
        """The field `unit_tests` of a row. Raises ValueError naming what is wrong."""
        if not isinstance(value, Mapping):
            raise ValueError("unit_tests: missing; an object with lists `inputs` and `outputs` is needed")
        texts = {name: value.get(name) for name in ("inputs", "outputs")}
        for name, given in texts.items():
            if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
                raise ValueError(f"unit_tests.{name}: a list of texts is needed")
        fn_name = value.get("fn_name")
        if fn_name is not None and not isinstance(fn_name, str):
            raise ValueError("unit_tests.fn_name: the name of a function, or nothing for stdin and stdout")
        limits = _limits(value.get("time_limit_secs"))
        return cls(tuple(texts["inputs"] or ()), tuple(texts["outputs"] or ()), fn_name, limits)

    def jobs(self, source: str) -> list[Job]:
        """What to run: one job for all calls, or one a test, since each reads its own standard input."""
        if self.fn_name is None:
            return [Job(source, stdin=text, limits=self.limits) for text in self.inputs]
        return [Job(source, function=self.fn_name, calls=self.inputs, limits=self.limits)]

    def passed(self, results: Sequence[Result]) -> list[bool]:
        """Per test, whether the results of `jobs` hold the expected output; a missing result does not."""
        if self.fn_name is None:
            outputs = [result.stdout if result.finished else None for result in results]
            same = same_text
        else:
            outputs = list(results[0].values)
            same = same_value
        outputs += [None] * (len(self.outputs) - len(outputs))
        return [
            output is not None and same(output, expected)
            for output, expected in zip(outputs, self.outputs, strict=True)
        ]


def run_tests(programs: Sequence[tuple[str, UnitTests]]) -> list[list[bool] | str]:
    """For each program, which of its tests pass; a text says why the sandbox could not tell.

    Equal programs with equal tests run once, and a program that timed out fails its remaining tests.
    """
    jobs = {pair: pair[1].jobs(pair[0]) for pair in programs}
    results = {pair: list[Result]() for pair in jobs}
    left, size = list(jobs), 1
    while left:
        batch = [(pair, job) for pair in left for job in jobs[pair][len(results[pair]) :][:size]]
        ran = shared_sandbox().run_many([job for _, job in batch])
        for (pair, _), result in zip(batch, ran, strict=True):
            results[pair].append(result)
        left = [pair for pair in left if _worth_going_on(results[pair], len(jobs[pair]))]
        size *= 2  # few tests first, so that a program that hangs costs little
    errors = {pair: next((r.error for r in all_ran if r.error), None) for pair, all_ran in results.items()}
    return [errors[pair] or pair[1].passed(results[pair]) for pair in programs]


def _worth_going_on(results: list[Result], total: int) -> bool:
    return len(results) < total and not any(result.timed_out or result.error for result in results)


def same_value(answer: str, expected: str) -> bool:
    """Whether two JSON texts hold the same value; 1 and 1.0 are the same, 1 and true are not."""
    try:
        return _same(json.loads(answer), json.loads(expected))
    except (ValueError, RecursionError):  # not JSON, or nested beyond reason: the program's doing
        return False


def same_text(answer: str, expected: str) -> bool:
    """Whether two outputs are the same line by line, white space at the ends and number style aside."""
    ours, theirs = ([line.strip() for line in text.strip().splitlines()] for text in (answer, expected))
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_same(ours[key], theirs[key]) for key in ours)
    return isinstance(ours, bool) == isinstance(theirs, bool) and bool(ours == theirs)


def _same_line(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    try:
        return [Decimal(word) for word in ours.split()] == [Decimal(word) for word in theirs.split()]
    except InvalidOperation:
        return False


def _limits(seconds: Any) -> Limits:
    if seconds is None:
        return Limits()
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 1:
        raise ValueError(f"unit_tests.time_limit_secs: {seconds!r} is not a whole number of CPU seconds")
    return Limits(cpu_seconds=seconds, wall_seconds=max(WALL_PER_CPU * seconds, MIN_WALL_SECONDS))


def _check_json(where: str, texts: Sequence[str]) -> None:
    for text in texts:
        try:
            json.loads(text)
        except ValueError as error:
            raise ValueError(f"unit_tests.{where}: {text[:40]!r} is not JSON ({error})") from error
