"""Diffs, lexical rewards, repairs of several files, and the choice between patches."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.environments import get_environment
from kascade.environments.base import generate_tasks
from kascade.environments.rows import nemo_gym as rows_module
from kascade.environments.software_engineering.diffs import apply_diff, diff_of, parse_diff, similarity
from kascade.environments.software_engineering.lines import EditError
from kascade.environments.software_engineering.patch_choice import choice

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "nemo-gym"
FILES = {"a.py": "def f(x):\n    return x\n", "b.py": "from a import f\n\ndef g(x):\n    return f(x) + 1\n"}
FIXED = {**FILES, "a.py": "def f(x):\n    return 2 * x\n"}
DIFF = diff_of(FILES, FIXED)
EDIT = "### a.py\n<<<<<<< SEARCH\n    return x\n=======\n    return 2 * x\n>>>>>>> REPLACE"
REPAIR = get_environment("swerl_gen")
CHOICE = get_environment("swerl_llm_judge")


def row(**changes: Any) -> dict[str, Any]:
    tests = {
        "t1": {"module": "b", "function": "g", "arguments": [2], "output": 5},
        "t2": {"module": "a", "function": "f", "arguments": [0], "output": 0},
    }
    instance = {"instance_id": "i", "patch": DIFF, "FAIL_TO_PASS": '["t1"]', "PASS_TO_PASS": '["t2"]'}
    return {
        "responses_create_params": {"input": "Repair it."},
        "instance": {**instance, "tests": tests, **changes},
        "metadata": {"relevant_file_contents": json.dumps(FILES), "image": "i.sif"},
        "mode": "eval",
    }


def test_repairs_of_several_files_as_edits_or_as_a_diff() -> None:
    task = REPAIR.from_row(row())
    wrong = EDIT.replace("2 * x", "3 * x")
    fenced = f"<think>{wrong}</think>\n<solution>\n```python\n{EDIT}\n```\n</solution>"
    broken = "+++ b/a.py\n@@ -9,1 +9,1 @@\n-nothing\n+something\n"
    answers = [EDIT, fenced, DIFF, f"```diff\n{DIFF}\n```", wrong, "", broken, DIFF.replace("a.py", "c.py")]
    grades = REPAIR.grade(task, answers)
    assert not any(grade.error for grade in grades)
    assert [grade.reward for grade in grades] == [1, 1, 1, 1, 0, 0, 0, 0]


def test_lexical_reward_needs_no_tests() -> None:
    environment = REPAIR.with_options({"reward": "lexical"})
    published = row()
    del published["instance"]["tests"]
    task = environment.from_row(published)
    right, near, far, none = (
        grade.reward
        for grade in environment.grade(
            task,
            [
                EDIT,
                EDIT.replace("2 * x", "x * 2"),
                DIFF.replace("2 * x", "sum(range(x))"),
                "I would double it.",
            ],
        )
    )
    assert right == 1.0 > near > far > none == 0.0
    assert environment.grade(REPAIR.from_row(published), [EDIT])[0].error is not None
    mixed = environment.grade_all([(task, [EDIT]), (REPAIR.from_row(row()), [EDIT])])
    assert [group[0].reward for group in mixed] == [1.0, 1.0]
    bad = environment.grade(environment.from_row(row(patch="no diff")), [EDIT])
    assert bad[0].error is not None
    with pytest.raises(ValueError, match=r"options\.reward"):
        REPAIR.with_options({"reward": "vibes"}).from_row(row())


def test_diffs_apply_where_they_say_or_near_it() -> None:
    text = "".join(f"line {i}\n" for i in range(30))
    later = text.replace("line 20\n", "line twenty\n").replace("line 3\n", "")
    diff = diff_of({"f": text}, {"f": later})
    assert apply_diff({"f": text}, diff) == {"f": later}
    moved = {"f": "new\n" * 3 + text}
    assert apply_diff(moved, diff) == {"f": "new\n" * 3 + later}
    for bad in ("", "@@ -1 +1 @@\n-a\n+b", diff.replace("line 19", "line 99")):
        with pytest.raises(EditError):
            apply_diff({"f": text}, bad)


names = st.sampled_from(["a", "b"])
texts = st.lists(st.text(st.characters(categories=["L", "N"]), max_size=4), max_size=8).map(
    lambda lines: "".join(f"{line}\n" for line in lines)
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(names, texts, min_size=2), st.dictionaries(names, texts, min_size=2))
def test_a_diff_leads_from_one_version_to_the_other(before: dict[str, str], after: dict[str, str]) -> None:
    if before == after:
        assert diff_of(before, after) == ""
    else:
        assert apply_diff(before, diff_of(before, after)) == after
    assert 0 <= similarity(diff_of(before, after), diff_of(after, before)) <= 1


@settings(max_examples=80, deadline=None)
@given(st.text() | st.text().map(lambda text: f"--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n{text}"))
def test_no_answer_breaks_a_parser(text: str) -> None:
    try:
        parse_diff(text)
        apply_diff(FILES, text)
    except EditError:
        pass
    assert choice(text, "strict") is None or "<solution>" in text


def test_choices_of_our_own() -> None:
    for task in generate_tasks(CHOICE, split="test", count=10, seed=0):
        other = next(
            k for option in task.fields["options"] for k in option if k not in str(task.reference)[9:11]
        )
        answers = [str(task.reference), f"<solution>{other}</solution>", ""]
        assert [g.reward for g in CHOICE.grade(task, answers)] == [1.0, 0.0, 0.0]
    assert CHOICE.pose(random.Random(0), 1.0).fields["options"][3]


def test_strict_and_lenient_choices_and_listing_them_all() -> None:
    assert choice("so <solution>[b]</solution>", "strict") == "B"
    assert choice("<solution>B, since</solution>", "strict") is None
    assert choice("<solution>B, since</solution>", "lenient") == "B"
    assert choice("<solution>A</solution><solution>B</solution>", "strict") is None
    assert choice("<solution>A</solution><solution>B</solution>", "lenient") is None
    assert choice("The answer is B.", "lenient") is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"options": []}, "options"),
        ({"expected_answer": "Z"}, "expected_answer"),
        ({"grading_mode": "x"}, "grading"),
    ],
)
def test_bad_rows_name_the_field(changes: dict[str, Any], field: str) -> None:
    good = {
        "responses_create_params": {"input": "?"},
        "options": [{"A": "x"}, {"B": "y"}],
        "expected_answer": "B",
    }
    assert CHOICE.grade(CHOICE.from_row(good), ["<solution>b</solution>"])[0].reward == 1.0
    with pytest.raises(ValueError, match=field):
        CHOICE.from_row({**good, **changes})


@pytest.mark.parametrize(
    "server", ["swerl_llm_judge", "swerl_gen", "single_step_tool_use_with_argument_comparison"]
)
def test_published_rows(server: str) -> None:
    file = PUBLISHED / server / "example.jsonl"
    if not file.is_file():
        pytest.skip(f"NOT RUN: no published NeMo-Gym rows of {server} beside the checkout")
    if server.startswith("single") and not hasattr(rows_module, "turn_text"):
        pytest.skip("NOT RUN: this checkout does not read tool calls in rows")
    environment = get_environment(server)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for task in [environment.from_row(row) for row in rows]:
        if server != "swerl_gen":
            assert [g.reward for g in environment.grade(task, [str(task.reference), ""])] == [1.0, 0.0]
    if server == "swerl_gen":
        lexical = environment.with_options({"reward": "lexical"})
        for one in rows:
            gold = one["instance"]["patch"]
            (grade,) = lexical.grade(lexical.from_row(one), [gold])
            assert (grade.error is None) == (one["mode"] == "eval")
            assert grade.reward == (1.0 if one["mode"] == "eval" else 0.0)
