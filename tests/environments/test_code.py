"""Code generation: what counts as a program, which outputs are the same, and what a grade says."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.environments.base import generate_tasks
from kascade.environments.code.environment import CodeGeneration, extract_program
from kascade.environments.code.generator import KINDS, PHRASINGS
from kascade.environments.code.unit_tests import UnitTests, same_text, same_value
from kascade.environments.small_world.programs import Program, slips
from kascade.sandbox.programs import Execution, Result
from kascade.task import Task, split_of

ENVIRONMENT = CodeGeneration()
SOUND = "def f(x):\n    return x * 2 + 3"


def row(**unit_tests: Any) -> dict[str, Any]:
    return {
        "responses_create_params": {"input": [{"role": "user", "content": "Write a program."}]},
        "verifier_metadata": {"unit_tests": {"time_limit_secs": 1, **unit_tests}},
    }


CALLS = ENVIRONMENT.from_row(row(fn_name="f", inputs=["1", "0", "-4"], outputs=["5", "3", "-5"]))
SCRIPT = ENVIRONMENT.from_row(row(inputs=["2\n1 2\n", "1\n5\n"], outputs=["3\n", "5\n"]))


def reward(task: Task, answer: str) -> float:
    (grade,) = ENVIRONMENT.grade(task, [answer])
    assert grade.error is None
    return grade.reward


def test_gold_answers_pass_and_slips_of_them_fail() -> None:
    tasks = generate_tasks(ENVIRONMENT, split="train", count=60, seed=1)
    groups = []
    for task in tasks:
        assert task.reference is not None
        head, body = task.reference.split("\n    ")
        program = Program("f", tuple(head[head.index("(") + 1 : -2].split(", ")), "", (body,))
        wrong = [f"{head}\n    {slip.body[0]}" for slip in slips(program)]
        groups.append((task, [task.reference, "", *wrong]))
    grades = ENVIRONMENT.grade_all(groups)
    assert all(group[0].reward == 1.0 and group[1].reward == 0.0 for group in grades)
    rewards = [grade.reward for group in grades for grade in group[2:]]
    # Some slips change nothing (0 < v and 1 <= v); nearly all must be found out.
    assert sum(rewards) / len(rewards) < 0.05


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_every_level_has_many_short_tasks(level: float) -> None:
    rng = random.Random(0)
    tasks = {task.id: task for task in (ENVIRONMENT.pose(rng, level) for _ in range(500))}
    assert len(tasks) > 400
    assert {split_of(task_id) for task_id in tasks} == {"train", "validation", "test"}
    assert max(len(task.messages[-1]["content"]) for task in tasks.values()) < 100
    assert max(len(task.reference or "") for task in tasks.values()) < 90


def test_more_than_five_thousand_different_tasks() -> None:
    rng = random.Random(0)
    programs = [rng.choice(KINDS)(rng, "f") for _ in range(8000)]
    wordings = len(PHRASINGS) * 3  # three names of functions
    assert len({(program.signature, program.intent) for program in programs}) > 2500
    assert 2500 * wordings > 5000


def test_same_seed_same_task() -> None:
    assert ENVIRONMENT.pose(random.Random(3), 0.7) == ENVIRONMENT.pose(random.Random(3), 0.7)


@pytest.mark.parametrize(
    "answer",
    [
        SOUND,
        f"```python\n{SOUND}\n```",
        f"Here it is:\n```py\n{SOUND}\n```\nDone.",
        f"```python\ndef f(x):\n    return 0\n```\nNo, better:\n```python\n{SOUND}\n```",
        f"<think>```python\ndef f(x): return 0\n```</think>\n{SOUND}",
        "def f(x):\n    print('noise')\n    return x + x + 3.0",
        "f = lambda x: 2 * x + 3",
    ],
)
def test_right_answers(answer: str) -> None:
    assert reward(CALLS, answer) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "```python\n```",
        "I would return x * 2 + 3.",
        f"<think>\n{SOUND}\n</think>",
        f"```python\n{SOUND}\n```\n```python\ndef f(x):\n    return 0\n```",
        "def g(x):\n    return x * 2 + 3",
        "def f(x):\n    return str(x * 2 + 3)",
        "def f(x):\n    print(x * 2 + 3)",
        "def f(x):\n    return f(x)",
        "def f(x):\n    while True: pass",
        "import os\ndef f(x):\n    os._exit(0)",
        "import sys\ndef f(x):\n    sys.exit(0)",
        "class Yes:\n    def __eq__(self, other): return True\ndef f(x):\n    return Yes()",
        "class Yes(int):\n    def __eq__(self, other): return True\ndef f(x):\n    return Yes(1)",
        "import os\nos.write(3, b'V5\\nV3\\nV-7\\n')\ndef f(x):\n    return 0",
        "import json\njson.dumps = lambda *_: '5'\ndef f(x):\n    return 0",
        "def f(x):\n    return x * 2 + 3\n'\ud800'",
        "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    ],
)
def test_wrong_broken_and_cheating_answers_are_zero_not_errors(answer: str) -> None:
    assert reward(CALLS, answer) == 0.0


def test_scripts_are_judged_by_their_output() -> None:
    right = "n = int(input())\nprint(sum(map(int, input().split())))"
    assert reward(SCRIPT, right) == 1.0
    assert reward(SCRIPT, right.replace("print(", "print(1 +")) == 0.0
    assert reward(SCRIPT, right + "\n1 / 0") == 0.0
    assert reward(SCRIPT, right + "\nraise SystemExit") == 1.0


def test_share_of_tests_is_a_component_only() -> None:
    (grade,) = ENVIRONMENT.grade(CALLS, ["def f(x):\n    return 5 if x == 1 else 3"])
    assert (grade.reward, grade.components["tests_passed"]) == (0.0, pytest.approx(2 / 3))


def test_groups_are_graded_together_and_in_order() -> None:
    grades = ENVIRONMENT.grade_all(
        [(CALLS, [SOUND, "", SOUND]), (SCRIPT, []), (CALLS, ["def f(x): return 0"])]
    )
    assert [[grade.reward for grade in group] for group in grades] == [[1.0, 0.0, 1.0], [], [0.0]]


def test_failure_of_the_sandbox_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def run_many(self, jobs: list[Execution]) -> list[Result]:
            return [Result(error="lost") for _ in jobs]

    monkeypatch.setattr("kascade.environments.code.unit_tests.shared_sandbox", Broken)
    assert [grade.error for grade in ENVIRONMENT.grade(CALLS, [SOUND, ""])] == ["lost", None]


def test_program_that_hangs_is_not_run_on_all_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Execution] = []

    class Hanging:
        def run_many(self, jobs: list[Execution]) -> list[Result]:
            ran.extend(jobs)
            return [Result(timed_out=True, exit_status=-24) for _ in jobs]

    monkeypatch.setattr("kascade.environments.code.unit_tests.shared_sandbox", Hanging)
    task = ENVIRONMENT.from_row(row(inputs=[str(n) for n in range(50)], outputs=["x"] * 50))
    assert ENVIRONMENT.grade(task, ["while True: pass"])[0].components == {"tests_passed": 0.0}
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("unit_tests", "fault"),
    [
        ({"inputs": [], "outputs": []}, "inputs"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs"),
        ({"inputs": "1", "outputs": ["1"]}, "inputs"),
        ({"inputs": ["1"], "outputs": [1]}, "outputs"),
        ({"inputs": ["1"], "outputs": ["x"], "fn_name": "f"}, "not JSON"),
        ({"inputs": ["1"], "outputs": ["1"], "fn_name": 3}, "fn_name"),
        ({"inputs": ["1"], "outputs": ["1"], "time_limit_secs": 0}, "time_limit_secs"),
    ],
)
def test_bad_rows_name_the_field(unit_tests: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ENVIRONMENT.from_row(row(**unit_tests))


def test_row_without_tests_is_refused_and_such_a_task_is_an_error() -> None:
    with pytest.raises(ValueError, match="unit_tests"):
        ENVIRONMENT.from_row({"responses_create_params": {"input": "Write a program."}})
    task = Task("code_gen", "code", ({"role": "user", "content": "?"},), {})
    (grade,) = ENVIRONMENT.grade(task, [SOUND])
    assert grade.error


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("1", "1.0", True), ("1", "true", False), ("[1, [2]]", "[1,[2]]", True), ("[1]", "[1, 2]", False),
        ('{"a": 1}', '{"a": 1.0}', True), ('{"a": 1}', '{"b": 1}', False), ("null", "0", False),
        ("[" * 10**5, "1", False), ("", "1", False), ("NaN", "NaN", False), ("1" * 5000, "1", False),
    ],
)  # fmt: skip
def test_same_value(ours: str, theirs: str, same: bool) -> None:
    assert same_value(ours, theirs) is same


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("1 2\n", "1 2", True), ("1 2 \n3", "1 2\n3\n", True), ("0.50", "0.5", True), ("YES", "yes", False),
        ("1\n2", "1 2", False), ("1 2", "1 2 3", False), ("", "0", False), ("a 1.0", "a 1", False),
    ],
)  # fmt: skip
def test_same_text(ours: str, theirs: str, same: bool) -> None:
    assert same_text(ours, theirs) is same


@given(st.text())
def test_any_answer_has_a_program(answer: str) -> None:
    assert isinstance(extract_program(answer), str)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4))
def test_no_answer_is_an_error(answers: list[str]) -> None:
    assert [grade.error for grade in ENVIRONMENT.grade(CALLS, answers)] == [None] * len(answers)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_a_value_is_the_same_as_itself(value: Any) -> None:
    assert same_value(json.dumps(value), json.dumps(value))


@given(st.text(), st.text())
def test_comparing_texts_never_raises(ours: str, theirs: str) -> None:
    assert isinstance(same_text(ours, theirs), bool)
    assert isinstance(same_value(ours, theirs), bool)


def test_tests_of_calls_run_as_one_job() -> None:
    suite = UnitTests(("1", "2"), ("1", "2"), "f")
    assert len(suite.jobs("")) == 1
    assert len(UnitTests(("1", "2"), ("1", "2")).jobs("")) == 2
