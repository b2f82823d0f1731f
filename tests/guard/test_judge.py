"""Verdicts on a run folder: what is suspicious, what regressed, what recovered, in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from guard_fixture import START, FixtureRun, judged, recipe, start

from kascade.errors import KascadeError
from kascade.guard.ruling import judge, open_case
from kascade.guard.scores import read_score, write_score
from kascade.guard.settlement import recovered_shares, settle
from kascade.guard.verdict import read_verdict
from kascade.storage.checkpoint import CheckpointRef


@pytest.fixture
def run(tmp_path: Path) -> FixtureRun:
    return FixtureRun(tmp_path)


def test_a_fall_is_found_recovered_and_measured(run: FixtureRun) -> None:
    sft = start(run)
    fallen = run.checkpoint("if_rl", "train", sft)
    first = judged(run, fallen, sft, {"mcqa": 0.4, "ifeval": 0.9, "arith": 0.5})
    assert first.regressed
    assert first.lost_domains == ("knowledge",)
    assert first.goals_met is True
    assert first.benchmarks["mcqa"].decision == "regressed"
    assert first.benchmarks["mcqa"].phase == "confirm"
    assert first.benchmarks["mcqa"].word == "lost"
    assert ": lost (p " in first.benchmarks["mcqa"].reason
    assert first.benchmarks["ifeval"].decision == "risen"
    assert first.benchmarks["ifeval"].role == "goal"
    assert first.benchmarks["arith"].role == "guard"

    healed = run.checkpoint("if_rl", "recover-1", fallen)
    second = judged(run, healed, sft, {"mcqa": 0.79, "ifeval": 0.9, "arith": 0.5})
    assert not second.regressed
    assert second.round == 1
    found = second.benchmarks["mcqa"]
    assert (found.decision, found.word) == ("suspicious_cleared", "kept"), "a known loss is always confirmed"
    assert recovered_shares(second)["knowledge"] == pytest.approx(0.97, abs=0.06)
    assert found.recovered is not None
    assert found.recovered.interval is not None
    low, high = found.recovered.interval
    assert low < 0.97 < high
    assert recovered_shares(first) == {}
    assert read_verdict(run.layout, second.id) == second


def test_nothing_changed_is_held(run: FixtureRun) -> None:
    sft = start(run)
    same = run.checkpoint("if_rl", "train", sft)
    verdict = judged(run, same, sft, START)
    assert not verdict.regressed
    assert verdict.goals_met is False
    assert {found.decision for found in verdict.benchmarks.values()} <= {"held", "suspicious_cleared"}


def test_a_candidate_that_answers_as_its_parent_is_kept_everywhere(run: FixtureRun) -> None:
    sft = start(run)
    same = run.checkpoint("if_rl", "train", sft)
    for name in START:
        score = read_score(run.layout, CheckpointRef.parse(sft).digest, name, "screen")
        assert score is not None
        own = {"checkpoint": CheckpointRef.parse(same).digest}
        write_score(run.layout, score.model_copy(update=own))
    verdict = judge(open_case(run.layout, recipe(), same, sft))
    assert {found.word for found in verdict.benchmarks.values()} == {"kept"}
    assert {found.difference for found in verdict.benchmarks.values()} == {0.0}
    assert not verdict.regressed
    assert verdict.goals_met is False, "nothing rose"


def test_small_fall_is_tolerated_and_said(run: FixtureRun) -> None:
    sft = start(run)
    lower = run.checkpoint("if_rl", "train", sft)
    verdict = judged(run, lower, sft, {**START, "mcqa": 0.6}, recipe(min_drop=0.3, screen_level=0.5))
    assert verdict.benchmarks["mcqa"].decision == "suspicious_cleared"
    assert verdict.benchmarks["mcqa"].word == "not_shown"
    assert "smaller than the tolerated 0.3" in verdict.benchmarks["mcqa"].reason


def test_a_fall_that_is_not_called_is_not_shown_and_says_the_level(run: FixtureRun) -> None:
    sft = start(run)
    lower = run.checkpoint("if_rl", "train", sft)
    made = recipe(screen_level=0.999, futile_fall=0.5, family_level=1e-9)
    verdict = judged(run, lower, sft, {**START, "mcqa": 0.76}, made)
    found = verdict.benchmarks["mcqa"]
    assert (found.decision, found.word) == ("suspicious_cleared", "not_shown")
    assert "not beyond the guard's level (p " in found.reason
    assert "chance" not in found.reason


def test_half_a_loss_that_is_still_missing_is_not_recovered(run: FixtureRun) -> None:
    sft = start(run)
    fallen = run.checkpoint("if_rl", "train", sft)
    judged(run, fallen, sft, {**START, "mcqa": 0.7})
    half = run.checkpoint("if_rl", "recover-1", fallen)
    verdict = judged(run, half, sft, {**START, "mcqa": 0.75})
    assert verdict.regressed
    assert verdict.benchmarks["mcqa"].decision in {"regressed", "not_recovered"}
    assert verdict.lost_benchmarks == ("mcqa",)


def masked(run: FixtureRun, reference: str, name: str, right: bool, share: float) -> None:
    """Mask a share of the right or of the wrong answers of a screening score."""
    score = read_score(run.layout, CheckpointRef.parse(reference).digest, name, "screen")
    assert score is not None
    rewards = {
        task: [None if r == float(right) and run.rng.random() < share else r for r in found]
        for task, found in score.rewards.items()
    }
    write_score(run.layout, score.model_copy(update={"rewards": rewards}))


@pytest.mark.parametrize("right", [True, False])
def test_missing_grades_are_not_judged_and_never_accepted(run: FixtureRun, right: bool) -> None:
    """Whether right or wrong answers were masked, nothing is concluded: it could hide or invent a fall."""
    sft = start(run)
    same = run.checkpoint("if_rl", "train", sft)
    run.score(same, START)
    masked(run, same, "mcqa", right, 0.3)
    verdict = judge(open_case(run.layout, recipe(screen_level=1e-9), same, sft))
    found = verdict.benchmarks["mcqa"]
    assert (found.decision, found.word) == ("not_judged", "not_judged")
    assert found.bounds is not None
    assert found.bounds[1] - found.bounds[0] > 0.04
    assert "Cannot be judged" in found.reason
    assert verdict.not_judged == ("mcqa",)
    end = settle([verdict], recipe().guard, {})
    assert end.decision == "stopped"
    assert end.cannot_judge == ("mcqa",)


@pytest.mark.parametrize("alike", [True, False])
def test_few_grades_missing_on_both_sides_are_judged_and_on_one_alone_are_not(
    run: FixtureRun, alike: bool
) -> None:
    """1.75% of 800 answers, under the 2% that may be missing: 14 after, and 14 or none before."""
    sft = start(run)
    same = run.checkpoint("if_rl", "train", sft)
    run.score(same, START)
    for reference in (same, *([sft] if alike else [])):
        score = read_score(run.layout, CheckpointRef.parse(reference).digest, "mcqa", "screen")
        assert score is not None
        lost = {f"t{i}": [None, *score.rewards[f"t{i}"][1:]] for i in range(14)}
        write_score(run.layout, score.model_copy(update={"rewards": {**score.rewards, **lost}}))
    made = recipe(screen_level=1e-9)
    verdict = judge(open_case(run.layout, made, same, sft))
    found = verdict.benchmarks["mcqa"]
    assert max(found.missing_before, found.missing_after) == 0.0175
    assert verdict.not_judged == (() if alike else ("mcqa",))
    if not alike:
        assert found.decision == "not_judged"
        assert "differ by more than chance (p 0.00012 <= 0.001)" in found.reason
        allowed = recipe(screen_level=1e-9, unequal_missing=0.0)
        assert judge(open_case(run.layout, allowed, same, sft)).not_judged == ()


@pytest.mark.parametrize("share", [0.1, 0.99, 1.0])
def test_tasks_left_out_never_pass_for_an_accepted_checkpoint(run: FixtureRun, share: float) -> None:
    """Whole tasks without a grade, in the screen and in the confirming samples alike."""
    sft = start(run)
    worse = run.checkpoint("if_rl", "train", sft)
    run.score(worse, {**START, "mcqa": 0.1})
    for phase in ("screen", "confirm"):
        if phase == "confirm":
            run.score(worse, {"mcqa": 0.1}, "confirm")
            run.score(sft, {"mcqa": START["mcqa"]}, "confirm")
        score = read_score(run.layout, CheckpointRef.parse(worse).digest, "mcqa", phase)
        assert score is not None
        left_out = list(score.rewards)[: round(share * score.num_tasks)]
        rewards = score.rewards | {task: [None] * score.num_samples for task in left_out}
        write_score(run.layout, score.model_copy(update={"rewards": rewards}))
    verdict = judge(open_case(run.layout, recipe(), worse, sft))
    found = verdict.benchmarks["mcqa"]
    assert found.word == "not_judged"
    assert found.num_left_out == len(left_out)
    end = settle([verdict], recipe().guard, {})
    assert (end.decision, end.cannot_judge) == ("stopped", ("mcqa",))


def test_more_is_asked_for_until_a_benchmark_is_decided(run: FixtureRun) -> None:
    sft = start(run)
    fallen = run.checkpoint("if_rl", "train", sft)
    run.score(fallen, {**START, "mcqa": 0.2})
    case = open_case(run.layout, recipe(), fallen, sft)
    assert case.next_looks(case.suspicious())["mcqa"] == 2
    run.score(fallen, {"mcqa": 0.2}, "confirm", 0)
    run.score(sft, {"mcqa": START["mcqa"]}, "confirm", 0)
    assert "mcqa" not in case.next_looks(["mcqa"])
    looked = case.looked("mcqa")
    assert looked is not None
    assert (looked.standing, looked.size) == ("lost", 2), "a large fall needs one look"


def test_a_stage_taken_out_does_not_raise_the_level(run: FixtureRun) -> None:
    sft = start(run)
    whole = recipe()
    first = judged(run, run.checkpoint("if_rl", "train", sft, "a"), sft, START, whole)
    short = whole.model_copy(update={"stages": whole.stages[1:]})
    second = judged(run, run.checkpoint("if_rl", "train", sft, "b"), sft, START, short)
    assert first.level is not None
    assert second.level is not None
    assert second.level <= first.level
    again = judge(open_case(run.layout, short, first.checkpoint, sft))
    assert again.level == first.level, "what a verdict was held to stays"


def test_without_grades_nothing_is_concluded(run: FixtureRun) -> None:
    sft = start(run)
    broken = run.checkpoint("if_rl", "train", sft)
    run.score(broken, START)
    score = read_score(run.layout, CheckpointRef.parse(broken).digest, "mcqa", "screen")
    assert score is not None
    failed = {task: [None] * len(rewards) for task, rewards in score.rewards.items()}
    write_score(run.layout, score.model_copy(update={"rewards": failed}))
    made = recipe(screen_level=1e-9)
    found = judge(open_case(run.layout, made, broken, sft)).benchmarks["mcqa"]
    assert (found.decision, found.after, found.num_left_out) == ("not_graded", None, 400)


def test_first_checkpoint_has_no_baseline(run: FixtureRun) -> None:
    base = run.checkpoint("base", "train", None)
    sft = run.checkpoint("sft", "train", base)
    run.score(sft, START)
    verdict = judge(open_case(run.layout, recipe(), sft, base))
    assert {found.decision for found in verdict.benchmarks.values()} == {"no_baseline"}
    assert verdict.goals_met is None


def test_without_any_grade_nothing_is_accepted_even_where_the_base_has_none_either(run: FixtureRun) -> None:
    base = run.checkpoint("base", "train", None)
    sft = run.checkpoint("sft", "train", base)
    run.score(sft, START)
    assert judge(open_case(run.layout, recipe(), sft, base)).not_judged == ()
    score = read_score(run.layout, CheckpointRef.parse(sft).digest, "mcqa", "screen")
    assert score is not None
    failed = {task: [None] * len(rewards) for task, rewards in score.rewards.items()}
    write_score(run.layout, score.model_copy(update={"rewards": failed}))
    verdict = judge(open_case(run.layout, recipe(), sft, base))
    assert verdict.benchmarks["mcqa"].decision == "no_baseline"
    assert verdict.not_judged == ("mcqa",)


def test_missing_scores_are_errors(run: FixtureRun) -> None:
    sft = start(run)
    fallen = run.checkpoint("if_rl", "train", sft)
    with pytest.raises(KascadeError, match="no screening score for: arith, ifeval, mcqa"):
        open_case(run.layout, recipe(), fallen, sft)
    run.score(fallen, {**START, "mcqa": 0.1})
    with pytest.raises(KascadeError, match="no confirming scores"):
        judge(open_case(run.layout, recipe(), fallen, sft))
