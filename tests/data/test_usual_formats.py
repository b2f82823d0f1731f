"""Published rows of the usual formats are learnt from without a flag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kascade.doctor.rows import load_rows
from kascade.recipe.parts import DataSource
from kascade.task import Task

CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
TOOL = {"name": "weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}
SAID = (("system", "Be brief."), ("user", "Hi?"), ("assistant", "Hi."))
CHATML = "\n".join(f"<|im_start|>{role}\n{text}<|im_end|>" for role, text in SAID)


def task_of(folder: Path, row: dict[str, Any], **source: Any) -> Task:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    rows = load_rows(DataSource(environment="any", path=str(path), **source))
    assert rows.faults == []
    (placed,) = rows.placed
    return placed.task


@pytest.mark.parametrize(
    ("row", "asked", "answer"),
    [
        ({"instruction": "Say hi.", "input": "", "output": "Hi."}, [("user", "Say hi.")], "Hi."),
        ({"instruction": "Shout.", "input": "hi", "output": "HI"}, [("user", "Shout.\n\nhi")], "HI"),
        ({"prompt": "1 + 1?", "completion": " 2"}, [("user", "1 + 1?")], " 2"),
        (
            {
                "prompt": [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1?"}],
                "completion": [{"role": "assistant", "content": "2"}],
            },
            [("system", "Add."), ("user", "1 + 1?")],
            "2",
        ),
        ({"question": "1 + 1?", "answer": 2, "id": "a"}, [("user", "1 + 1?")], "2"),
        ({"text": CHATML}, [("system", "Be brief."), ("user", "Hi?")], "Hi."),
        ({"text": "Once upon a time."}, [("user", "")], "Once upon a time."),
        (
            {"system": "Be kind.", "instruction": "Hi?", "output": "Hi."},
            [("system", "Be kind."), ("user", "Hi?")],
            "Hi.",
        ),
    ],
    ids=[
        "alpaca",
        "alpaca with input",
        "prompt and completion",
        "messages",
        "question",
        "chatml",
        "text",
        "system",
    ],
)
def test_a_usual_format_is_a_demonstration(
    tmp_path: Path, row: dict[str, Any], asked: list[tuple[str, str]], answer: str
) -> None:
    task = task_of(tmp_path, row)
    assert task.environment == "demonstrations"
    assert [(message["role"], message["content"]) for message in task.messages] == asked
    assert task.reference == answer


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [{"type": "function", "function": TOOL}]])
def test_sharegpt_with_tools_keeps_calls_and_results(tmp_path: Path, tools: Any) -> None:
    turns = [
        {"from": "human", "value": "Weather in Oslo?"},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains."},
    ]
    task = task_of(tmp_path, {"conversations": turns, "tools": tools})
    assert [message["role"] for message in task.messages] == ["user", "assistant", "tool"]
    assert task.tools[0]["function"]["name"] == "weather"
    assert task.reference == "It rains."
    every = [*turns[:2]]
    first = task_of(tmp_path, {"conversations": every, "tools": tools})
    assert "weather" in str(first.reference)


def test_rows_of_a_grader_are_no_demonstrations(tmp_path: Path) -> None:
    row = {"prompt": "Which?", "question": "Which?", "answer": "A", "options": [{"A": "a"}, {"B": "b"}]}
    assert task_of(tmp_path, {**row, "expected_answer": "A"}).environment == "mcqa"


def test_a_call_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    turns = [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": "weather(Oslo)"}]
    path.write_text(json.dumps({"conversations": turns}) + "\n", encoding="utf-8")
    (fault,) = load_rows(DataSource(environment="any", path=str(path))).faults
    assert "conversations[1].value" in fault.where


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_a_table_may_be_separated_by_another_sign(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f'question{sign}answer\n"1, 2; 3|4?"{sign}5\n', encoding="utf-8")
    (placed,) = load_rows(DataSource(environment="any", path=str(path))).placed
    assert placed.task.messages[0]["content"] == "1, 2; 3|4?"
    assert placed.task.reference == "5"


def test_a_table_of_one_column_is_not_split(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\nOnce; upon a time.\n", encoding="utf-8")
    (placed,) = load_rows(DataSource(environment="any", path=str(path))).placed
    assert placed.task.reference == "Once; upon a time."
