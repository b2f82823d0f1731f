"""Code generation: an answer is a Python program, and only passing every hidden test is worth anything."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from kascade.environments.base import (
    Domain,
    Environment,
    Grade,
    Message,
    SandboxKind,
    Task,
    visible_answer,
)
from kascade.environments.cpp_tests import run_cpp
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
from kascade.environments.unit_tests import ProgramOptions, UnitTests, run_tests

PHRASINGS = (
    "Write {signature}: {intent}.",
    "Define {signature}. It should {intent}.",
    "Write a function {signature} to {intent}.",
    "Python {signature}: {intent}.",
)
Written = tuple[str, str, UnitTests]  # language, source, tests
Verdicts = dict[Written, list[bool] | str]
NUM_TESTS = 5
TIME_LIMIT_SECONDS = 1
FENCE = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE)
CPP_FENCE = re.compile(r"^```(?:cpp|c\+\+|cc)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE)
Language = Literal["python", "cpp"]


class CodeOptions(ProgramOptions):
    """`tests`: a file of them, for rows that only name a problem. The others but `language`: where the row's
    own tests say nothing."""

    language: Language | None = Field(None, description="None: the environment's own")
    tests: str | None = Field(None, description="JSONL of competition_id, problem_id, unit_tests")


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


def extract_program(answer: str, language: str = "python") -> str:
    """The last fenced block of an answer without its thinking; the whole text when nothing is fenced."""
    blocks: list[str] = (CPP_FENCE if language == "cpp" else FENCE).findall(answer)
    return (blocks[-1] if blocks else answer).strip("\n")


class CodeGeneration(Environment):
    """Programs judged by hidden tests: function calls or standard input and output.

    Options: those of `CodeOptions`.
    """

    name = "code_gen"
    domain: ClassVar[Domain] = "code"
    option_names = CodeOptions.names()
    sandboxes: ClassVar[tuple[SandboxKind, ...]] = ("programs",)
    language: ClassVar[Language] = "python"

    def check_options(self, options: Mapping[str, Any]) -> None:
        CodeOptions.of(options)

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
