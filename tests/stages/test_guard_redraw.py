"""The commands that read a finished run's end check: each kept drawn again, and what shared numbers save."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_cascade import make_run, mix

from benchmarks.guard_redraw import Again, kept_comparisons, table
from benchmarks.guard_shared import main
from kascade.exams.evaluate import Wanted, score_all
from kascade.exams.exams import Draw
from kascade.guard.end_check import open_end_check, write_end_verdict
from kascade.run.context import open_run
from kascade.steps import steps

STAGE = {"name": "sft", "kind": "sft", "data": [mix("say_a"), mix("say_b")], "steps": 2, "batch_size": 4}


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """A run whose base is held against a checkpoint of two steps, on 16 answers per task."""
    layout = make_run(tmp_path / "made", STAGE, first_look=8, retention={"samples": 16})
    base = steps.preflight(str(layout.root))
    trained = steps.train(str(layout.root), "sft", base)
    with open_run(str(layout.root), "test") as run:
        for reference in (base, trained):
            score_all(run, [Wanted(reference, name, Draw("screen")) for name in ("say_a", "say_b")])
        check = open_end_check(run.layout, run.recipe, trained, line=base)
        while needed := check.needed():
            score_all(
                run,
                [
                    Wanted(one, name, Draw("end", 0, size))
                    for name, (other, size) in needed.items()
                    for one in (trained, other)
                ],
            )
        write_end_verdict(run.layout, check.conclude({"say_a": "math", "say_b": "knowledge"}))
    return layout.root


def test_what_was_kept_is_drawn_again_with_four_times_the_samples(
    ended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = list(kept_comparisons(ended))
    words = table([ended], tmp_path, fresh_tasks=False)
    assert len(words) == len(kept)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| run |")]
    assert all(f"40 x {4 * one.samples}" in "".join(rows) for one in kept)
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert table([ended], tmp_path, fresh_tasks=False) == words
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == drawn, "nothing twice"


def test_a_false_kept_is_contradicted(ended: Path, tmp_path: Path) -> None:
    """The same two checkpoints, with an end check that claims a rise of 90 points at least."""
    folder = tmp_path / "run"
    (folder / "retention").mkdir(parents=True)
    (folder / "recipe.resolved.json").write_bytes((ended / "recipe.resolved.json").read_bytes())
    (source,) = (ended / "retention").glob("*.json")
    claimed = json.loads(source.read_text())
    claimed["margin"] = -0.9
    for held in claimed["benchmarks"].values():
        for one in held["against"]:
            one["standing"] = "kept"
    (folder / "retention" / source.name).write_text(json.dumps(claimed))
    assert set(table([folder], tmp_path / "keep", fresh_tasks=True)) == {"contradicted"}


def test_words_follow_the_limits() -> None:
    assert Again(128, 64, -0.01, -0.02, 0.0).word(0.03) == "shown again"
    assert Again(128, 64, -0.02, -0.04, 0.0).word(0.03) == "not contradicted"
    assert Again(128, 64, -0.06, -0.08, -0.04).word(0.03) == "contradicted"


def test_the_redraw_imports_nothing_of_the_guard() -> None:
    code = "import sys, benchmarks.guard_redraw; print([m for m in sys.modules if 'kascade.guard' in m])"
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_what_shared_numbers_save_is_between_nothing_and_all(
    ended: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(ended)])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| all | all")]
    assert len(rows) == 1
    share = float(rows[0].split("|")[5].split("[")[0])
    assert 0 <= share < 1
