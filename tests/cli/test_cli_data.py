"""`kascade grade` and `kascade data check` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kascade.cli import app

MCQA = {"options": [{"A": "a"}, {"B": "b"}], "expected_answer": "A"}


def kascade(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def mcqa(question: str = "Which letter comes first?", **more: Any) -> dict[str, Any]:
    return {"responses_create_params": {"input": f"{question}\nA: a\nB: b"}, **MCQA, **more}


def response(text: str, thought: str | None = None) -> dict[str, Any]:
    said = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": thought}]}
    return {"output": [reasoning, said] if thought else [said]}


def graded(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_grade_prints_one_line_a_row_and_names_faulty_rows(tmp_path: Path) -> None:
    rows = write(
        tmp_path / "rows.jsonl",
        mcqa(
            agent_ref={"name": "mcqa_simple_agent"},
            response=response("\\boxed{A}", thought="maybe \\boxed{B}"),
        ),
        mcqa(agent_ref={"name": "mcqa"}, response="\\boxed{B}"),
        mcqa(agent_ref={"name": "mcqa"}),
        mcqa(agent_ref={"name": "chess"}, response="e4"),
        mcqa(response="\\boxed{A}"),  # told by its fields
        {"responses_create_params": {"input": "Hm?"}, "response": "Hm!"},
        "{torn",
    )
    result = kascade("grade", rows)
    assert result.exit_code == 2
    assert [one["reward"] for one in graded(result)] == [1.0, 0.0, 1.0]
    assert [one["row"] for one in graded(result)] == [f"{rows}:{number}" for number in (1, 2, 5)]
    assert [f"{rows}:{number}" in result.stderr for number in (3, 4, 6, 7)] == [True] * 4


def test_grade_takes_the_environment_for_rows_that_name_none(tmp_path: Path) -> None:
    row = {"prompt": "2 + 2?", "expected_answer": "4", "response": "\\boxed{4}"}
    result = kascade("grade", write(tmp_path / "rows.jsonl", row), "--environment", "math_with_judge")
    assert (result.exit_code, graded(result)[0]["environment"], graded(result)[0]["reward"]) == (
        0,
        "math_with_judge",
        1,
    )


def test_grade_takes_the_environments_options_and_tells_the_mean(tmp_path: Path) -> None:
    node = {
        "prompt": "Parents?",
        "expected_answer": '["a"]',
        "response": "<think>Parents?</think>Final Answer: [a]",
    }
    rows = write(tmp_path / "rows.jsonl", node, {**node, "response": "Final Answer: [b]"})
    as_named = ("--environment", "lc_niah", "--option", "overlap_grading_rule=base")
    result = kascade("grade", rows, *as_named)
    assert [one["reward"] for one in graded(result)] == [1, 0]
    assert result.stderr.startswith("2 rows graded, mean reward lc_niah 0.500 (of 2), 0 grader errors")
    assert [one["reward"] for one in graded(kascade("grade", rows, *as_named[:2]))] == [0, 0]
    for wrong in (("--option", "overlap_grading_rule=base"), (*as_named[:2], "--option", "x=1")):
        assert kascade("grade", rows, *wrong).exit_code == 2
    assert "no such option" in kascade("grade", rows, *as_named[:2], "--option", "x=1").stderr


def test_grade_resumes_after_a_torn_line_and_grades_nothing_twice(tmp_path: Path) -> None:
    answers = [mcqa(f"Question {n}?", agent_ref={"name": "mcqa"}, response="\\boxed{A}") for n in range(4)]
    rows, out = write(tmp_path / "rows.jsonl", *answers[:2]), tmp_path / "grades.jsonl"
    assert kascade("grade", rows, "--out", out).exit_code == 0
    before = out.read_text()
    with out.open("a") as file:
        file.write('{"row": "half')
    write(rows, *answers)
    result = kascade("grade", rows, "--out", out)
    assert result.exit_code == 0, result.output
    assert "2 rows graded" in result.stderr
    assert "2 were graded before" in result.stderr
    assert out.read_text().startswith(before)
    assert len(out.read_text().splitlines()) == 4


def test_grade_touches_no_file_of_another_kind(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", mcqa(response="\\boxed{A}"))
    out = tmp_path / "thesis.txt"
    out.write_text("years of work\n")
    result = kascade("grade", rows, "--out", out)
    assert result.exit_code == 2
    assert out.read_text() == "years of work\n"


def checked(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    result = kascade("data", "check", *arguments, "--json")
    return result.exit_code, json.loads(result.stdout)[0]


LONG = (
    "The train leaves the old station at nine and reaches the harbour an hour later, as every day of the year"
)


def test_the_doctor_finds_faults_repeats_and_contamination(tmp_path: Path) -> None:
    near = (
        LONG.replace("harbour", "airport")
        + ", rain or shine, and nobody ever asks it to wait for anybody at all"
    )
    rows = write(
        tmp_path / "rows.jsonl",
        mcqa("One?"),
        mcqa("one"),
        mcqa(f"{LONG}, rain or shine, and nobody ever asks it to wait for anybody at all"),
        mcqa(near),
        {**mcqa("Two?"), "expected_answer": "C"},
        "not json",
    )
    exam = write(
        tmp_path / "exam.jsonl", mcqa(f"{LONG}?"), mcqa("How high is the highest mountain on the far side?")
    )
    code, report = checked(rows, "--benchmark", exam)
    assert code == 2
    assert report["rows"] == 6
    assert report["environments"] == {"mcqa": 4}
    assert [fault["where"] for fault in report["faults"]] == [f"{rows}:5 expected_answer", f"{rows}:6"]
    assert (report["duplicates"]["exact_groups"], report["duplicates"]["near_pairs"]) == (1, 0)
    assert report["contamination"]["benchmarks"] == {str(exam): {"tasks": 2, "seen": 1}}
    assert report["gold_and_empty_answers"]["mcqa"] == {"graded": 4, "wrong": 0, "without_gold": 0}
    _, looser = checked(rows, "--similarity", "0.6")
    assert looser["duplicates"]["near_pairs"] == 1


def test_the_doctor_shows_what_the_loss_sees(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}]
    rows = write(tmp_path / "rows.jsonl", {"messages": chat})
    code, report = checked(rows, "--environment", "demonstrations", "--model", "builtin://mini-nemotron-h")
    assert code == 0
    learnt = [part for part in report["view"]["parts"] if part["loss"]]
    assert [part["text"].rstrip() for part in learnt] == ["Hello there<|im_end|>"]
    assert report["lengths"]["unit"] == "tokens"
    assert report["lengths"]["answer"]["total"] == learnt[0]["tokens"]
    text = kascade("data", "check", rows, "--environment", "demonstrations")
    assert text.exit_code == 0, text.output
    assert "[user] Hi\n⟦Hello there⟧" in text.stdout


def test_the_doctor_catches_a_gold_answer_that_its_grader_rejects(tmp_path: Path) -> None:
    row = {**mcqa(), "reference": "I would say \\boxed{B}"}
    code, report = checked(write(tmp_path / "rows.jsonl", row))
    assert code == 2
    assert report["faults"][0]["what"] == "the gold answer grades 0, an empty one 0"


def test_the_doctor_reads_the_rows_of_a_recipe(tmp_path: Path) -> None:
    rows = write(tmp_path / "mcqa.jsonl", *(mcqa(f"Number {n}?") for n in range(40)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"preset: quickstart\ndata: {{mcqa: {rows.name}}}\n")
    result = kascade("data", "check", recipe)
    assert result.exit_code == 0, result.output
    assert "40 rows" in result.stdout
    assert "tasks of knowledge are seen" in result.stdout
    empty = kascade("data", "check", "quickstart")
    assert empty.exit_code == 2
    assert "reads no rows" in empty.stderr


@pytest.mark.parametrize("option", [("--column", "x"), ("--layout", "scrolls")])
def test_the_doctor_refuses_unknown_wishes(tmp_path: Path, option: tuple[str, str]) -> None:
    result = kascade("data", "check", write(tmp_path / "rows.jsonl", mcqa()), *option)
    assert result.exit_code == 2
    assert option[1] in result.stderr


def test_the_doctor_uses_a_recipes_options(tmp_path: Path) -> None:
    tests = {"problem_id": "p", "competition_id": "c", "unit_tests": {"inputs": ["1\n"], "outputs": ["1\n"]}}
    write(tmp_path / "tests.jsonl", tests)
    row = {"prompt": "Echo.", "problem_id": "p", "competition_id": "c", "reference": "print(input())"}
    rows = write(tmp_path / "rows.jsonl", row)
    recipe = tmp_path / "recipe.yaml"
    options = {"tests": str(tmp_path / "tests.jsonl"), "language": "python"}
    source = {"environment": "competitive_coding_challenges", "path": str(rows), "options": options}
    stages = [{"kind": "code_rl", "name": "code", "steps": 1, "data": [{"source": source}]}]
    full = {"kascade": 1, "name": "mine", "model": {"source": "builtin://mini-nemotron-h"}, "stages": stages}
    recipe.write_text(
        json.dumps({**full, "benchmarks": [{"name": "exam", "source": {"environment": "mcqa", "count": 8}}]})
    )
    code, report = checked(recipe)
    assert (code, report["faults"]) == (0, [])
    assert report["gold_and_empty_answers"]["competitive_coding_challenges"]["wrong"] == 0
    assert report["gold_and_empty_answers"]["competitive_coding_challenges"]["graded"] == 1
