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


def recipe_of(folder: Path, stages: list[dict[str, Any]], benchmarks: list[dict[str, Any]]) -> Path:
    """A recipe with one RL stage for each of the data sources."""
    path = folder / "recipe.yaml"
    kinds = ("multi_domain_rl", "if_rl", "code_rl", "long_context_rl")
    posed = [
        {"kind": kind, "name": kind, "steps": 1, "data": [{"source": source}]}
        for kind, source in zip(kinds, stages, strict=False)
    ]
    exams = [{"name": f"exam{n}", "source": source} for n, source in enumerate(benchmarks)]
    model = {"source": "builtin://mini-nemotron-h"}
    path.write_text(
        json.dumps({"kascade": 1, "name": "mine", "model": model, "stages": posed, "benchmarks": exams})
    )
    return path


def reports_of(recipe: Path) -> tuple[int, list[dict[str, Any]]]:
    result = kascade("data", "check", recipe, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_the_doctor_reads_all_that_a_recipe_reads(tmp_path: Path) -> None:
    """Rows of stages and benchmarks, each once, with who reads them; no fault hides another."""
    many = write(
        tmp_path / "many.jsonl", *(mcqa(f"Number {n}?", agent_ref={"name": "mcqa"}) for n in range(40))
    )
    few = write(tmp_path / "few.jsonl", mcqa("Only one?"))
    torn = write(tmp_path / "torn.jsonl", mcqa("Good?"), "{torn", *(mcqa(f"{n}?") for n in range(30)))
    own = {"environment": "mcqa", "path": str(many)}
    stages = [
        own,
        {"environment": "mcqa", "path": str(torn), "on_bad_row": "skip"},
        {"environment": "structured_outputs", "path": str(many)},
    ]
    exams = [
        own,
        {"environment": "mcqa", "path": str(few)},
        {"environment": "mcqa", "path": str(tmp_path / "nowhere.jsonl")},
        {"environment": "mcqa", "path": str(torn)},
        {"environment": "mcqa", "count": 8},
    ]
    code, reports = reports_of(recipe_of(tmp_path, stages, exams))
    told = [(one["read_by"], [f"{f['where']}: {f['what']}" for f in one["faults"]]) for one in reports]
    assert code == 2
    assert told == [
        ("learnt in multi_domain_rl; asked by exam0", []),
        ("learnt in if_rl", []),
        ("learnt in code_rl", [f"{many}: holds no rows of structured_outputs"]),
        ("asked by exam1", [f"{few}: has no rows that fall into the test split, which exam1 needs"]),
        ("asked by exam2", [f"{tmp_path / 'nowhere.jsonl'}: is not there"]),
        ("asked by exam3", [told[5][1][0]]),
    ]
    assert [fault["where"] for fault in reports[1]["skipped"]] == [f"{torn}:2"]
    assert told[5][1][0].startswith(f"{torn}:2")
    # its own test split is no contamination, and benchmarks' rows are not held against benchmarks
    assert reports[0]["contamination"]["benchmarks"]["exam0"]["seen"] == 0
    assert reports[3]["contamination"]["benchmarks"] == {}


def test_the_doctor_passes_a_recipe_whose_faulty_rows_may_be_skipped(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", "{torn", *(mcqa(f"{n}?") for n in range(30)))
    source = {"environment": "mcqa", "path": str(rows), "on_bad_row": "skip"}
    recipe = recipe_of(tmp_path, [source], [{"environment": "mcqa", "count": 8}])
    result = kascade("data", "check", recipe)
    assert result.exit_code == 0, result.output
    assert "1 faulty row skipped, as the recipe allows" in result.stdout
    assert "learnt in multi_domain_rl" in result.stdout
    strict = recipe_of(tmp_path, [{**source, "max_bad_rows": 0}], [{"environment": "mcqa", "count": 8}])
    refused = kascade("data", "check", strict)
    assert refused.exit_code == 2
    assert "max_bad_rows is 0" in refused.stdout


def test_the_doctor_says_that_a_generator_cannot_make_a_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kascade.environments.base.PATIENCE", 20)
    rows = write(tmp_path / "rows.jsonl", *(mcqa(f"{n}?") for n in range(30)))
    source = {"environment": "mcqa", "path": str(rows)}
    result = kascade("data", "check", recipe_of(tmp_path, [source], [{"environment": "mcqa"}]))
    assert result.exit_code == 2
    assert "30 rows" in result.stdout
    assert "different test tasks, 200 were asked for" in result.stderr


def test_the_doctor_tries_empty_answers_where_there_is_no_gold(tmp_path: Path) -> None:
    row = {"prompt": "Sort.", "problem_id": "p", "competition_id": "c"}
    rows = write(tmp_path / "rows.jsonl", row)
    code, report = checked(rows, "--environment", "competitive_coding_challenges")
    assert code == 2
    assert "no tests of problem c/p: name their file in the option `tests`" in report["faults"][0]["what"]
    tests = {"problem_id": "p", "competition_id": "c", "unit_tests": {"inputs": ["1\n"], "outputs": ["1\n"]}}
    given = f"tests={write(tmp_path / 'tests.jsonl', tests)}"
    code, report = checked(rows, "--environment", "competitive_coding_challenges", "--option", given)
    assert (code, report["faults"]) == (0, [])


def test_the_doctor_does_not_try_a_grader_without_its_judge(tmp_path: Path) -> None:
    row = {"prompt": "Capital?", "expected_answer": "Paris", "reference": "Paris"}
    rows = write(tmp_path / "rows.jsonl", row)
    result = kascade("data", "check", rows, "--environment", "lc_judge")
    assert result.exit_code == 0, result.output
    assert "asks a judge, and none is named (--judge-url): it was not tried" in result.stdout
    asked = ("--environment", "lc_judge", "--judge-url", "http://127.0.0.1:9/v1")
    code, report = checked(rows, *asked)
    assert code == 2
    assert "the grader failed" in report["faults"][0]["what"]


def test_the_doctor_says_why_a_row_belongs_nowhere(tmp_path: Path) -> None:
    rows = write(
        tmp_path / "rows.jsonl",
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": "Hi"},
        {"prompt": "A colour?", "chosen": "Blue."},
        {"q": "2 + 2?", "ans": "4"},
    )
    code, report = checked(rows)
    assert code == 2
    assert [fault["where"].partition(" ")[2] for fault in report["faults"]] == [
        "messages",
        "messages",
        "rejected",
        "agent_ref.name",
    ]
    assert "the fields (q, ans) are no known environment's" in report["faults"][3]["what"]


def test_rows_come_from_the_package_that_holds_the_environment(tmp_path: Path) -> None:
    """By way of a stand-in for the interpreter of the package; it ends when nobody reads on."""
    python, out, none = tmp_path / "python", tmp_path / "rows.jsonl", tmp_path / "none"
    python.write_text("#!/bin/sh\necho words >&2\nwhile echo '{\"prompt\": \"'$2 $3'\"}'; do :; done\n")
    python.chmod(0o755)
    package = ("data", "rows", "nemo_gym", "--option", "package=mcqa", "--option")
    assert kascade(*package, f"python={python}", "--out", out, "--most", "3").exit_code == 0
    assert out.read_text() == '{"prompt": "mcqa rows"}\n' * 3
    python.write_text("#!/bin/sh\necho no such server >&2\nexit 1\n")
    for wrong, problem in (
        ((*package, f"python={python}", "--out", out), "is there already"),
        ((*package, f"python={python}", "--out", none), "no such server"),
        ((*package, "python=/nowhere", "--out", none), "cannot be started"),
        ((*package, "url=http://h:1", "--out", none), "give one of"),
        (("data", "rows", "openenv", "--option", "url=http://h:1", "--out", none), "no package"),
        (("data", "rows", "nemo_gym", "--option", "url=http://h:1", "--out", none), "names the environment"),
    ):
        result = kascade(*wrong)
        assert (result.exit_code, problem in result.stderr) == (2, True), result.stderr
    assert not none.exists()
