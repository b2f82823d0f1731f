"""Rows of every shape and format: all become tasks, and what is wrong names file, line, field and remedy."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kascade.data.packing import micro_batches
from kascade.data.rows import read_rows
from kascade.environments import get_environment
from kascade.environments.base import Environment
from kascade.environments.rows.loading import load_tasks
from kascade.errors import Fault, UserError
from kascade.recipe.parts import DataSource
from kascade.task import Grade, Task

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on shared cores


class Echo(Environment):
    """A user's environment with rows of its own shape."""

    name, domain = "echo", "chat"

    def pose(self, rng: random.Random, level: float) -> Task:
        return self.from_row({"say": str(rng.random())})

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return [Grade(float(answer == task.fields["say"])) for answer in answers]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        if "say" not in row:
            raise ValueError("say: is missing")
        return Task("echo", "chat", ({"role": "user", "content": row["say"]},), row)


def source(path: Path | str, environment: str = "echo", **fields: Any) -> DataSource:
    return DataSource(environment=environment, path=str(path), **fields)


def tasks(path: Path, environment: str, **fields: Any) -> tuple[Task, ...]:
    return load_tasks(get_environment(environment), source(path, environment, **fields)).tasks


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"say": "a"}\n\n[1]\n{"say"\n{"ask": 1}\n{"say": "\xff"}\n{"say": "a"}\n')
    with pytest.raises(UserError) as caught:
        load_tasks(Echo(), source(path))
    places = [fault.where for fault in caught.value.faults]
    assert places == [f"{path}:3", f"{path}:4", f"{path}:5 say", f"{path}:6"]
    assert all(fault.remedy for fault in caught.value.faults)


def test_bad_rows_are_skipped_and_counted_up_to_a_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"say": "a"}, {"ask": 1}, [2], {"say": "b"})
    loaded = load_tasks(Echo(), source(path, on_bad_row="skip"))
    assert [task.fields["say"] for task in loaded.tasks] == ["a", "b"]
    assert len(loaded.skipped) == 2
    with pytest.raises(UserError, match="max_bad_rows is 1") as caught:
        load_tasks(Echo(), source(path, on_bad_row="skip", max_bad_rows=1))
    assert len(caught.value.faults) == 3


def test_good_rows_come_in_order_with_line_numbers_and_repeats_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"say": "a"}\n\n{"say": "b"}\n{"say": "a"}', encoding="utf-8")
    found = list(read_rows(source(path)))
    assert [place for place, _ in found] == [f"{path}:1", f"{path}:3", f"{path}:4"]
    loaded = load_tasks(Echo(), source(path))
    assert [task.fields["say"] for task in loaded.tasks] == ["a", "b"]
    assert loaded.num_repeated == 1


@pytest.mark.parametrize("content", [None, "", "\n\n"])
def test_a_missing_or_empty_file_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"rows\.jsonl"):
        load_tasks(Echo(), source(path))


@PATIENT
@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line and line.strip()), min_size=1))
def test_any_bytes_are_rows_or_faults(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(b"\n".join([json.dumps({"say": 1}).encode(), *lines]))
    found = [row for _, row in read_rows(source(path))]
    assert len(found) == 1 + len(lines)
    assert found[0] == {"say": 1}


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Two and two?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And three?"},
    {"role": "assistant", "content": "Seven.", "reasoning_content": "4 + 3"},
]


def test_messages_become_demonstrations_of_the_last_or_of_every_turn(tmp_path: Path) -> None:
    path = write(tmp_path / "chat.jsonl", {"messages": CHAT})
    (last,) = tasks(path, "demonstrations")
    assert last.reference == "4 + 3</think>Seven."
    assert last.thinking
    assert [message["role"] for message in last.messages] == ["system", "user", "assistant", "user"]
    every = tasks(path, "demonstrations", turns="all")
    assert [task.reference for task in every] == ["Four.", "4 + 3</think>Seven."]
    assert not every[0].thinking
    grades = get_environment("demonstrations").grade(last, ["hm</think>Seven. ", "Eight.", ""])
    assert [grade.reward for grade in grades] == [1, 0, 0]


