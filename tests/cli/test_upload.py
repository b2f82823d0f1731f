"""The verb upload: a model or rows to where a cluster's pods see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kascade.cli import app


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["upload", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_a_folder_is_copied_with_all_that_is_in_it(tmp_path: Path) -> None:
    source, target = tmp_path / "model", tmp_path / "volume" / "models" / "mine"
    (source / "inner").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "inner" / "rows.jsonl").write_text("1\n")
    told = json.loads(run(str(source), str(target), "--json"))
    assert told["files"] == ["config.json", "inner/rows.jsonl"]
    assert (target / "config.json").read_text() == "{}"
    assert (target / "inner" / "rows.jsonl").read_text() == "1\n"


def test_one_file_keeps_its_name_and_nothing_is_an_error(tmp_path: Path) -> None:
    rows = tmp_path / "math.jsonl"
    rows.write_text("1\n")
    assert run(str(rows), str(tmp_path / "rows")).strip().endswith("/rows/math.jsonl")
    assert (tmp_path / "rows" / "math.jsonl").read_text() == "1\n"
    assert "holds no file to upload" in run(str(tmp_path / "nowhere"), str(tmp_path / "rows"), code=2)


def test_one_file_takes_the_name_that_the_target_ends_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it ends as the file does; a folder of that name, and anything else, is a place."""
    monkeypatch.chdir(tmp_path)
    rows = tmp_path / "math.jsonl"
    rows.write_text("1\n")
    told = run(str(rows), str(tmp_path / "rows" / "train.jsonl")).strip()
    assert told == str(tmp_path / "rows" / "train.jsonl") and Path(told).read_text() == "1\n"
    assert run(str(rows), "here.jsonl").strip() == "./here.jsonl" and Path("here.jsonl").is_file()
    (tmp_path / "odd.jsonl").mkdir()
    assert run(str(rows), "odd.jsonl").strip() == "odd.jsonl/math.jsonl"
    assert run(str(rows), "v1.2").strip() == "v1.2/math.jsonl"
