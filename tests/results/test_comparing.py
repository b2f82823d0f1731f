"""What two sets of results show, and the command that prints it."""

from __future__ import annotations

import json
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from kascade.cli import app
from kascade.errors import UserError
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


def test_only_common_tasks_are_compared_and_the_others_counted() -> None:
    before, after = results("a", 0, 0.5, tasks=30), results("b", 1, 0.5, tasks=40)
    (row,) = compare_results(before, after)
    assert (row.found.num_tasks, row.only_a, row.only_b) == (30, 0, 10)
    other = Results.of("c", [Answer("other", "t0", 0, 1.0)])
    with pytest.raises(UserError, match="no graded task in common"):
        compare_results(before, other)


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
    (allowed,) = compare_results(before, after, max_missing=1.0)
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
