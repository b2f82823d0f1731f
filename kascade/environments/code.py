"""Code generation: an answer is a Python program, and only passing every hidden test is worth anything."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kascade.environments.base import Environment, Grade, Task, final_answer
from kascade.environments.programs import (
    Expression,
    Program,
    behaviour,
    candidate_inputs,
    random_condition,
    random_fold,
    random_pair,
    random_step,
    slips,
    telling_inputs,
)
from kascade.environments.rows import row_messages, verifier_fields
from kascade.environments.unit_tests import UnitTests, run_tests

PHRASINGS = (
    "Write {signature}: {intent}.",
    "Define {signature}. It should {intent}.",
    "Write a function {signature} to {intent}.",
    "Python {signature}: {intent}.",
)
NUM_TESTS = 5
TIME_LIMIT_SECONDS = 1
FENCE = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE)


def _returning(name: str, params: tuple[str, ...], intent: str, expression: str) -> Program:
    return Program(name, params, intent, (f"return {expression}",))


def _one_step(rng: random.Random, name: str) -> Program:
    x, step = rng.choice("xnk"), random_step(rng)
    return _returning(name, (x,), step.words(x), step.apply(Expression(x)).text)


def _pair(rng: random.Random, name: str) -> Program:
    words, value = random_pair(rng, *(params := rng.choice((("a", "b"), ("x", "y"), ("m", "n")))))
    step = random_step(rng)
    return _returning(name, params, f"{words}, then {step.on_it}", step.apply(value).text)


def _two_steps(rng: random.Random, name: str) -> Program:
    x, first, second = rng.choice("xnk"), random_step(rng), random_step(rng)
    return _returning(
        name, (x,), f"{first.words(x)}, then {second.on_it}", second.apply(first.apply(Expression(x))).text
    )


def _fold(rng: random.Random, name: str) -> Program:
    words, _, value = random_fold(rng, xs := rng.choice(("xs", "ns")))
    step = random_step(rng)
    return _returning(name, (xs,), f"{words}, then {step.on_it}", step.apply(value).text)


def _each(rng: random.Random, name: str) -> Program:
    xs, step = rng.choice(("xs", "ns")), random_step(rng)
    return _returning(
        name, (xs,), step.words(f"each of {xs}"), f"[{step.apply(Expression('v')).text} for v in {xs}]"
    )


def _keep(rng: random.Random, name: str) -> Program:
    xs, condition, step = rng.choice(("xs", "ns")), random_condition(rng), random_step(rng)
    kept = f"for v in {xs} if {condition.of('v')}"
    words, expression = rng.choice(
        (
            (f"keep each of {xs} {condition.words}", f"[v {kept}]"),
            (f"sum each of {xs} {condition.words}", f"sum(v {kept})"),
            (step.words(f"each of {xs} {condition.words}"), f"[{step.apply(Expression('v')).text} {kept}]"),
        )
    )
    return _returning(name, (xs,), words, expression)


def _choose(rng: random.Random, name: str) -> Program:
    x, condition, yes, no = rng.choice("xnk"), random_condition(rng), random_step(rng), random_step(rng)
    return _returning(
        name,
        (x,),
        f"{yes.words(x)} if {x} is {condition.words}, else {no.on_it}",
        f"{yes.apply(Expression(x)).text} if {condition.of(x)} else {no.apply(Expression(x)).text}",
    )


KINDS: tuple[Callable[[random.Random, str], Program], ...] = (
    _one_step,
    _pair,
    _two_steps,
    _fold,
    _each,
    _keep,
    _choose,
)


def extract_program(answer: str) -> str:
    """The last fenced block after the thinking; the whole text when nothing is fenced."""
    text = final_answer(answer)
    blocks: list[str] = FENCE.findall(text)
    return (blocks[-1] if blocks else text).strip("\n")


class CodeGeneration(Environment):
    """Programs judged by hidden tests: function calls or standard input and output."""

    name = "code_gen"
    domain = "code"

    def pose(self, rng: random.Random, level: float) -> Task:
        """A one-line function in words; `level` widens the kinds, from one operation to conditionals."""
        kind = rng.choice(KINDS[: 2 + round(level * (len(KINDS) - 2))])
        program = kind(rng, rng.choice("fgh"))
        pool = candidate_inputs(rng, program)
        outputs = behaviour(program, pool)
        chosen = telling_inputs(outputs, [behaviour(slip, pool) for slip in slips(program)], NUM_TESTS)
        unit_tests = {
            "fn_name": program.name,
            "time_limit_secs": TIME_LIMIT_SECONDS,
            "inputs": ["\n".join(map(json.dumps, pool[i])) for i in chosen],
            "outputs": [json.dumps(outputs[i]) for i in chosen],
        }
        prompt = rng.choice(PHRASINGS).format(signature=program.signature, intent=program.intent)
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=({"role": "user", "content": prompt},),
            fields={"verifier_metadata": {"unit_tests": unit_tests}},
            reference=program.source,
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return self.grade_all([(task, answers)])[0]

    def grade_all(self, groups: Sequence[tuple[Task, Sequence[str]]]) -> list[list[Grade]]:
        """1 when every test passes, else 0; the component `tests_passed` is the share that does."""
        suites: list[UnitTests | str] = [_unit_tests(task) for task, _ in groups]
        programs = [
            (program, suite)
            for suite, (_, answers) in zip(suites, groups, strict=True)
            if isinstance(suite, UnitTests)
            for program in map(extract_program, answers)
            if program
        ]
        verdicts = dict(zip(programs, run_tests(programs), strict=True))
        return [
            [
                Grade.failed(suite)
                if isinstance(suite, str)
                else _grade(extract_program(answer), suite, verdicts)
                for answer in answers
            ]
            for suite, (_, answers) in zip(suites, groups, strict=True)
        ]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        """A row with `verifier_metadata.unit_tests`, or with `unit_tests` at top level."""
        fields = verifier_fields(row)
        UnitTests.parse(fields.get("unit_tests"))
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=row_messages(row),
            fields={"verifier_metadata": {"unit_tests": fields["unit_tests"]}},
        )


def _unit_tests(task: Task) -> UnitTests | str:
    """The tests of a task, or why there are none."""
    try:
        return UnitTests.parse(task.fields["verifier_metadata"]["unit_tests"])
    except (KeyError, TypeError, ValueError) as error:
        return f"task {task.id} has no tests to run: {error}"


def _grade(
    program: str, suite: UnitTests, verdicts: Mapping[tuple[str, UnitTests], list[bool] | str]
) -> Grade:
    if not program:
        return Grade(0.0, {"tests_passed": 0.0})
    passed = verdicts[program, suite]
    if isinstance(passed, str):
        return Grade.failed(passed)
    return Grade(float(all(passed)), {"tests_passed": sum(passed) / len(passed)})
