"""Files of other tools that are damaged, doubled or misshapen: refused with their place, never guessed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kascade.errors import UserError
from kascade.results.reading import read_results

HUGE = "1" + "0" * 400
DEEP = "[" * 100_000


def lm(doc_id: int, **more: Any) -> dict[str, Any]:
    row = {"doc_id": doc_id, "doc_hash": f"h{doc_id}", "filter": "none", "filtered_resps": ["x"]}
    return {**row, "metrics": ["exact_match"], "exact_match": 1.0, **more}


def sample(name: Any, **more: Any) -> dict[str, Any]:
    row = {"id": name, "epoch": 1, "input": "q", "output": {"completion": "a"}}
    return {**row, "scores": {"match": {"value": "C"}}, **more}


def scored(*values: tuple[str, Any]) -> dict[str, Any]:
    return {"scores": {name: {"value": value} for name, value in values}}


def read(folder: Path, name: str, lines: list[Any]) -> Any:
    file = folder / name
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return read_results(file)


@pytest.mark.parametrize(
    ("name", "lines", "says"),
    [
        ("samples_t_1.jsonl", [lm(0), lm(1), lm(1)], "sample 0 is there twice"),
        ("samples_t_1.jsonl", [lm(0), lm(1, exact_match=float("nan"))], "nan is no reward"),
        ("samples_t_1.jsonl", [lm(0), lm(1, exact_match=float("inf"))], "jsonl:2: inf is no reward"),
        ("samples_t_1.jsonl", [lm(0), json.dumps(lm(1)).replace("1.0", HUGE)], "is no reward"),
        (
            "samples_t_1.jsonl",
            [lm(0), lm(1, metrics=["acc"], acc=1.0)],
            "jsonl:2: has no metric 'exact_match'",
        ),
        ("samples_t_1.jsonl", [lm(0), lm(1, exact_match="1.0")], "jsonl:2: has no metric"),
        ("samples_t_1.jsonl", [{**lm(0), "doc_id": None}], "jsonl:1: has no `doc_id`"),
        ("samples_t_1.jsonl", [lm(0), '{"doc_id": 1, "exa'], "jsonl:2: is not a JSON object"),
        ("samples_t_1.jsonl", [DEEP], "jsonl:1: is not a JSON object"),
        ("results.jsonl", [{"problem_idx": 1, "reward": 1.0}, {"reward": 1.0}], "has no `problem_idx`"),
        ("results.jsonl", [{"problem_idx": 1, "score": 1.0}], "jsonl:1: has no `reward`"),
        ("results.jsonl", [{"problem_idx": 1, "reward": 1.0, "repeat": -1}], "`repeat` -1"),
        ("plain.jsonl", [{"task": [1], "reward": 1}], "`task` [1] is no name"),
        ("plain.jsonl", [{"task": 1, "reward": 1, "benchmark": {}}, {"task": [], "reward": 1}], "is no name"),
        ("plain.jsonl", [{"task": 1, "reward": 1, "sample": -1}], "`sample` -1"),
        ("plain.jsonl", [f'{{"task": 1, "reward": {HUGE}}}'], "is no reward"),
    ],
)
def test_lines_that_cannot_be_results_are_named(
    tmp_path: Path, name: str, lines: list[Any], says: str
) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, name, lines)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ([1, 2], "is no Inspect log"),
        (7, "is no Inspect log"),
        ({"version": 99, "samples": [sample(1)]}, "of version 99"),
        ({"samples": 7}, "holds no graded answers"),
        ({"eval": 7, "samples": [7]}, "sample 1: is no object"),
        ({"samples": [sample(1), sample(1)]}, "sample 0 is there twice"),
        ({"samples": [sample(None)]}, "has no `id`"),
        ({"samples": [sample(1, epoch=0)]}, "`epoch` 0"),
        ({"samples": [sample(1, scores=[1])]}, "are no objects"),
        ({"samples": [sample(1, output=[1])]}, "are no objects"),
        ({"samples": [sample(1, **scored(("match", {"a": 1, "b": 0})))]}, "several values"),
        ({"samples": [sample(1, **scored(("match", "Z")))]}, "'Z' is no grade"),
    ],
)
def test_logs_of_another_shape_are_named(tmp_path: Path, log: Any, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, "log.json", [log])
    assert says in str(caught.value)


def test_one_scorer_grades_all_samples_of_a_log(tmp_path: Path) -> None:
    """Whichever came first in each sample was taken: two scorers were mixed."""
    one, other = scored(("a", 1), ("b", 0)), scored(("b", 0), ("a", 1))
    found = read(tmp_path, "log.json", [{"samples": [sample(1, **one), sample(2, **other)]}])
    assert found.benchmarks["log"].rewards == {"1": [1.0], "2": [1.0]}


def test_a_sample_that_was_not_scored_is_missing(tmp_path: Path) -> None:
    samples = [sample(1, scores={}), sample(2), sample(3, **scored(("match", float("nan"))))]
    found = read(tmp_path, "log.json", [{"samples": samples}])
    assert found.benchmarks["log"].rewards == {"1": [None], "2": [1.0], "3": [None]}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"samples/1.json": "{}"}, "header.json"),
        ({"header.json": "{}", "samples/1.json": '{"id":'}, "Expecting value"),
        ({"header.json": DEEP}, "recursion"),
        ({"header.json": "{}", "samples/1.json": " " * 2000}, "more than 1,000 bytes"),
    ],
)
def test_a_damaged_archive_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: dict[str, str], says: str
) -> None:
    monkeypatch.setattr("kascade.results.outside.LARGEST_ENTRY", 10**3 if "1,000" in says else 10**9)
    with zipfile.ZipFile(tmp_path / "log.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in entries.items():
            archive.writestr(name, text)
    with pytest.raises(UserError, match="is no Inspect log") as caught:
        read_results(tmp_path / "log.eval")
    assert says in str(caught.value)


def test_half_a_character_becomes_a_mark_and_a_byte_order_mark_is_nothing(tmp_path: Path) -> None:
    line = '{"task": "a\\ud800", "benchmark": "b\\udfff", "reward": 1, "answer": "\\ud800"}'
    found = read(tmp_path, "plain.jsonl", ["\ufeff" + line])
    assert found.answers["b\ufffd", "a\ufffd"][0].text == "\ufffd"
