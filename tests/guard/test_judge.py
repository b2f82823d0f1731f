"""Verdicts on a run folder: what is suspicious, what regressed, what recovered, in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from guard_fixture import FixtureRun, recipe

from kascade.errors import KascadeError
from kascade.guard.judge import judge, open_case
from kascade.guard.scores import read_score, write_score
from kascade.guard.verdict import Verdict, read_verdict, recovered_share, write_verdict
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef

START = {"mcqa": 0.8, "ifeval": 0.4, "arith": 0.5}


@pytest.fixture
def run(tmp_path: Path) -> FixtureRun:
    return FixtureRun(tmp_path)


def judged(
    run: FixtureRun, reference: str, parent: str, chances: dict[str, float], made: Recipe | None = None
) -> Verdict:
    """Screen, confirm what is suspicious on both sides, judge and write the verdict."""
    made = made or recipe()
    run.score(reference, chances)
    case = open_case(run.root, made, reference, parent)
    for name, baseline in case.suspicious().items():
        run.score(reference, {name: chances[name]}, "confirm", case.round)
        run.score(baseline.reference, {name: START[name]}, "confirm", case.round)
    verdict = judge(open_case(run.root, made, reference, parent))
    write_verdict(run.layout, verdict)
    return verdict


def start(run: FixtureRun) -> str:
    base = run.checkpoint("base", "train", None)
    sft = run.checkpoint("sft", "train", base)
    run.settle("accepted", sft, base, sft)
    run.score(base, dict.fromkeys(START, 0.1))
    run.score(sft, START)
    return sft


def test_a_fall_is_found_recovered_and_measured(run: FixtureRun) -> None:
    sft = start(run)
    fallen = run.checkpoint("if_rl", "train", sft)
    first = judged(run, fallen, sft, {"mcqa": 0.4, "ifeval": 0.9, "arith": 0.5})
    assert first.regressed
    assert first.lost_domains == ("knowledge",)
    assert first.goals_met is True
    assert first.benchmarks["mcqa"].decision == "regressed"
    assert first.benchmarks["mcqa"].phase == "confirm"
    assert "beyond chance" in first.benchmarks["mcqa"].reason
    assert first.benchmarks["ifeval"].decision == "risen"
    assert first.benchmarks["ifeval"].role == "goal"
    assert first.benchmarks["arith"].role == "guard"

    healed = run.checkpoint("if_rl", "recover-1", fallen)
    second = judged(run, healed, sft, {"mcqa": 0.79, "ifeval": 0.9, "arith": 0.5})
    assert not second.regressed
    assert second.round == 1
    assert second.benchmarks["mcqa"].decision == "suspicious_cleared", "a known loss is always confirmed"
    assert recovered_share([first, second])["knowledge"] == pytest.approx(0.97, abs=0.06)
    assert recovered_share([first]) == {"knowledge": 0.0}
    assert read_verdict(run.layout, second.id) == second


def test_nothing_changed_is_held(run: FixtureRun) -> None:
    sft = start(run)
    same = run.checkpoint("if_rl", "train", sft)
    verdict = judged(run, same, sft, START)
    assert not verdict.regressed
    assert verdict.goals_met is False
    assert {found.decision for found in verdict.benchmarks.values()} <= {"held", "suspicious_cleared"}


def test_small_fall_is_tolerated_and_said(run: FixtureRun) -> None:
    sft = start(run)
    lower = run.checkpoint("if_rl", "train", sft)
    verdict = judged(run, lower, sft, {**START, "mcqa": 0.6}, recipe(min_drop=0.3, screen_level=0.5))
    assert verdict.benchmarks["mcqa"].decision == "suspicious_cleared"
    assert "smaller than the tolerated 0.3" in verdict.benchmarks["mcqa"].reason


def test_too_few_tasks_are_named(tmp_path: Path) -> None:
    run = FixtureRun(tmp_path, tasks=8)
    sft = start(run)
    lower = run.checkpoint("if_rl", "train", sft)
    verdict = judged(run, lower, sft, {**START, "mcqa": 0.0}, recipe(screen_level=0.9))
    assert not verdict.regressed
    assert "8 tasks are too few" in verdict.benchmarks["mcqa"].reason


def test_without_grades_nothing_is_concluded(run: FixtureRun) -> None:
    sft = start(run)
    broken = run.checkpoint("if_rl", "train", sft)
    run.score(broken, START)
    score = read_score(run.layout, CheckpointRef.parse(broken).digest, "mcqa", "screen")
    assert score is not None
    failed = {task: [None] * len(rewards) for task, rewards in score.rewards.items()}
    write_score(run.layout, score.model_copy(update={"rewards": failed}))
    made = recipe(screen_level=1e-9)
    found = judge(open_case(run.root, made, broken, sft)).benchmarks["mcqa"]
    assert (found.decision, found.after, found.num_left_out) == ("not_graded", None, 400)


def test_first_checkpoint_has_no_baseline(run: FixtureRun) -> None:
    base = run.checkpoint("base", "train", None)
    sft = run.checkpoint("sft", "train", base)
    run.score(sft, START)
    verdict = judge(open_case(run.root, recipe(), sft, base))
    assert {found.decision for found in verdict.benchmarks.values()} == {"no_baseline"}
    assert verdict.goals_met is None


def test_missing_scores_are_errors(run: FixtureRun) -> None:
    sft = start(run)
    fallen = run.checkpoint("if_rl", "train", sft)
    with pytest.raises(KascadeError, match="no screening score for: arith, ifeval, mcqa"):
        open_case(run.root, recipe(), fallen, sft)
    run.score(fallen, {**START, "mcqa": 0.1})
    with pytest.raises(KascadeError, match="no confirming scores"):
        judge(open_case(run.root, recipe(), fallen, sft))
