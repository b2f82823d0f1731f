"""Unit tests of a program: inputs go into the sandbox, outputs come back, and we compare them here.

Expected outputs never enter the sandbox, so there is nothing in it that a program could tamper with.
Format and comparison follow LiveCodeBench's executor, which NeMo-Gym's `code_gen` runs.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from kascade.environments.options import Options
from kascade.sandbox.programs import Execution, Limits, Result, shared_sandbox

# The kernel counts the CPU seconds of a limit; the wall clock only ends programs that sleep, and is
# ample, so that a busy machine does not turn a right answer into a wrong one.
WALL_PER_CPU, MIN_WALL_SECONDS = 3.0, 10.0


MIB = 1024**2
NUMBERS = (int, float, Decimal)


class ProgramOptions(Options):
    """How programs are run: options of a data source; fields of a row's own `unit_tests` go first."""

    time_limit_secs: PositiveInt = Field(Limits().cpu_seconds, description="CPU time of a test [NeMo-Gym]")
    memory_limit_mb: PositiveInt = Field(Limits().memory_bytes // MIB, description="of a test, MiB")
    float_tolerance: float = Field(0.0, ge=0, lt=1, description="of numbers, absolutely or in proportion")
    compile_seconds: PositiveInt = Field(60, description="CPU time of a compilation")
    compile_wall_seconds: PositiveFloat = Field(
        120.0, description="of a compilation, however busy the machine"
    )
    compile_memory_mb: PositiveInt = Field(2048, description="of a compilation, MiB")

    @property
    def limits(self) -> Limits:
        """Of one test."""
        wall = max(WALL_PER_CPU * self.time_limit_secs, MIN_WALL_SECONDS)
        seconds, memory = self.time_limit_secs, self.memory_limit_mb * MIB
        return replace(Limits(), cpu_seconds=seconds, wall_seconds=wall, memory_bytes=memory)


@dataclass(frozen=True, slots=True)
class UnitTests:
    """Inputs and outputs of a program: standard input and output, or calls when `fn_name` is given.

    A call's input holds one JSON argument a line; its output is the JSON of what is returned.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fn_name: str | None = None
    options: ProgramOptions = field(default_factory=ProgramOptions)

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
        own = {name: value[name] for name in ProgramOptions.names() if value.get(name) is not None}
        inputs, outputs = (tuple(texts[name] or ()) for name in ("inputs", "outputs"))
        return cls(inputs, outputs, fn_name, ProgramOptions.of(own, "unit_tests"))

    def jobs(self, source: str) -> list[Execution]:
        """What to run: one job for all calls, or one a test, since each reads its own standard input."""
        if self.fn_name is None:
            return [Execution(source, stdin=text, limits=self.options.limits) for text in self.inputs]
        return [Execution(source, function=self.fn_name, calls=self.inputs, limits=self.options.limits)]

    def passed(self, results: Sequence[Result]) -> list[bool]:
        """Per test, whether the results of `jobs` hold the expected output; a missing result does not."""
        if self.fn_name is None:
            outputs = [result.stdout if result.finished else None for result in results]
            same = partial(same_text, tolerance=self.options.float_tolerance)
        else:
            outputs = list(results[0].values)
            same = partial(same_value, tolerance=self.options.float_tolerance)
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


def same_value(answer: str, expected: str, tolerance: float = 0.0) -> bool:
    """Whether two JSON texts hold the same value; 1 and 1.0 are the same, 1 and true are not."""
    try:
        return _same(_loaded(answer), _loaded(expected), tolerance)
    except (ValueError, ArithmeticError, RecursionError):  # no JSON, or beyond reason: the program's doing
        return False


def _loaded(text: str) -> Any:
    """Raises ValueError."""
    try:
        return json.loads(text)
    except ValueError:
        if len(text) <= sys.get_int_max_str_digits():
            raise
        return json.loads(text, parse_int=_whole)  # a number of thousands of digits is one, too


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < sys.get_int_max_str_digits() else Decimal(digits)


def same_text(answer: str, expected: str, tolerance: float = 0.0) -> bool:
    """Whether two outputs are the same line by line, white space at the ends and number style aside."""
    ours, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (answer, expected))
    pairs = zip(ours, theirs, strict=False)
    return len(ours) == len(theirs) and all(_same_line(a, b, tolerance) for a, b in pairs)


def _same(ours: Any, theirs: Any, tolerance: float) -> bool:
    if isinstance(ours, list) and isinstance(theirs, list):
        pairs = zip(ours, theirs, strict=False)
        return len(ours) == len(theirs) and all(_same(a, b, tolerance) for a, b in pairs)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_same(ours[key], theirs[key], tolerance) for key in ours)
    if isinstance(ours, bool) != isinstance(theirs, bool):
        return False
    numbers = isinstance(ours, NUMBERS) and isinstance(theirs, NUMBERS)
    return bool(ours == theirs) or (tolerance > 0 and numbers and _near(ours, theirs, tolerance))


def _same_line(ours: str, theirs: str, tolerance: float) -> bool:
    """Words must be the same, or numbers of the same value, within the tolerance where there is one."""
    if ours == theirs:
        return True
    pairs = list(zip(ours.split(), theirs.split(), strict=False))
    if len(ours.split()) != len(theirs.split()):
        return False
    return all(a == b or _same_number(a, b, tolerance) for a, b in pairs) and _numeric(pairs, tolerance)


def _numeric(pairs: Sequence[tuple[str, str]], tolerance: float) -> bool:
    """Without a tolerance a line of numbers is one of numbers only, as LiveCodeBench reads it."""
    return tolerance > 0 or all(_same_number(a, b, tolerance) for a, b in pairs)


def _same_number(ours: str, theirs: str, tolerance: float) -> bool:
    """Decimal also takes 5_ and the digits of every script: another spelling than the one that was asked."""
    if "_" in ours + theirs or not (ours + theirs).isascii():
        return False
    try:
        a, b = Decimal(ours), Decimal(theirs)
        return a == b or (tolerance > 0 and _near(a, b, tolerance))
    except (ValueError, ArithmeticError):  # no number, or none that can be compared, as sNaN
        return False


def _near(ours: float | Decimal, theirs: float | Decimal, tolerance: float) -> bool:
    """Finite numbers within the tolerance; numbers too large for a float are near none but themselves."""
    a, b = float(ours), float(theirs)
    return math.isfinite(a) and math.isfinite(b) and math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


def _check_json(where: str, texts: Sequence[str]) -> None:
    for text in texts:
        try:
            _loaded(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"unit_tests.{where}: {text[:40]!r} is not JSON ({error})") from error
