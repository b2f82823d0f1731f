"""Results of every tool, read from files of its form, give the same rewards."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kascade.errors import KascadeError, UserError
from kascade.results import read_results


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lm_eval_row(doc: int, acc: float, **more: Any) -> dict[str, Any]:
    row = {"doc_id": doc, "doc_hash": "ab", "filter": "none", "metrics": ["acc", "acc_norm"], "acc": acc}
    return {**row, "acc_norm": 1.0, "filtered_resps": ["said"], **more}


def test_lm_evals_samples(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "samples_arc_easy_2026-11-28T10-00-00.jsonl", [lm_eval_row(0, 1.0), lm_eval_row(1, 0.0)]
    )
    found = read_results(path)
    assert found.benchmarks["arc_easy"].rewards == {"0:ab": [1.0], "1:ab": [0.0]}
    assert found.answers["arc_easy", "0:ab"][0].text == '["said"]'
    assert read_results(path, metric="acc_norm").benchmarks["arc_easy"].rewards["1:ab"] == [1.0]
    assert read_results(tmp_path).benchmarks.keys() == {"arc_easy"}
    with pytest.raises(UserError, match="acc, acc_norm"):
        read_results(path, metric="f1")


def test_each_filter_of_lm_eval_is_a_benchmark_of_its_own(tmp_path: Path) -> None:
    rows = [lm_eval_row(0, 1.0, filter="strict"), lm_eval_row(0, 0.0, filter="flexible")]
    found = read_results(lines(tmp_path / "samples_gsm8k_2026.jsonl", rows))
    assert {name: list(one.rewards.values()) for name, one in found.benchmarks.items()} == {
        "gsm8k/strict": [[1.0]],
        "gsm8k/flexible": [[0.0]],
    }


def test_two_runs_in_one_folder_are_named_and_not_merged(tmp_path: Path) -> None:
    old = lines(tmp_path / "samples_arc_2026-11-28T10-00-00.jsonl", [lm_eval_row(0, 1.0)])
    new = lines(tmp_path / "samples_arc_2026-11-29T10-00-00.jsonl", [lm_eval_row(1, 0.0)])
    lines(tmp_path / "samples_mmlu_2026-11-28T10-00-00.jsonl", [lm_eval_row(0, 1.0)])
    with pytest.raises(UserError, match=r"benchmark arc is also in .*two runs") as raised:
        read_results(tmp_path)
    assert str(old) in str(raised.value) and str(new) in str(raised.value)
    assert read_results(new).benchmarks["arc"].rewards == {"1:ab": [0.0]}
    new.unlink()
    assert read_results(tmp_path).benchmarks.keys() == {"arc", "mmlu"}


def test_two_models_in_one_folder_are_named_and_not_merged(tmp_path: Path) -> None:
    for model, reward in (("one", 1.0), ("other", 0.0)):
        lines(
            tmp_path / model / "aime" / "results.jsonl", [{"problem_idx": 0, "repeat": 0, "reward": reward}]
        )
    with pytest.raises(UserError, match="benchmark aime is also in"):
        read_results(tmp_path)


def test_plain_lines_may_be_spread_over_files_once_each(tmp_path: Path) -> None:
    first = lines(tmp_path / "1.jsonl", [{"benchmark": "m", "task": "t", "reward": 1}])
    lines(tmp_path / "2.jsonl", [{"benchmark": "m", "task": "u", "reward": 0}])
    assert read_results(tmp_path).benchmarks["m"].rewards == {"t": [1.0], "u": [0.0]}
    lines(tmp_path / "3.jsonl", [{"benchmark": "m", "task": "t", "reward": 0}])
    with pytest.raises(UserError, match="m, task t, sample 0 is also in") as raised:
        read_results(tmp_path)
    assert str(first) in str(raised.value)
    twice = [{"task": "t", "sample": 3, "reward": 1}, {"task": "t", "sample": 3, "reward": 0}]
    with pytest.raises(UserError, match="sample 3 is there twice"):
        read_results(lines(tmp_path / "twice" / "a.jsonl", twice))


def inspect_sample(name: str, epoch: int, value: Any) -> dict[str, Any]:
    scores = {"match": {"value": value, "answer": "x"}}
    return {"id": name, "epoch": epoch, "input": "Q?", "scores": scores, "output": {"completion": "A."}}


def test_inspects_logs_as_json_and_as_archive(tmp_path: Path) -> None:
    samples = [inspect_sample("a", 1, "C"), inspect_sample("a", 2, "I"), inspect_sample("b", 1, 0.25)]
    samples.append({"id": "c", "epoch": 1, "input": "Q?", "error": {"message": "died"}})
    header = {"version": 2, "eval": {"task": "popqa"}}
    (tmp_path / "log.json").write_text(json.dumps({**header, "samples": samples}))
    with zipfile.ZipFile(tmp_path / "log.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(header))
        for sample in samples:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
    for name in ("log.json", "log.eval"):
        found = read_results(tmp_path / name).benchmarks["popqa"]
        assert found.rewards == {"a": [1.0, 0.0], "b": [0.25], "c": [None]}, "an error is not a zero"


def test_nemo_evaluators_results(tmp_path: Path) -> None:
    rows = [
        {"problem_idx": i, "repeat": k, "reward": float(i == k), "response": "r"}
        for i in (0, 1)
        for k in (0, 1)
    ]
    lines(tmp_path / "aime" / "results.jsonl", rows)
    found = read_results(tmp_path).benchmarks["aime"]
    assert found.rewards == {"0": [1.0, 0.0], "1": [0.0, 1.0]}


def test_plain_lines(tmp_path: Path) -> None:
    rows = [
        {"task": "t", "reward": 1},
        {"task": "t", "reward": None},
        {"task": "u", "reward": 0.5, "answer": "x"},
    ]
    found = read_results(lines(tmp_path / "mine.jsonl", rows))
    assert found.benchmarks["mine"].rewards == {"t": [1.0, None], "u": [0.5]}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", '{"task": "t", "reward": 2}\n', "from 0 to 1"),
        ("a.jsonl", '{"task": "t", "reward": NaN}\n', "from 0 to 1"),
        ("a.jsonl", '{"task": "t"}\n', "reward"),
        ("a.jsonl", '{"task": "t", "reward": 1, "sample": "first"}\n', "no number of an answer"),
        ("results.jsonl", '{"problem_idx": 1, "reward": 1, "repeat": 0.5}\n', "no number of an answer"),
        ("a.jsonl", "not json\n", "a.jsonl:1"),
        ("a.jsonl", "", "no graded answers"),
        ("a.json", "{", "Inspect"),
        ("a.eval", "PK", "Inspect"),
        ("samples_x_2026.jsonl", '{"doc_id": 1, "metrics": ["acc"], "acc": "high"}\n', "no metric"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(KascadeError, match=says):
        read_results(tmp_path / name)


def test_a_place_without_results_says_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="samples_"):
        read_results(tmp_path / "nothing")
