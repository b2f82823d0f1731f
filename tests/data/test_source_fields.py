"""Every field of a data source is measured on every kind of rows: it changes the tasks, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kascade.errors import UserError
from kascade.recipe.parts import DataSource
from kascade.rollout.pools import source_tasks
from kascade.task import Split, Task

GRADED = {"options": [{"A": "a"}, {"B": "b"}], "expected_answer": "A"}
Row = dict[str, Any]


def question(number: int) -> str:
    return f"Which letter is first, round {number}?"


def plain(number: int) -> Row:
    return {"prompt": question(number), "topic": "letters", "id": str(number), **GRADED}


def nemo_gym(number: int) -> Row:
    return {**plain(number), "responses_create_params": {"input": question(number)}}


def nemo_gym_turns(number: int) -> Row:
    turns = [{"role": "user", "content": question(number)}]
    return {**plain(number), "responses_create_params": {"input": turns}}


def messages(number: int) -> Row:
    turns = [{"role": "user", "content": question(number)}, {"role": "assistant", "content": "A"}]
    return {**{name: value for name, value in plain(number).items() if name != "prompt"}, "messages": turns}


SHAPES = [plain, nemo_gym, nemo_gym_turns, messages]
CHANGES: dict[str, Row] = {
    "environment": {"environment": "chat"},
    "columns": {"columns": {"expected_answer": "other"}},
    "prompt": {"prompt": "About {topic} {id}: which is first?"},
    "system": {"system": "Be brief."},
    "thinking": {"thinking": True},
    "mode": {"mode": "think"},
    "hold_out": {"hold_out": False},
    "split": {"split": "train"},
    "format": {"format": "csv"},
    "join": {"join": {"path": "JOINED", "columns": {"expected_answer": "other"}}},
}


def rows_of(shape: Any, folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({**shape(n), "other": "B"}) + "\n" for n in range(60)))
    joined = folder / "joined.jsonl"
    joined.write_text("".join(json.dumps({"id": str(n), "other": "B"}) + "\n" for n in range(60)))
    return path


def asked(of: Split = "test", **fields: Any) -> list[Task] | str:
    """The tasks, or the refusal."""
    try:
        return source_tasks(DataSource(**{"environment": "mcqa", **fields}), split=of, seed=0)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("field", CHANGES)
def test_a_field_of_rows_changes_the_tasks_or_is_refused(field: str, shape: Any, tmp_path: Path) -> None:
    path = str(rows_of(shape, tmp_path))
    text = json.dumps(CHANGES[field]).replace("JOINED", str(tmp_path / "joined.jsonl"))
    before, after = asked(path=path), asked(**{"path": path, **json.loads(text)})
    assert isinstance(before, list) and after != before
    if field in ("prompt", "system"):
        assert isinstance(after, list)
        said = [message["content"] for message in after[0].messages]
        assert ("Be brief." in said) if field == "system" else said[-1].startswith("About letters")


@pytest.mark.parametrize("field", ["count", "levels", "options", "thinking", "mode"])
def test_a_field_of_generated_tasks_changes_them(field: str) -> None:
    change: Row = {"count": 9, "levels": [0.0, 0.1], "thinking": True}
    change |= {"options": {"memory_mb": 99}, "mode": "think"}
    before, after = (
        asked(**{"count": 12, "environment": "code_gen", **more}) for more in ({}, {field: change[field]})
    )
    assert after != before
    if field == "thinking":
        assert isinstance(after, list) and all(task.thinking for task in after)


def test_turns_and_bad_rows(tmp_path: Path) -> None:
    path = rows_of(plain, tmp_path)
    path.write_text(path.read_text() + '{"prompt": "x"}\n')
    assert ":61 options: give at least two" in str(asked(path=str(path)))
    assert isinstance(asked(path=str(path), on_bad_row="skip"), list)
    assert "max_bad_rows is 0" in str(asked(path=str(path), on_bad_row="skip", max_bad_rows=0))
    turns = [{"role": role, "content": str(n)} for n in range(4) for role in ("user", "assistant")]
    path.write_text("".join(json.dumps({"messages": [*turns, *turns[:2]], "id": n}) + "\n" for n in range(9)))
    found = [
        asked(environment="demonstrations", path=str(path), hold_out=False, turns=one)
        for one in ("last", "all")
    ]
    assert [len(one) for one in found] == [1, 5]


def test_a_split_of_what_has_none_is_refused(tmp_path: Path) -> None:
    """All rows were read, those of the other splits among them."""
    path = rows_of(plain, tmp_path)
    assert "is one file, and the data source names its split 'test'" in str(
        asked(path=str(path), split="test")
    )
    assert isinstance(asked(path=str(path)), list)
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([plain(0)]).save_to_disk(str(tmp_path / "saved"))
    assert "without splits" in str(asked(path=str(tmp_path / "saved"), split="test"))


def test_a_prompt_does_not_stand_for_a_conversation(tmp_path: Path) -> None:
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": turns, "topic": "letters"}) + "\n")
    refused = asked(environment="demonstrations", path=str(path), prompt="About {topic}", hold_out=False)
    assert "prompt: stands for one user's turn, and the row holds 4 turns" in str(refused)