def test_sharegpt_and_tool_calls_are_read_as_messages(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": "x"}'}}
    path = write(
        tmp_path / "chat.jsonl",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Add."}]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "1", "content": "4"},
                {"role": "assistant", "content": "It is 4."},
            ],
            "tools": [{"type": "function", "name": "add"}],
        },
    )
    hello, added = tasks(path, "demonstrations")
    assert (hello.messages[0]["content"], hello.reference) == ("Hi", "Hello")
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": "x"}}}
    assert added.messages[1] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert added.messages[2] == {"role": "tool", "content": "4"}
    assert added.tools == ({"type": "function", "name": "add"},)
    (first, *_) = tasks(path, "demonstrations", turns="all")[1:]
    assert first.reference == (
        "<tool_call><function=add><parameter=a>2</parameter><parameter=b>x</parameter></function></tool_call>"
    )


def test_preference_pairs_in_three_spellings(tmp_path: Path) -> None:
    asked, good, bad = (
        {"role": r, "content": c} for r, c in (("user", "Hi?"), ("assistant", "Hello!"), ("assistant", "No."))
    )
    path = write(
        tmp_path / "pairs.jsonl",
        {"prompt": "One?", "chosen": "yes", "rejected": "no"},
        {"prompt": [asked], "chosen": [good], "rejected": [bad]},
        {"chosen": [{**asked, "content": "Three?"}, good], "rejected": [{**asked, "content": "Three?"}, bad]},
    )
    found = tasks(path, "demonstrations")
    assert [task.messages[0]["content"] for task in found] == ["One?", "Hi?", "Three?"]
    assert [(task.fields["chosen"], task.fields["rejected"]) for task in found] == [
        ("yes", "no"), ("Hello!", "No."), ("Hello!", "No."),
    ]  # fmt: skip
    assert [task.reference for task in found] == ["yes", "Hello!", "Hello!"]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "responses_create_params.input[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "responses_create_params.input[0].content"),
        ({"chosen": "a", "rejected": "b"}, "prompt"),
        ({"prompt": "p", "chosen": 1, "rejected": "b"}, "chosen"),
        ({"chosen": [{"role": "user", "content": "x"}], "rejected": "b"}, "chosen"),
        ({"prompt": "p", "reference": 4}, "reference"),
        ({"words": "what is this"}, "responses_create_params"),
        ({"agent_ref": {"name": "mcqq_simple_agent"}, "prompt": "p"}, "agent_ref.name"),
    ],
)  # fmt: skip
def test_a_faulty_shape_names_its_field(tmp_path: Path, row: dict[str, Any], field: str) -> None:
    path = write(tmp_path / "rows.jsonl", row)
    with pytest.raises(UserError) as caught:
        tasks(path, "demonstrations")
    (fault,) = caught.value.faults
    assert fault.where == f"{path}:1 {field}"
    assert fault.remedy


def test_an_unknown_server_is_refused_with_the_nearest_known(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"agent_ref": {"name": "mqca_simple_agent"}, "prompt": "p"})
    with pytest.raises(
        UserError, match="'mqca_simple_agent' is no registered environment; the nearest is 'mcqa'"
    ):
        tasks(path, "mcqa")


def mcqa(letter: str, **more: object) -> dict[str, object]:
    return {
        "responses_create_params": {"input": f"Which one is {letter}?"},
        "options": [{"A": "x"}, {"B": "y"}],
        "expected_answer": letter,
        **more,
    }


def test_a_file_of_many_environments_gives_each_its_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path / "blend.jsonl",
        mcqa("A", agent_ref={"name": "mcqa_simple_agent"}),
        {"prompt": "1 + 1?", "expected_answer": "2", "agent_ref": {"name": "math_with_judge_simple_agent"}},
        mcqa("B"),
    )
    loaded = load_tasks(get_environment("mcqa"), source(path, "mcqa"))
    assert [task.fields["expected_answer"] for task in loaded.tasks] == ["A", "B"]
    assert loaded.elsewhere == {"math_with_judge": 1}
    only = write(tmp_path / "other.jsonl", mcqa("A", agent_ref={"name": "mcqa"}))
    with pytest.raises(UserError, match="holds no rows of math_with_judge"):
        tasks(only, "math_with_judge")


