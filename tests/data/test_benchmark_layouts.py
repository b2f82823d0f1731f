"""Benchmarks as they are published, from their files to grades; the rows are our own, their layout is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kascade.environments import get_environment
from kascade.environments.rows.loading import load_tasks
from kascade.environments.rows.tool_calls import render_tool_call
from kascade.errors import UserError
from kascade.recipe.benchmark_presets import benchmark_presets
from kascade.recipe.parts import DataSource
from kascade.task import Task


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def loaded(preset: str, path: Path, **fields: Any) -> list[Task]:
    source = DataSource.model_validate({**benchmark_presets()[preset]["source"], "path": str(path), **fields})
    return list(load_tasks(get_environment(source.environment), source).tasks)


def rewards(task: Task, *answers: str) -> list[float]:
    grades = get_environment(task.environment).grade(task, answers)
    assert not any(grade.error for grade in grades), grades
    return [grade.reward for grade in grades]


def question(id: str, text: str, *functions: dict[str, Any]) -> dict[str, Any]:
    return {"id": id, "question": [[{"role": "user", "content": text}]], "function": list(functions)}


AREA = {
    "name": "geometry.area",
    "description": "Area of a triangle.",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "integer", "description": "Length."},
            "height": {"type": "float", "description": "Height."},
            "unit": {"type": "string", "description": "Of length.", "default": "units"},
            "points": {"type": "tuple", "items": {"type": "integer"}},
        },
        "required": ["base", "height"],
    },
}
SIMPLE = (
    question("simple_0", "A triangle of base 10 and height 5?", AREA),
    question("parallel_1", "And those of 2 by 3 and 4 by 5 cm?", AREA),
)
ANSWERS = (
    {
        "id": "simple_0",
        "ground_truth": [{"geometry.area": {"base": [10], "height": [5], "unit": ["units", ""]}}],
    },
    {
        "id": "parallel_1",
        "ground_truth": [
            {"geometry.area": {"base": [2], "height": [3, 3.0], "unit": ["cm"]}},
            {"geometry.area": {"base": [4], "height": [5], "unit": ["cm", "centimeter"]}},
        ],
    },
)


def call(**arguments: Any) -> str:
    return f"§</think>{render_tool_call('geometry.area', arguments)}"


def test_bfcl_as_published_with_its_answers_in_a_file_of_their_own(tmp_path: Path) -> None:
    rows = write(tmp_path / "BFCL_v3_simple.json", *SIMPLE)
    answers = write(tmp_path / "possible_answer" / "BFCL_v3_simple.json", *ANSWERS)
    simple, parallel = loaded("bfcl_v3", rows, join={"path": str(answers)})
    assert simple.messages[0]["content"] == "A triangle of base 10 and height 5?"
    assert simple.tools[0]["name"] == "geometry.area"
    right = call(base=10, height=5)
    given = [
        right,
        call(base=10, height=5.0, unit="Units"),
        call(base=10.5, height=5),
        call(base=10),
        right + right.partition("</think>")[2],
    ]
    assert rewards(simple, *given, "50", "") == [1, 1, 0, 0, 0, 0, 0]
    both = call(base=4, height=5, unit="centimeter") + render_tool_call(
        "geometry.area", {"base": 2, "height": 3, "unit": "cm"}
    )
    assert rewards(parallel, both, call(base=2, height=3, unit="cm")) == [1, 0]


def test_bfcl_questions_that_no_function_answers_need_no_answers(tmp_path: Path) -> None:
    rows = write(tmp_path / "BFCL_v3_irrelevance.json", question("irrelevance_0", "Who are you?", AREA))
    (task,) = loaded("bfcl_v4", rows)
    assert rewards(task, "§</think>No function helps.", call(base=1, height=1)) == [1, 0]


def test_answers_that_are_missing_are_told_with_the_way_to_join_them(tmp_path: Path) -> None:
    rows = write(tmp_path / "BFCL_v3_simple.json", *SIMPLE)
    with pytest.raises(UserError, match=r"join\.path") as caught:
        loaded("bfcl_v3", rows)
    assert [fault.where for fault in caught.value.faults] == [
        f"{rows}:1 ground_truth",
        f"{rows}:2 ground_truth",
    ]
    answers = write(tmp_path / "answers.json", ANSWERS[0])
    with pytest.raises(UserError, match=r"'parallel_1' is not in") as caught:
        loaded("bfcl_v3", rows, join={"path": str(answers)})
    assert [fault.where for fault in caught.value.faults] == [f"{rows}:2 id"]
    twice = write(tmp_path / "twice.json", ANSWERS[0], ANSWERS[0], {"ground_truth": []})
    with pytest.raises(UserError) as caught:
        loaded("bfcl_v3", rows, join={"path": str(twice)})
    assert [fault.where for fault in caught.value.faults] == [f"{twice}:2 id", f"{twice}:3 id"]
    with pytest.raises(UserError, match="truths"):
        loaded("bfcl_v3", rows, join={"path": str(answers), "columns": {"ground_truth": "truths"}})


PATCH = """\
diff --git a/pkg/core.py b/pkg/core.py
--- a/pkg/core.py
+++ b/pkg/core.py
@@ -1,2 +1,2 @@
 def double(x):
