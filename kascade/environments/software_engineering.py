"""Software engineering without an agent: an answer is SEARCH/REPLACE edits, judged by running tests."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kascade.environments.base import Environment, Grade, Task, final_answer
from kascade.environments.edits import Edit, EditError, apply_edits, parse_edits
from kascade.environments.programs import (
    Arguments,
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
from kascade.environments.programs import Expression as E
from kascade.environments.rows import row_messages
from kascade.environments.unit_tests import UnitTests, run_tests

PHRASINGS = (
    "Fix {name}. It should {intent}, but {call} gives {wrong}, not {right}.",
    "{name} should {intent}. {call} gives {wrong}, not {right}. Fix it.",
    "Bug: {call} gives {wrong}, not {right}. {name} should {intent}.",
    "{call} should give {right}, not {wrong}. Fix {name} to {intent}.",
)
NUM_FAILING, NUM_PASSING = 4, 2
MODES = ("eval", "repro-gen")


def _two_steps(rng: random.Random, name: str) -> Program:
    first, second = random_step(rng), random_step(rng)
    body = (f"y = {first.apply(E('x')).text}", f"return {second.apply(E('y')).text}")
    return Program(name, ("x",), f"{first.words('x')}, then {second.on_it}", body)


def _pair(rng: random.Random, name: str) -> Program:
    words, value = random_pair(rng, "a", "b")
    step = random_step(rng)
    body = (f"c = {value.text}", f"return {step.apply(E('c')).text}")
    return Program(name, ("a", "b"), f"{words}, then {step.on_it}", body)


def _branch(rng: random.Random, name: str) -> Program:
    condition, yes, no = random_condition(rng), random_step(rng), random_step(rng)
    negation = rng.choice(("", "not "))
    body = (
        f"if {negation}{condition.of('x')}:",
        f"    return {yes.apply(E('x')).text}",
        f"return {no.apply(E('x')).text}",
    )
    intent = f"{yes.words('x')} if x is {negation}{condition.words}, else {no.on_it}"
    return Program(name, ("x",), intent, body)


def _each_then_fold(rng: random.Random, name: str) -> Program:
    step, (_, words, value) = random_step(rng), random_fold(rng, "ys")
    body = (f"ys = [{step.apply(E('v')).text} for v in xs]", f"return {value.text}")
    return Program(name, ("xs",), f"{step.words('each of xs')}, then {words}", body)


def _keep_then_fold(rng: random.Random, name: str) -> Program:
    condition, (words, total) = random_condition(rng), rng.choice((("sum", "sum(ys)"), ("count", "len(ys)")))
    step = random_step(rng)
    body = (f"ys = [v for v in xs if {condition.of('v')}]", f"return {step.apply(E(total)).text}")
    return Program(name, ("xs",), f"{words} each of xs {condition.words}, then {step.on_it}", body)


KINDS: tuple[Callable[[random.Random, str], Program], ...] = (
    _two_steps,
    _pair,
    _each_then_fold,
    _branch,
    _keep_then_fold,
)


def _break(
    rng: random.Random, program: Program, pool: list[Arguments], outputs: list[object]
) -> tuple[Program, list[object]] | None:
    """A program one slip away that still runs but is wrong on some inputs, with its outputs."""
    candidates = slips(program)
    rng.shuffle(candidates)
    for broken in candidates:
        theirs = behaviour(broken, pool)
        runs = not any(isinstance(output, type) for output in theirs)
        if runs and sum(a != b for a, b in zip(outputs, theirs, strict=True)) >= NUM_FAILING:
            return broken, theirs
    return None


class AgentlessRepair(Environment):
    """Repair of given files by SEARCH/REPLACE edits, judged by FAIL_TO_PASS and PASS_TO_PASS tests."""

    name = "swerl_gen"
    domain = "software_engineering"

    def pose(self, rng: random.Random, level: float) -> Task:
        """A function of two or three lines with one slip in it; `level` widens the kinds of functions."""
        kinds = KINDS[: 2 + round(level * (len(KINDS) - 2))]
        while True:
            program = rng.choice(kinds)(rng, rng.choice("fgh"))
            pool = candidate_inputs(rng, program)
            outputs = behaviour(program, pool)
            broken = _break(rng, program, pool, outputs)
            if broken is not None:
                return self._task(rng, program, *broken, pool, outputs)

    def _task(
        self,
        rng: random.Random,
        program: Program,
        broken: Program,
        wrong: list[object],
        pool: list[Arguments],
        outputs: list[object],
    ) -> Task:
        failing = [i for i in range(len(pool)) if outputs[i] != wrong[i]]
        passing = [i for i in range(len(pool)) if outputs[i] == wrong[i]]
        rivals = [behaviour(slip, pool) for slip in slips(program)]
        told = telling_inputs(
            [outputs[i] for i in failing], [[rival[i] for i in failing] for rival in rivals], NUM_FAILING
        )
        chosen = [failing[i] for i in told] + passing[:NUM_PASSING]
        tests = {
            f"test_{n}": {"input": "\n".join(map(json.dumps, pool[i])), "output": json.dumps(outputs[i])}
            for n, i in enumerate(chosen)
        }
        names = list(tests)
        shown = min(failing, key=lambda i: len(repr((pool[i], wrong[i], outputs[i]))))
        statement = rng.choice(PHRASINGS).format(
            name=program.name,
            intent=program.intent,
            call=f"{program.name}({', '.join(map(repr, pool[shown]))})",
            wrong=wrong[shown],
            right=outputs[shown],
        )
        search, replace = next(
            (ours, right) for ours, right in zip(broken.body, program.body, strict=True) if ours != right
        )
        patch = str(Edit(f"    {search}\n", f"    {replace}\n"))
        instance = {
            "instance_id": hashlib.sha256(f"{statement}\n{broken.source}".encode()).hexdigest()[:16],
            "problem_statement": statement,
            "patch": patch,
            "FAIL_TO_PASS": json.dumps(names[: len(told)]),
            "PASS_TO_PASS": json.dumps(names[len(told) :]),
            "unit_tests": {"fn_name": program.name, "tests": tests},
        }
        files = {f"{program.name}.py": broken.source + "\n"}
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=({"role": "user", "content": f"{statement}\n{broken.source}"},),
            fields={
                "instance": instance,
                "metadata": {"relevant_file_contents": json.dumps(files)},
                "mode": "eval",
            },
            reference=patch,
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return self.grade_all([(task, answers)])[0]

    def grade_all(self, groups: Sequence[tuple[Task, Sequence[str]]]) -> list[list[Grade]]:
        """1 when all FAIL_TO_PASS and PASS_TO_PASS tests pass after the edits, else 0; shares as components."""
        repairs = [
            [_repair(repository, answer) for answer in answers] for repository, answers in _opened(groups)
        ]
        runnable = [repair for group in repairs for repair in group if isinstance(repair, Repair)]
        verdicts = iter(run_tests([(repair.source, repair.repository.tests) for repair in runnable]))
        return [
            [repair if isinstance(repair, Grade) else _judge(repair, next(verdicts)) for repair in group]
            for group in repairs
        ]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        """A row with `instance`, `metadata` and `mode`. Rows that need a container image parse, but cannot
        be graded here: their grades are errors that say so."""
        for field in ("instance", "metadata"):
            if not isinstance(row.get(field), Mapping):
                raise ValueError(f"{field}: missing; a swerl_gen row carries an object there")
        if row.get("mode") not in MODES:
            raise ValueError(f"mode: {row.get('mode')!r} is not one of {', '.join(MODES)}")
        _files(row["metadata"])
        for field in ("FAIL_TO_PASS", "PASS_TO_PASS"):
            _names(row["instance"], field)
        fields = {field: row[field] for field in ("instance", "metadata", "mode")}
        return Task(self.name, self.domain, row_messages(row), fields)


@dataclass(frozen=True, slots=True)
class Repository:
    """What a repair is applied to and judged by; the first `num_failing` tests are FAIL_TO_PASS."""

    files: Mapping[str, str]
    tests: UnitTests
    num_failing: int

    @classmethod
    def open(cls, task: Task) -> Repository:
        """Raises ValueError when the task cannot be graded on this machine."""
        instance, metadata = task.fields["instance"], task.fields["metadata"]
        files = _files(metadata)
        if "unit_tests" not in instance:
            image = metadata.get("image", "its container image")
            raise ValueError(
                f"instance {instance.get('instance_id')} runs its tests in {image}, not available here"
            )
        if len(files) != 1:
            raise ValueError(f"unit tests judge a single file, but there are {len(files)}")
        failing, passing = _names(instance, "FAIL_TO_PASS"), _names(instance, "PASS_TO_PASS")
        cases = [instance["unit_tests"]["tests"][name] for name in (*failing, *passing)]
        inputs, outputs = (tuple(case[key] for case in cases) for key in ("input", "output"))
        return cls(files, UnitTests(inputs, outputs, instance["unit_tests"]["fn_name"]), len(failing))


@dataclass(frozen=True, slots=True)
class Repair:
    """The single file of a repository after an answer's edits."""

    repository: Repository
    source: str