def test_tables_with_mapped_columns_and_a_prompt_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "quiz.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["q", "ans", "meta"], ["What is\n2, + 2?", "4", "{}"], ["3 + 3?", "6", "{}"]])
    template = "Solve {q} Answer in \\boxed{}."
    found = tasks(
        path, "math_with_judge", columns={"expected_answer": "ans"}, prompt=template, system="Be sure."
    )
    assert [message["content"] for message in found[0].messages] == [
        "Be sure.", "Solve What is\n2, + 2? Answer in \\boxed{}.",
    ]  # fmt: skip
    assert [task.fields["expected_answer"] for task in found] == ["4", "6"]
    with pytest.raises(UserError) as caught:
        tasks(path, "math_with_judge", columns={"expected_answer": "answer"}, prompt="{q}")
    assert [fault.where for fault in caught.value.faults] == [f"{path}:2 answer", f"{path}:4 answer"]


def test_a_torn_table_is_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text('prompt\texpected_answer\n1 + 1\t2\nshort\n"open\t3\n', encoding="utf-8")
    with pytest.raises(UserError) as caught:
        tasks(path, "math_with_judge")
    assert [fault.where for fault in caught.value.faults] == [f"{path}:3", f"{path}:4"]


ROWS = [mcqa("A"), mcqa("B")]


def saved(folder: Path, rows: list[dict[str, Any]], *, splits: bool) -> Path:
    datasets = pytest.importorskip("datasets", reason="NOT RUN: the datasets library is not installed")
    found = datasets.Dataset.from_list(rows)
    (datasets.DatasetDict({"train": found, "test": found.select([0])}) if splits else found).save_to_disk(
        folder
    )
    return folder


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as arrow
    import pyarrow.parquet as files

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(arrow.Table.from_pylist(rows), path)
    return path


def test_every_format_holds_the_same_rows(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", *ROWS)
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    with gzip.open(tmp_path / "c.jsonl.gz", "wb") as file:
        file.write(lines.read_bytes())
    with (tmp_path / "d.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(
            [{k: json.dumps(v) if not isinstance(v, str) else v for k, v in row.items()} for row in ROWS]
        )
    parquet(tmp_path / "e.parquet", ROWS)
    write(tmp_path / "plain_name", *ROWS)
    wanted = [task.id for task in tasks(lines, "mcqa")]
    for name in ("b.json", "c.jsonl.gz", "d.csv", "e.parquet"):
        assert [task.id for task in tasks(tmp_path / name, "mcqa")] == wanted, name
    assert [task.id for task in tasks(tmp_path / "plain_name", "mcqa", format="jsonl")] == wanted
    with pytest.raises(UserError, match="cannot tell the format"):
        tasks(tmp_path / "plain_name", "mcqa")
    assert len(tasks(saved(tmp_path / "saved", ROWS, splits=False), "mcqa")) == 2
    assert len(tasks(saved(tmp_path / "split", ROWS, splits=True), "mcqa")) == 2
    assert len(tasks(tmp_path / "split", "mcqa", split="test")) == 1
    with pytest.raises(UserError, match="has no split 'dev'"):
        tasks(tmp_path / "split", "mcqa", split="dev")


def test_a_folder_of_data_files_is_read_by_split(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [ROWS[0]])
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [ROWS[1]])
    (tmp_path / "README.md").write_text("a card")
    assert len(tasks(tmp_path, "mcqa")) == 2
    assert [task.fields["expected_answer"] for task in tasks(tmp_path, "mcqa", split="test")] == ["B"]
    with pytest.raises(UserError, match="no data file of split 'dev'"):
        tasks(tmp_path, "mcqa", split="dev")


@pytest.mark.parametrize("content", [b"PAR1 this is not parquet PAR1", b""])
def test_a_broken_parquet_file_is_one_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable Parquet file"):
        tasks(path, "mcqa")


def test_an_address_nobody_opens_is_refused() -> None:
    with pytest.raises(UserError, match="gopher"):
        load_tasks(get_environment("mcqa"), source("gopher://somewhere/rows.jsonl", "mcqa"))


def test_a_hub_dataset_that_is_not_there_is_a_fault_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="NOT RUN: the datasets library is not installed")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="hf://kascade-tests/none: cannot be loaded"):
        load_tasks(get_environment("mcqa"), source("hf://kascade-tests/none", "mcqa"))


def test_faults_and_rows_are_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", 1, {"say": "x"})
    assert [isinstance(found, Fault) for _, found in read_rows(source(path))] == [True, False]


@PATIENT
@given(st.lists(st.integers(0, 500), max_size=60), st.integers(1, 2000))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = micro_batches(lengths, budget)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= budget