-    return x
+    return 2 * x
"""
VERIFIED = {
    "repo": "owner/pkg",
    "instance_id": "owner__pkg-1",
    "base_commit": "0" * 40,
    "patch": PATCH,
    "test_patch": "diff --git a/tests/test_core.py b/tests/test_core.py\n",
    "problem_statement": "double(2) gives 2.",
    "hints_text": "",
    "created_at": "2024-01-01T00:00:00Z",
    "version": "1.0",
    "FAIL_TO_PASS": '["tests/test_core.py::test_double"]',
    "PASS_TO_PASS": "[]",
    "environment_setup_commit": "0" * 40,
    "difficulty": "<15 min fix",
}
SHOWN = {
    "instance_id": "owner__pkg-1",
    "relevant_file_contents": {"pkg/core.py": "def double(x):\n    return x\n"},
}
EDIT = "### pkg/core.py\n<<<<<<< SEARCH\n    return x\n=======\n    return 2 * x\n>>>>>>> REPLACE"


def test_arena_hard_takes_its_baseline_from_the_answers_of_a_model(tmp_path: Path) -> None:
    asked = {"uid": "a1", "category": "hard_prompt", "subcategory": "coding", "prompt": "Say hello."}
    said = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": {"answer": "Hello."}}]
    rows = write(tmp_path / "question.jsonl", asked)
    answers = write(tmp_path / "o3-mini.jsonl", {"uid": "a1", "model": "o3-mini", "messages": said})
    join = {"path": str(answers), "on": "uid", "columns": {"baseline": "messages.1.content.answer"}}
    (task,) = loaded("arenahard_v2", rows, join=join)
    assert (task.fields["baseline"], task.thinking) == ("Hello.", True)
    for column in ("messages.2.content", "messages.1.content.text", "answer"):
        with pytest.raises(UserError, match="there is no such column"):
            loaded("arenahard_v2", rows, join={**join, "columns": {"baseline": column}})


def test_swe_bench_without_an_agent_shows_its_files_and_grades_by_likeness(tmp_path: Path) -> None:
    rows = write(tmp_path / "verified.jsonl", VERIFIED)
    files = write(tmp_path / "retrieved.jsonl", SHOWN)
    join = {"path": str(files), "on": "instance_id"}
    lexical = {"reward": "lexical"}
    source = {**benchmark_presets()["swebench_verified_agentless"]["source"], "path": str(rows), "join": join}
    environment = get_environment("swerl_gen").with_options(lexical)
    (task,) = load_tasks(environment, DataSource.model_validate({**source, "options": lexical})).tasks
    prompt = task.messages[0]["content"]
    assert "double(2) gives 2." in prompt
    assert "[start of pkg/core.py]\ndef double(x):" in prompt
    right, near, none = rewards(task, f"§</think>{EDIT}", f"§</think>{EDIT.replace('2 * x', 'x * 2')}", EDIT)
    assert right == 1 > near > none == 0
    (tested,) = loaded("swebench_verified_agentless", rows, join=join)
    (grade,) = get_environment("swerl_gen").grade(tested, [f"§</think>{EDIT}"])
    assert "runs its tests in" in str(grade.error)


def test_swe_bench_with_an_agent_needs_its_image_and_says_so(tmp_path: Path) -> None:
    rows = write(tmp_path / "verified.jsonl", VERIFIED)
    (task,) = loaded("swebench_verified", rows)
    assert "double(2) gives 2." in task.messages[-1]["content"]
    session = get_environment("swe_agents").start(task)
    assert session is not None
    assert "owner__pkg-1 needs its dataset's container image" in str(session.respond("I am done."))
    session.close()
