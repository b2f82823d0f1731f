"""Repair: what counts as an edit, where it may apply, and what a grade says."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.environments.base import generate_tasks
from kascade.environments.software_engineering.agentless import AgentlessRepair
from kascade.environments.software_engineering.edits import Edit, apply_edits, parse_edits
from kascade.environments.software_engineering.generator import KINDS, PHRASINGS
from kascade.environments.software_engineering.lines import EditError
from kascade.task import Task

ENVIRONMENT = AgentlessRepair()
FILES = {"f.py": "def f(x):\n    y = x + 2\n    return y - 3\n"}


def row(**changes: Any) -> dict[str, Any]:
    tests = {"a": {"input": "1", "output": "9"}, "b": {"input": "-2", "output": "0"}}
    instance = {
        "instance_id": "made-up",
        "FAIL_TO_PASS": '["a"]',
        "PASS_TO_PASS": '["b"]',
        "unit_tests": {"fn_name": "f", "time_limit_secs": 1, "tests": tests},
    }
    return {
        "responses_create_params": {"input": [{"role": "user", "content": "Fix f."}]},
        "instance": instance,
        "metadata": {"relevant_file_contents": json.dumps(FILES)},
        "mode": "eval",
        **changes,
    }


def edit(search: str, replace: str) -> str:
    return str(Edit(search, replace))


TASK = ENVIRONMENT.from_row(row())
RIGHT = edit("    return y - 3\n", "    return y * 3\n")


def test_gold_answers_pass_and_the_unchanged_file_fails() -> None:
    tasks = generate_tasks(ENVIRONMENT, split="train", count=80, seed=1)
    grades = ENVIRONMENT.grade_all([(task, [task.reference or "", "", "pass"]) for task in tasks])
    assert [[grade.reward for grade in group] for group in grades] == [[1.0, 0.0, 0.0]] * 80
    neutral = [(task, [edit("    return ", "    return  ")]) for task in tasks]
    assert not any(group[0].error for group in ENVIRONMENT.grade_all(neutral))


def test_hidden_tests_fail_before_the_repair_and_are_kept_by_it() -> None:
    for task in generate_tasks(ENVIRONMENT, split="test", count=20, seed=2):
        source = next(iter(json.loads(task.fields["metadata"]["relevant_file_contents"]).values()))
        header = source.split("\n")[0] + "\n"
        (grade,) = ENVIRONMENT.grade(task, [edit(header, header + "    0\n")])
        assert (grade.reward, grade.components["applied"]) == (0.0, 1.0)
        assert (grade.components["fail_to_pass"], grade.components["pass_to_pass"]) == (0.0, 1.0)


def test_more_than_five_thousand_different_tasks() -> None:
    rng = random.Random(0)
    programs = [rng.choice(KINDS)(rng, "f") for _ in range(6000)]
    wordings = len(PHRASINGS) * 3  # three names of functions
    assert len({(program.signature, program.intent) for program in programs}) > 2000
    assert 2000 * wordings > 5000


def test_tasks_are_short_and_hardly_ever_repeat() -> None:
    rng = random.Random(0)
    tasks = {task.id: task for task in (ENVIRONMENT.pose(rng, 1.0) for _ in range(500))}
    assert len(tasks) > 480
    assert max(len(task.messages[-1]["content"]) for task in tasks.values()) < 220
    assert max(len(task.reference or "") for task in tasks.values()) < 150


@pytest.mark.parametrize(
    "answer",
    [
        RIGHT,
        f"### f.py\n{RIGHT}",
        f"<think>\n{edit('    y = x + 2', '    pass')}\n</think>\n```python\n### f.py\n{RIGHT}\n```",
        edit("    y = x + 2\n    return y - 3\n", "    return 3 * x + 6\n"),
        edit("    y = x + 2\n", "    y = (x + 2) * 3 + 3\n"),
        edit("    y = x + 2\n", "    z = x + 2\n") + "\n" + edit("    return y - 3\n", "    return z * 3\n"),
    ],
)
def test_right_repairs(answer: str) -> None:
    (grade,) = ENVIRONMENT.grade(TASK, [answer])
    assert (grade.error, grade.reward) == (None, 1.0)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "    return y * 3",
        RIGHT.replace("SEARCH", "FIND"),
        RIGHT.replace("=======", "====="),
        RIGHT.replace("y - 3", "y - 4"),
        f"### other.py\n{RIGHT}",
        f"### ../../etc/passwd\n{RIGHT}",
        f"<think>{RIGHT}</think>",
        f"{RIGHT}\n{RIGHT}",
        edit("    return y - 3\n", "    return y - 3\n"),
        edit("", "    return 9\n"),
        edit("return y - 3\n", "return y * 3\n"),
        edit("    return y - 3\n", "    return 9\n"),
        edit("    return y - 3\n", "    while True: pass\n"),
        edit("    return y - 3\n", "    import os; os._exit(0)\n"),
        edit("def f(x):\n", ""),
    ],
)
def test_wrong_unreadable_and_misplaced_repairs_are_zero_not_errors(answer: str) -> None:
    (grade,) = ENVIRONMENT.grade(TASK, [answer])
    assert (grade.error, grade.reward) == (None, 0.0)


def test_breaking_what_worked_is_no_repair() -> None:
    (grade,) = ENVIRONMENT.grade(TASK, [edit("    return y - 3\n", "    return 9\n")])
    assert grade.components == {"applied": 1.0, "fail_to_pass": 1.0, "pass_to_pass": 0.0}


def test_an_edit_must_match_whole_lines_in_one_place() -> None:
    files = {"a.py": "x = 1\ny = 2\nx = 1\n"}
    with pytest.raises(EditError, match="exactly once"):
        apply_edits(files, [Edit("x = 1\n", "x = 3\n")])
    assert apply_edits(files, [Edit("y = 2\n", "")]) == {"a.py": "x = 1\nx = 1\n"}
    with pytest.raises(EditError, match="without a path"):
        apply_edits({**files, "b.py": ""}, [Edit("y = 2\n", "")])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"instance": None}, "instance"),
        ({"metadata": {}}, "relevant_file_contents"),
        ({"metadata": {"relevant_file_contents": "[]"}}, "relevant_file_contents"),
        ({"mode": "agentic"}, "mode"),
        ({"instance": {"FAIL_TO_PASS": "a", "PASS_TO_PASS": "[]"}}, "FAIL_TO_PASS"),
        ({"responses_create_params": {}}, "input"),
    ],
)
def test_bad_rows_name_the_field(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ENVIRONMENT.from_row(row(**changes))


def test_rows_that_need_an_image_parse_but_their_grades_are_errors() -> None:
    instance = {"instance_id": "python__mypy-17071", "FAIL_TO_PASS": '["t"]', "PASS_TO_PASS": "[]"}
    metadata = {"relevant_file_contents": json.dumps(FILES), "image": "/images/mypy.sif"}
    task = ENVIRONMENT.from_row(row(instance=instance, metadata=metadata))
    (grade,) = ENVIRONMENT.grade(task, [RIGHT])
    assert grade.error is not None
    assert "mypy.sif" in grade.error


def test_task_without_fields_is_an_error() -> None:
    task = Task("swerl_gen", "software_engineering", ({"role": "user", "content": "?"},), {})
    assert ENVIRONMENT.grade(task, [RIGHT])[0].error


lines = st.lists(
    st.text(st.characters(blacklist_characters="\n\r<>=#", blacklist_categories=["Cs"]), min_size=1)
)


@given(lines, lines)
def test_edits_read_back_as_written(search: list[str], replace: list[str]) -> None:
    written = Edit("".join(f"{line}\n" for line in search), "".join(f"{line}\n" for line in replace), "f.py")
    assert parse_edits(f"Some words.\n{written}\nMore.") == [written]


@settings(max_examples=100, deadline=None)
@given(
    st.text() | lines.map(lambda given: edit("    y = x + 2\n", "".join(f"    {line}\n" for line in given)))
)
def test_no_answer_is_an_error(answer: str) -> None:
    assert ENVIRONMENT.grade(TASK, [answer])[0].error is None