def _opened(
    groups: Sequence[tuple[Task, Sequence[str]]],
) -> list[tuple[Repository | str, Sequence[str]]]:
    opened: list[tuple[Repository | str, Sequence[str]]] = []
    for task, answers in groups:
        try:
            opened.append((Repository.open(task), answers))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            opened.append((f"task {task.id} cannot be graded: {error}", answers))
    return opened


def _repair(repository: Repository | str, answer: str) -> Repair | Grade:
    """The repaired file, or the grade when there is nothing to run."""
    if isinstance(repository, str):
        return Grade.failed(repository)
    try:
        (source,) = apply_edits(repository.files, parse_edits(final_answer(answer))).values()
    except EditError:
        return Grade(0.0, {"applied": 0.0, "fail_to_pass": 0.0, "pass_to_pass": 0.0})
    return Repair(repository, source)


def _judge(repair: Repair, passed: list[bool] | str) -> Grade:
    if isinstance(passed, str):
        return Grade.failed(passed)
    failing, passing = passed[: repair.repository.num_failing], passed[repair.repository.num_failing :]
    return Grade(
        float(all(passed)),
        {"applied": 1.0, "fail_to_pass": _share(failing), "pass_to_pass": _share(passing)},
    )


def _share(passed: Sequence[bool]) -> float:
    return sum(passed) / len(passed) if passed else 1.0


def _files(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The files shown to the model. Raises ValueError when the field does not hold them."""
    try:
        files = json.loads(metadata["relevant_file_contents"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"metadata.relevant_file_contents: JSON text of an object is needed ({error})"
        ) from error
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise ValueError("metadata.relevant_file_contents: must map each path to its text")
    return files


def _names(instance: Mapping[str, Any], field: str) -> list[str]:
    """Names of tests. Raises ValueError when the field is not the JSON text of a list."""
    try:
        names = json.loads(instance[field])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"instance.{field}: JSON text of a list of tests is needed ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"instance.{field}: must be a list of names of tests")
    return names
