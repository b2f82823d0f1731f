"""Software engineering without an agent: an answer is SEARCH/REPLACE edits, judged by running tests."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from kascade.environments.base import Environment
from kascade.environments.code.unit_tests import run_tests
from kascade.environments.rows.nemo_gym import row_messages
from kascade.environments.software_engineering.generator import KINDS, Specimen, _specimen
from kascade.environments.software_engineering.lines import EditError
from kascade.environments.software_engineering.patch_rewards import repaired_files, unrun_grades
from kascade.environments.software_engineering.repository import (
    RepairOptions,
    Repository,
    shown_files,
    test_names,
)
from kascade.task import Domain, Grade, Task, visible_answer

TIME_LIMIT_SECONDS = 1
MODES = ("eval", "repro-gen")


class AgentlessRepair(Environment):
    """Repair of given files by SEARCH/REPLACE edits or a diff, judged by FAIL_TO_PASS and PASS_TO_PASS tests.

    Option `reward`: tests (default); lexical, judge: for rows whose tests need an image. Others: those of
    `RepairOptions`.
    """

    name = "swerl_gen"
    domain: ClassVar[Domain] = "software_engineering"
    options_type = RepairOptions
    sandboxes = ("programs",)

    def needs_judge(self, *, rows: bool) -> bool:
        return RepairOptions.of(self.options).reward == "judge"

    def pose(self, rng: random.Random, level: float) -> Task:
        """A function of two or three lines with one slip in it; `level` widens the kinds of functions."""
        kinds = KINDS[: 2 + round(level * (len(KINDS) - 2))]
        while True:
            specimen = _specimen(rng, rng.choice(kinds)(rng, rng.choice("fgh")))
            if specimen is not None:
                return self._task(rng, specimen)

    def _task(self, rng: random.Random, specimen: Specimen) -> Task:
        name, source, statement = specimen.program.name, specimen.broken.source, specimen.statement(rng)
        failing, passing = specimen.tests()
        tests = {
            f"test_{number}": {
                "input": "\n".join(map(json.dumps, specimen.pool[i])),
                "output": json.dumps(specimen.right[i]),
            }
            for number, i in enumerate([*failing, *passing])
        }
        names = list(tests)
        instance = {
            "instance_id": hashlib.sha256(f"{statement}\n{source}".encode()).hexdigest()[:16],
            "problem_statement": statement,
            "patch": specimen.patch(),
            "FAIL_TO_PASS": json.dumps(names[: len(failing)]),
            "PASS_TO_PASS": json.dumps(names[len(failing) :]),
            "unit_tests": {"fn_name": name, "time_limit_secs": TIME_LIMIT_SECONDS, "tests": tests},
        }
        files = {f"{name}.py": source + "\n"}
        return Task(
            environment=self.name,
            domain=self.domain,
            messages=({"role": "user", "content": f"{statement}\n{source}"},),
            fields={
                "instance": instance,
                "metadata": {"relevant_file_contents": json.dumps(files)},
                "mode": "eval",
                **self.graded_with,
            },
            reference=specimen.patch(),
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return self.grade_all([(task, answers)])[0]

    def grade_all(self, groups: Sequence[tuple[Task, Sequence[str]]]) -> list[list[Grade]]:
        """1 when all FAIL_TO_PASS and PASS_TO_PASS tests pass after the edits, else 0.

        Components: whether the edits applied, and the shares of tests that pass.
        """
        by_tests = [RepairOptions.of_task(task.fields).reward == "tests" for task, _ in groups]
        if not all(by_tests):
            return _split(groups, by_tests, self.grade_all)
        groups = [(task, [visible_answer(task, answer) for answer in answers]) for task, answers in groups]
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
        shown_files(row["metadata"])
        for field in ("FAIL_TO_PASS", "PASS_TO_PASS"):
            test_names(row["instance"], field)
        fields = {field: row[field] for field in ("instance", "metadata", "mode")}
        task = Task(self.name, self.domain, row_messages(row), {**fields, **self.graded_with})
        if not {"tests", "unit_tests"}.isdisjoint(row["instance"]):
            Repository.open(task)  # tests of its own must be there and as they should be
        return task


@dataclass(frozen=True, slots=True)
class Repair:
    """What the tests run after an answer's edits."""

    repository: Repository
    source: str


def _split(
    groups: Sequence[tuple[Task, Sequence[str]]],
    by_tests: Sequence[bool],
    tested: Callable[[Sequence[tuple[Task, Sequence[str]]]], list[list[Grade]]],
) -> list[list[Grade]]:
    """Groups graded by tests and by what runs nothing, each kind at once."""
    run = iter(tested([group for group, runs in zip(groups, by_tests, strict=True) if runs]))
    unrun = iter(unrun_grades([group for group, runs in zip(groups, by_tests, strict=True) if not runs]))
    return [next(run) if runs else next(unrun) for runs in by_tests]


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
    """The repaired files, or the grade when there is nothing to run."""
    if isinstance(repository, str):
        return Grade.failed(repository)
    try:
        files = repaired_files(repository.files, answer)
        return Repair(repository, repository.program(files))
    except EditError:
        return Grade(0.0, {"applied": 0.0, "fail_to_pass": 0.0, "pass_to_pass": 0.0})


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
