"""Code generation: an answer is a Python program, and only passing every hidden test is worth anything."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar, Literal

from pydantic import Field

from kascade.environments.base import Environment, SandboxKind
from kascade.environments.code.cpp import run_cpp
from kascade.environments.code.generator import KINDS, PHRASINGS
from kascade.environments.code.unit_tests import ProgramOptions, UnitTests, run_tests
from kascade.environments.fences import fenced_blocks
from kascade.environments.rows.nemo_gym import row_messages, verifier_fields
from kascade.environments.small_world.programs import (
    behaviour,
    candidate_inputs,
    slips,
    telling_inputs,
)
from kascade.task import Domain, Grade, Message, Task, visible_answer

Written = tuple[str, str, UnitTests]  # language, source, tests
Verdicts = dict[Written, list[bool] | str]
NUM_TESTS = 5
TIME_LIMIT_SECONDS = 1
TAGS = {  # of fenced blocks, without the numbers of versions
    "python": frozenset({"python", "py", "pypy", "ipython", "python-repl", "sage"}),
    "cpp": frozenset({"cpp", "c++", "cc", "cxx", "c", "hpp", "gnu++"}),
}
VERSION = re.compile(r"[\d.]+$")
Language = Literal["python", "cpp"]


class CodeOptions(ProgramOptions):
    """`tests`: a file of them, for rows that only name a problem. The others but `language`: where the row's
    own tests say nothing."""

    language: Language | None = Field(None, description="None: the environment's own")
    tests: str | None = Field(None, description="JSONL of competition_id, problem_id, unit_tests")


def extract_program(answer: str, language: str = "python") -> str:
    """The last block of an answer in the language; without one the last untagged, then the last of all.

    The whole text when nothing is fenced. A block of another language that comes first is no program, nor
    is what stands between two blocks.
    """
    blocks = fenced_blocks(answer)
    own = [block for block in blocks if VERSION.sub("", block.tag) in TAGS[language]]
    chosen = own or [block for block in blocks if not block.tag] or blocks
    return dedent((chosen[-1].text if chosen else answer).strip("\r\n\ufeff"))


class CodeGeneration(Environment):
    """Programs judged by hidden tests: function calls or standard input and output.

    Options: those of `CodeOptions`.
    """

    name = "code_gen"
    domain: ClassVar[Domain] = "code"
    options_type = CodeOptions
    sandboxes: ClassVar[tuple[SandboxKind, ...]] = ("programs",)
    language: ClassVar[Language] = "python"

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
            (language, program, suite)
            for suite, (task, answers) in zip(suites, groups, strict=True)
            if isinstance(suite, UnitTests)
            for language in [task.fields.get("language", "python")]
            for program in (extract_program(visible_answer(task, answer), language) for answer in answers)
            if program
        ]
        verdicts = _run(programs)
        return [
            [
                Grade.failed(suite)
                if isinstance(suite, str)
                else _grade(
                    task.fields.get("language", "python"), visible_answer(task, answer), suite, verdicts
                )
                for answer in answers
            ]
            for suite, (task, answers) in zip(suites, groups, strict=True)
        ]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        """A row with `verifier_metadata.unit_tests`, or with `unit_tests` at top level."""
        options = CodeOptions.of(self.options)
        language = options.language or self.language
        found = verifier_fields(row).get("unit_tests")
        fields: dict[str, Any] = {}
        if found is None and row.get("problem_id") is not None:
            problem = f"{row.get('competition_id')}/{row['problem_id']}"
            fields["problem"] = problem
            found = _listed_tests(options.tests).get(problem)
        if found is not None or not fields:
            limits = {name: self.options[name] for name in ProgramOptions.names() if name in self.options}
            tests = {**limits, **found} if isinstance(found, Mapping) else found
            UnitTests.parse(tests)
            fields["verifier_metadata"] = {"unit_tests": tests}
        if language != "python":
            fields["language"] = language
        return Task(self.name, self.domain, row_messages(row), fields)


class CompetitiveCoding(CodeGeneration):
    """NeMo-Gym's `competitive_coding_challenges`: C++ by default, tests in a file beside the rows.

    Rows name `competition_id` and `problem_id`; option `tests` names the file. A problem without tests
    loads, and its grades are errors that say so.
    """

    name = "competitive_coding_challenges"
    sandboxes = ("commands",)
    language: ClassVar[Language] = "cpp"

    def pose(self, rng: random.Random, level: float) -> Task:
        """A sum over the numbers on standard input, to be written in C++."""
        k, offset = rng.randint(2, 9), rng.randint(0, 9 + round(90 * level))
        tests = [[rng.randint(-50, 50) for _ in range(rng.randint(1, 8))] for _ in range(NUM_TESTS)]
        unit_tests = {
            "time_limit_secs": TIME_LIMIT_SECONDS,
            "inputs": [f"{len(numbers)}\n{' '.join(map(str, numbers))}\n" for numbers in tests],
            "outputs": [f"{sum(n for n in numbers if n % k == 0) + offset}\n" for numbers in tests],
        }
        prompt = (
            "Write a C++17 program. Standard input holds n and then n integers. Print the sum of those that "
            f"{k} divides, plus {offset}."
        )
        source = (
            "#include <iostream>\nint main() {\n    long long n, x, s = 0;\n    std::cin >> n;\n"
            f"    while (n-- && std::cin >> x) if (x % {k} == 0) s += x;\n"
            f"    std::cout << s + {offset} << std::endl;\n}}\n"
        )
        fields = {"verifier_metadata": {"unit_tests": unit_tests}, "language": "cpp"}
        message: Message = {"role": "user", "content": prompt}
        return Task(self.name, self.domain, (message,), fields, f"```cpp\n{source}```")


def _run(
    programs: Sequence[tuple[str, str, UnitTests]],
) -> dict[tuple[str, str, UnitTests], list[bool] | str]:
    """Verdicts by (language, source, tests)."""
    verdicts: dict[tuple[str, str, UnitTests], list[bool] | str] = {}
    for language, runner in (("python", run_tests), ("cpp", run_cpp)):
        own = list(dict.fromkeys(program for program in programs if program[0] == language))
        if own:
            verdicts |= dict(zip(own, runner([(source, tests) for _, source, tests in own]), strict=True))
    return verdicts


def _listed_tests(path: str | None) -> Mapping[str, Any]:
    """Tests by problem from a JSONL file. Raises ValueError when it cannot be read."""
    if path is None:
        return {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        return {f"{row.get('competition_id')}/{row['problem_id']}": row["unit_tests"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"options.tests: {path}: {error}") from error


def _unit_tests(task: Task) -> UnitTests | str:
    """The tests of a task, or why there are none."""
    if "problem" in task.fields and "verifier_metadata" not in task.fields:
        return f"no tests of problem {task.fields['problem']}: name their file in the option `tests`"
    try:
        return UnitTests.parse(task.fields["verifier_metadata"]["unit_tests"])
    except (KeyError, TypeError, ValueError) as error:
        return f"task {task.id} has no tests to run: {error}"


def _grade(
    language: str,
    answer: str,
    suite: UnitTests,
    verdicts: Verdicts,
) -> Grade:
    program = extract_program(answer, language)
    if not program:
        return Grade(0.0, {"tests_passed": 0.0})
    passed = verdicts[language, program, suite]
    if isinstance(passed, str):
        return Grade.failed(passed)
    return Grade(float(all(passed)), {"tests_passed": sum(passed) / len(passed)})
