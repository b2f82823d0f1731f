"""What two sets of results show, and the command that prints it."""

from __future__ import annotations

import json
from inspect import signature
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import kascade
from kascade.cli import app
from kascade.errors import UserError
from kascade.exams.anywhere import write_results
from kascade.guard.rewards import TaskRewards
from kascade.results import Results, compare_results
from kascade.results.comparing import differences, holm
from kascade.results.model import Answer


def results(name: str, seed: int, chance: float, tasks: int = 400, samples: int = 4) -> Results:
    rng = np.random.default_rng(seed)
    return Results.of(
        name,
        [
            Answer("math", f"t{task}", k, float(rng.random() < chance), f"{name} says {k}", "Q?")
            for task in range(tasks)
            for k in range(samples)
        ],
    )


def test_a_fall_is_lost_an_equal_one_kept_and_a_small_benchmark_not_shown() -> None:
    before = results("a", 0, 0.6)
    (fallen,) = compare_results(before, results("b", 1, 0.5))
    assert fallen.standing == "lost" and fallen.p_fall < 1e-4 and fallen.p_rise > 0.9
    assert fallen.found.interval[0] < -0.1 < fallen.found.interval[1]
    (equal,) = compare_results(before, results("b", 2, 0.62))
    assert equal.standing == "kept"
    (small,) = compare_results(results("a", 3, 0.6, tasks=20), results("b", 4, 0.6, tasks=20))
    assert small.standing == "not_shown" and small.visible > fallen.visible


def test_tasks_of_one_side_count_as_missing_on_the_other() -> None:
    before, after = results("a", 0, 0.5, tasks=30), results("b", 1, 0.5, tasks=40)
    (row,) = compare_results(before, after)
    assert (row.found.num_tasks, row.only_a, row.only_b) == (30, 0, 10)
    assert (row.found.missing_before, row.found.missing_after) == (0.25, 0.0)
    low, high = row.found.bounds
    assert high - low == pytest.approx(0.25)
    assert row.standing == "not_judged"
    (allowed,) = compare_results(before, after, max_missing=1.0, unequal_missing=0.0)
    assert allowed.standing == "not_shown"
    other = Results.of("c", [Answer("other", "t0", 0, 1.0)])
    with pytest.raises(UserError, match="no graded task in common"):
        compare_results(before, other)


@pytest.mark.parametrize("absent", ["left out", "null", "no answer"])
def test_a_model_that_left_out_what_it_failed_has_not_kept_it(absent: str) -> None:
    """60 of 400 tasks of B, on which it would have failed, are not there: what is left looks equal."""
    before = results("a", 0, 0.6)
    other = results("b", 2, 0.62).benchmarks["math"].rewards
    hidden = {"left out": None, "null": [None] * 4, "no answer": []}[absent]
    rewards = {task: r if int(task[1:]) >= 60 else hidden for task, r in other.items()}
    after = TaskRewards("math", "b", {task: r for task, r in rewards.items() if r is not None})
    (row,) = compare_results(before, Results("b", {"math": after}))
    assert (row.found.missing_after, row.standing) == (0.15, "not_judged")


def test_the_shown_interval_is_the_one_of_the_level(tmp_path: Path) -> None:
    before, after = results("a", 0, 0.6), results("b", 1, 0.56)
    (row,) = compare_results(before, after)
    assert row.interval == pytest.approx(row.found.interval)
    (strict,) = compare_results(before, after, level=0.001)
    assert strict.interval == strict.found.limits(0.0005)
    assert strict.interval[0] < row.interval[0] < row.interval[1] < strict.interval[1]
    paths = [str(tmp_path / f"{one.name}.jsonl") for one in (before, after)]
    for path, one in zip(paths, (before, after), strict=True):
        write_results(Path(path), one)
    shown = CliRunner().invoke(app, ["compare", *paths, "--level", "0.001"])
    assert shown.exit_code == 0, shown.output
    low, high = strict.interval
    assert f"[{low:+.3f}," in shown.output and f"{high:+.3f}]" in shown.output
    head, _, legend = shown.output.partition("kept:")
    assert "99.9%" in head and "95%" not in head
    assert "one-sided at 99.9%" in legend and "at a level of 0.1%" in legend


