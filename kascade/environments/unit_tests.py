"""Unit tests of a program: inputs go into the sandbox, outputs come back, and we compare them here.

Expected outputs never enter the sandbox, so there is nothing in it that a program could tamper with.
Format and comparison follow LiveCodeBench's executor, which NeMo-Gym's `code_gen` runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from kascade.environments.sandbox import Job, Result, shared_sandbox


@dataclass(frozen=True, slots=True)
class UnitTests:
    """Inputs and outputs of a program: standard input and output, or calls when `fn_name` is given.

    A call's input holds one JSON argument a line; its output is the JSON of what is returned.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fn_name: str | None = None

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ValueError("unit_tests.inputs: at least one test is needed")
        if len(self.inputs) != len(self.outputs):
            raise ValueError(
                f"unit_tests: {len(self.inputs)} inputs, but {len(self.outputs)} outputs; give one of each a test"
            )
        if self.fn_name is not None:
            for field, texts in (("inputs", self.inputs), ("outputs", self.outputs)):
                _check_json(field, texts)

    @classmethod
    def parse(cls, value: Any) -> UnitTests:
        """The field `unit_tests` of a row. Raises ValueError naming what is wrong."""
        if not isinstance(value, Mapping):
            raise ValueError("unit_tests: missing; an object with lists `inputs` and `outputs` is needed")
        texts = {field: value.get(field) for field in ("inputs", "outputs")}
        for field, given in texts.items():
            if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
                raise ValueError(f"unit_tests.{field}: a list of texts is needed")
        fn_name = value.get("fn_name")
        if fn_name is not None and not isinstance(fn_name, str):
            raise ValueError("unit_tests.fn_name: the name of a function, or nothing for stdin and stdout")
        return cls(tuple(texts["inputs"] or ()), tuple(texts["outputs"] or ()), fn_name)

    def jobs(self, source: str) -> list[Job]:
        """What to run: one job for all calls, or one a test, since each reads its own standard input."""
        if self.fn_name is None:
            return [Job(source, stdin=text) for text in self.inputs]
        return [Job(source, function=self.fn_name, calls=self.inputs)]

    def passed(self, results: Sequence[Result]) -> list[bool]:
        """Per test, whether the outputs of `jobs` are the expected ones."""
        if self.fn_name is None:
            return [
                result.finished and same_text(result.stdout, expected)
                for result, expected in zip(results, self.outputs, strict=True)
            ]
        values = results[0].values
        answers = [*values, *[None] * (len(self.outputs) - len(values))]
        return [
            answer is not None and same_value(answer, expected)
            for answer, expected in zip(answers, self.outputs, strict=True)
        ]


def run_tests(programs: Sequence[tuple[str, UnitTests]]) -> list[list[bool] | str]:
    """For each program, which of its tests pass; a text says why the sandbox could not tell.

    All run in one sandbox call, and equal programs with equal tests run once.
    """
    jobs = {pair: pair[1].jobs(pair[0]) for pair in programs}
    unique = list(dict.fromkeys(job for batch in jobs.values() for job in batch))
    results = dict(zip(unique, shared_sandbox().run_many(unique), strict=True)) if unique else {}
    verdicts: dict[tuple[str, UnitTests], list[bool] | str] = {}
    for pair, batch in jobs.items():
        ran = [results[job] for job in batch]
        error = next((result.error for result in ran if result.error), None)
        verdicts[pair] = error or pair[1].passed(ran)
    return [verdicts[pair] for pair in programs]


def same_value(answer: str, expected: str) -> bool:
    """Whether two JSON texts hold the same value; 1 and 1.0 are the same, 1 and true are not."""
    try:
        return _same(json.loads(answer), json.loads(expected))
    except (ValueError, RecursionError):  # not JSON, or nested beyond reason: the program's doing
        return False


def same_text(answer: str, expected: str) -> bool:
    """Whether two outputs are the same line by line; white space at line ends and number style do not count."""
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


def _check_json(field: str, texts: Sequence[str]) -> None:
    for index, text in enumerate(texts):
        for line in text.split("\n") if field == "inputs" and text else [text] if text else []:
            try:
                json.loads(line)
            except ValueError as error:
                raise ValueError(f"unit_tests.{field}[{index}]: not JSON ({error})") from error
