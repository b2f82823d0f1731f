import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kascade.data.packing import micro_batches
from kascade.data.rows import read_rows, tasks_from_rows
from kascade.environments.base import Environment, Grade, Task
from kascade.errors import UserError


class Echo(Environment):
    name, domain = "echo", "chat"

    def pose(self, rng: random.Random, level: float) -> Task:
        return self.from_row({"say": str(rng.random())})

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return [Grade(float(answer == task.fields["say"])) for answer in answers]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        if "say" not in row:
            raise ValueError("field 'say' is missing")
        return Task("echo", "chat", ({"role": "user", "content": row["say"]},), row)


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"say": "a"}\n\n[1]\n{"say"\n{"ask": 1}\n{"say": "\xff"}\n{"say": "a"}\n')
    with pytest.raises(UserError) as caught:
        tasks_from_rows(Echo(), path)
    assert sorted(fault.where for fault in caught.value.faults) == [f"{path}:{n}" for n in (3, 4, 5, 6)]


def test_good_rows_come_in_order_with_line_numbers_and_repeats_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"say": "a"}\n\n{"say": "b"}\n{"say": "a"}', encoding="utf-8")
    assert [(n, row["say"]) for n, row in read_rows(path)] == [(1, "a"), (3, "b"), (4, "a")]
    assert [task.fields["say"] for task in tasks_from_rows(Echo(), path)] == ["a", "b"]


@pytest.mark.parametrize("content", [None, "", "\n\n"])
def test_a_missing_or_empty_file_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"rows\.jsonl"):
        tasks_from_rows(Echo(), path)


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line and line.strip()), min_size=1))
def test_any_bytes_are_rows_or_faults(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(b"\n".join([json.dumps({"say": 1}).encode(), *lines]))
    found, faults = 0, 0
    try:
        for _ in read_rows(path):
            found += 1
    except UserError as error:
        faults = len(error.faults)
    assert found + faults == 1 + len(lines)


@given(st.lists(st.integers(0, 500), max_size=60), st.integers(1, 2000))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = micro_batches(lengths, budget)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= budget