def test_a_benchmark_of_one_side_alone_is_named_as_not_judged(tmp_path: Path) -> None:
    before = results("a", 0, 0.5, tasks=20)
    more = Results("b", {**before.benchmarks, "code": TaskRewards("code", "b", {"t": [1.0]})})
    for one in (before, more):
        write_results(tmp_path / f"{one.name}.jsonl", one)
    command = ["compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert {row["benchmark"]: row["found"] is not None for row in told} == {"math": True, "code": False}
    assert told[-1]["standing"] == "not_judged"
    assert "no task is graded on both sides: code" in CliRunner().invoke(app, command).stdout


@pytest.mark.parametrize("option", ["--margin", "--level", "--max-missing", "--unequal-missing"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_numbers_out_of_range_are_errors_of_the_command(tmp_path: Path, option: str, value: str) -> None:
    path = tmp_path / "a.jsonl"
    write_results(path, results("a", 0, 0.5, tasks=4))
    said = CliRunner().invoke(app, ["compare", str(path), str(path), f"{option}={value}"])
    assert isinstance(said.exception, SystemExit) and said.exit_code in (1, 2)
    assert "a number" in said.output or option in said.output


def test_the_functions_of_the_package_and_of_results_have_the_same_defaults() -> None:
    names = ("margin", "level", "max_missing", "unequal_missing")
    one, other = (signature(function).parameters for function in (kascade.compare, compare_results))
    assert [one[name].default for name in names] == [other[name].default for name in names]


def test_a_sample_that_is_there_twice_is_an_error() -> None:
    answers = [Answer("m", "t", 0, 1.0), Answer("m", "t", 1, 0.0), Answer("m", "t", 0, 0.0)]
    with pytest.raises(UserError, match="task t: sample 0 is there twice"):
        Results.of("a", answers)


@pytest.mark.parametrize("share", [0.1, 0.99])
def test_missing_grades_are_not_taken_for_kept(share: float) -> None:
    before = results("a", 0, 0.6)
    rng = np.random.default_rng(5)
    masked = {
        task: [None if rng.random() < share else reward for reward in rewards]
        for task, rewards in before.benchmarks["math"].rewards.items()
    }
    after = Results("b", {"math": TaskRewards("math", "b", masked)})
    (row,) = compare_results(before, after)
    assert row.standing == "not_judged"
    low, high = row.found.bounds
    assert high - low == pytest.approx(share, abs=0.05)
    (allowed,) = compare_results(before, after, max_missing=1.0, unequal_missing=0.0)
    assert allowed.standing != "not_judged"


def closed_testing(p: list[float], one: int) -> float:
    """Holm's adjusted p value by its meaning: the largest Bonferroni p of any subset that holds the test."""
    others = [i for i in range(len(p)) if i != one]
    subsets = chain.from_iterable(combinations(others, size) for size in range(len(p)))
    return max(min(1.0, (len(s) + 1) * min(p[i] for i in (one, *s))) for s in subsets)


def test_adjusted_p_values_are_holms() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 7):
        p = [float(one) for one in rng.random(size) ** 3]
        adjusted = holm({str(i): one for i, one in enumerate(p)})
        for i in range(size):
            assert adjusted[str(i)] == pytest.approx(closed_testing(p, i))


def test_differing_answers_come_falls_first() -> None:
    before = Results.of("a", [Answer("m", t, 0, r, f"a{t}") for t, r in (("x", 1.0), ("y", 0.0), ("z", 1.0))])
    after = Results.of("b", [Answer("m", t, 0, r, f"b{t}") for t, r in (("x", 0.0), ("y", 1.0), ("z", 1.0))])
    found = differences(before, after, "m", 5)
    assert [(one.task, one.before, one.after) for one in found] == [("x", 1.0, 0.0), ("y", 0.0, 1.0)]
    assert found[0].a is not None and found[0].a.text == "ax"


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    for name, reward in (("a", 1), ("b", 0)):
        rows = [
            {"benchmark": "m", "task": str(i), "reward": reward, "answer": f"{name}{i}"} for i in range(50)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    done = CliRunner().invoke(app, ["compare", *paths, "--answers", "1"])
    assert done.exit_code == 0 and "lost" in done.output and "a0" in done.output, done.output
    (row,) = json.loads(CliRunner().invoke(app, ["compare", *paths, "--json"]).output)
    assert row["standing"] == "lost" and row["found"]["difference"] == -1.0
    missing = CliRunner().invoke(app, ["compare", paths[0], str(tmp_path / "none")])
    assert missing.exit_code == 2


def test_the_library_call_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python example of docs/compare.md runs as printed."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "compare.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    for name in ("before", "after"):
        rows = [{"benchmark": "m", "task": str(i), "reward": i % 2} for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/compare.md", "exec"), {})
