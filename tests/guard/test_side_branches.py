"""Side branches: what they may lose, where they count, and what they owe when they join the main line."""

from __future__ import annotations

from pathlib import Path

import pytest
from guard_fixture import DOMAIN_OF, START, FixtureRun, joined, judged, recipe, start, with_side_branch

from kascade.guard.accepted import fall_back
from kascade.guard.baselines import baselines, losses_let_pass
from kascade.guard.end_check import open_end_check
from kascade.guard.ruling import judge, open_case
from kascade.guard.scores import read_score, write_score
from kascade.guard.settlement import settle
from kascade.guard.teachers import best_teachers, teacher_candidates
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef

TAUGHT = {"mcqa": 0.4, "ifeval": 0.9, "arith": 0.5}


@pytest.fixture
def run(tmp_path: Path) -> FixtureRun:
    return FixtureRun(tmp_path)


def branch(run: FixtureRun, made: Recipe, chances: dict[str, float] = TAUGHT) -> tuple[str, str]:
    """An accepted SFT, and an accepted side branch from it."""
    sft = start(run)
    side = run.checkpoint("if_rl", "train", sft)
    judged(run, side, sft, chances, made)
    run.settle("accepted", side, sft, side)
    return sft, side


@pytest.mark.parametrize("beside", ["goals", "all"])
def test_a_side_branch_may_lose_what_it_does_not_teach(run: FixtureRun, beside: str) -> None:
    sft, made = start(run), with_side_branch(side_branches=beside)
    taught = run.checkpoint("if_rl", "train", sft)
    verdict = judged(run, taught, sft, {"mcqa": 0.4, "ifeval": 0.9, "arith": 0.5}, made)
    mcqa = verdict.benchmarks["mcqa"]
    assert verdict.benchmarks["ifeval"].decision == "risen"
    if beside == "all":
        assert verdict.lost_benchmarks == ("mcqa",)
        return
    assert not verdict.regressed and mcqa.decision == "not_held" and mcqa.word == "not_shown"
    assert "may fall here" in mcqa.reason and mcqa.difference == pytest.approx(-0.4, abs=0.05)
    assert settle([verdict], made.guard, {}).decision == "accepted"


def test_a_side_branch_may_not_lose_what_it_teaches(run: FixtureRun) -> None:
    sft, made = start(run), with_side_branch()
    fallen = run.checkpoint("if_rl", "train", sft)
    verdict = judged(run, fallen, sft, {"mcqa": 0.8, "ifeval": 0.1, "arith": 0.5}, made)
    assert verdict.lost_benchmarks == ("ifeval",)
    assert verdict.benchmarks["mcqa"].decision == "not_held"


def test_what_learns_from_a_side_branch_is_held_to_everything(run: FixtureRun) -> None:
    """The next stage starts from before the side branch, and may not take its losses over."""
    made = with_side_branch()
    sft, _ = branch(run, made)
    merged = run.checkpoint("math_rl", "train", sft)
    assert judged(run, merged, sft, {"mcqa": 0.4, "ifeval": 0.9, "arith": 0.5}, made).lost_benchmarks == (
        "mcqa",
    )


def test_grades_that_miss_where_a_side_branch_may_fall_do_not_stop_it(run: FixtureRun) -> None:
    sft, made = start(run), with_side_branch()
    taught = run.checkpoint("if_rl", "train", sft)
    run.score(taught, {"mcqa": 0.8, "ifeval": 0.9, "arith": 0.5})
    digest = CheckpointRef.parse(taught).digest
    score = read_score(run.layout, digest, "mcqa", "screen")
    assert score is not None
    missing = {
        task: [None, None] if index < 40 else found
        for index, (task, found) in enumerate(score.rewards.items())
    }
    write_score(run.layout, score.model_copy(update={"rewards": missing}))
    verdict = judge(open_case(run.layout, made, taught, sft))
    assert verdict.not_judged == () and verdict.benchmarks["mcqa"].decision == "not_held"
    assert verdict.benchmarks["mcqa"].word == "not_judged"


def test_the_end_is_held_against_a_side_branch_on_what_that_teaches(run: FixtureRun) -> None:
    made = with_side_branch()
    sft, side = branch(run, made, {"mcqa": 0.95, "ifeval": 0.95, "arith": 0.5})
    last = run.checkpoint("math_rl", "train", sft)
    run.settle("accepted", last, sft, last)
    end = {**START, "ifeval": 0.6}
    run.score(last, end)
    check = open_end_check(run.layout, made, last)
    assert [one.reference for one in check.against["ifeval"]] == [side]
    assert side not in {one.reference for name in ("mcqa", "arith") for one in check.against[name]}
    run.score(last, end, "end")
    for name, others in check.against.items():
        for one in others:
            run.score(one.reference, {name: 0.95 if one.reference == side else START[name]}, "end")
    found = check.conclude(DOMAIN_OF)
    assert found.benchmarks["ifeval"].standing == "lost" and not found.kept
    everything = with_side_branch(side_branches="all")
    assert side in {one.reference for one in open_end_check(run.layout, everything, last).against["mcqa"]}


def test_a_rolled_back_side_branch_counts_nowhere(run: FixtureRun) -> None:
    made = with_side_branch()
    sft = start(run)
    side = run.checkpoint("if_rl", "train", sft)
    run.score(side, {"mcqa": 0.95, "ifeval": 0.95, "arith": 0.95})
    run.settle("rolled_back", side, sft, sft)
    last = run.checkpoint("math_rl", "train", sft)
    run.score(last, START)
    against = open_end_check(run.layout, made, last).against
    assert {one.reference for others in against.values() for one in others} == {sft}


def test_a_branch_does_not_count_on_what_its_own_branch_was_to_learn(run: FixtureRun) -> None:
    """The second branch is rolled back to the first one, which was never held to mathematics."""
    made = joined()
    second = made.stages[2].model_copy(update={"side_branch": True})
    made = made.model_copy(update={"stages": [*made.stages[:2], second]})
    sft, side = branch(run, made, {**START, "arith": 0.9})
    tried = run.checkpoint("math_rl", "train", side)
    run.settle("rolled_back", tried, side, side)
    run.score(tried, START)
    last = run.checkpoint("sft", "train", sft, key="last")
    run.score(last, START)
    assert side not in {one.reference for one in open_end_check(run.layout, made, last).against["arith"]}


def test_what_starts_from_a_side_branch_answers_for_its_losses(run: FixtureRun) -> None:
    """The branch lost 40 points of knowledge. It joins the main line by the stage that starts from it."""
    made = joined()
    sft, side = branch(run, made)
    last = run.checkpoint("math_rl", "train", side)
    verdict = judged(run, last, side, TAUGHT, made)
    assert verdict.lost_benchmarks == ("mcqa",)
    assert verdict.benchmarks["mcqa"].before is not None
    assert verdict.benchmarks["mcqa"].before.checkpoint == sft
    end = settle([verdict], made.guard, losses_let_pass(run.layout, made, "math_rl", side))
    assert end.decision == "rolled_back", "beyond the budget"
    assert fall_back(run.layout, made, "math_rl", side) == sft, "not the branch, which lost as much"
    assert fall_back(run.layout, with_side_branch(), "if_rl", sft) == sft


def test_without_a_stage_before_the_main_line_falls_back_to_the_base(run: FixtureRun) -> None:
    base = run.checkpoint("base", "train", None)
    side = run.checkpoint("if_rl", "train", base)
    run.settle("accepted", side, base, side)
    made = joined()
    made = made.model_copy(update={"stages": made.stages[1:]})
    assert fall_back(run.layout, made, "math_rl", side) == base


def test_what_the_main_line_reached_meanwhile_is_the_baseline(run: FixtureRun) -> None:
    """Mathematics rose on the main line. The stage that starts from the branch has never seen that."""
    made = joined()
    middle = made.stages[0].model_copy(update={"name": "middle"})
    made = made.model_copy(update={"stages": [*made.stages[:2], middle, made.stages[2]]})
    sft, side = branch(run, made, {**START, "ifeval": 0.9})
    risen = run.checkpoint("middle", "train", sft)
    run.score(risen, {**START, "arith": 0.9})
    run.settle("accepted", risen, sft, risen)
    found = baselines(run.layout, made, "math_rl", side)
    assert found["arith"][0].reference == risen
    assert found["ifeval"][0].reference == side, "which was accepted there"
    assert fall_back(run.layout, made, "math_rl", side) == risen
    assert baselines(run.layout, made, "if_rl", sft)["arith"][0].reference == sft, "beside the branch"


def test_a_side_branch_is_no_baseline_where_it_was_not_held(run: FixtureRun) -> None:
    made = joined()
    sft, side = branch(run, made, {"mcqa": 0.99, "ifeval": 0.9, "arith": 0.5})
    assert baselines(run.layout, made, "math_rl", side)["mcqa"][0].reference == sft


def test_what_a_side_branch_let_pass_is_charged_to_the_stage_that_joins(run: FixtureRun) -> None:
    made = joined()
    sft = start(run)
    side = run.checkpoint("if_rl", "train", sft)
    run.score(side, {**START, "ifeval": 0.3})
    run.settle("continued", side, sft, side, let_pass=("ifeval",))
    assert baselines(run.layout, made, "math_rl", side)["ifeval"][0].reference == sft
    assert losses_let_pass(run.layout, made, "math_rl", side) == {}
    after = made.model_copy(
        update={"stages": [*made.stages[:2], made.stages[2].model_copy(update={"side_branch": True})]}
    )
    assert baselines(run.layout, after, "math_rl", side)["ifeval"][0].reference == side
    assert losses_let_pass(run.layout, after, "math_rl", side) == {"ifeval": 0.02}, "a branch of the branch"


def test_a_stage_of_the_main_line_that_starts_further_back_answers_for_what_it_skips(run: FixtureRun) -> None:
    sft = start(run)
    risen = run.checkpoint("if_rl", "train", sft)
    run.score(risen, {**START, "ifeval": 0.9})
    run.settle("accepted", risen, sft, risen)
    assert baselines(run.layout, recipe(), "math_rl", sft)["ifeval"][0].reference == risen
    assert fall_back(run.layout, recipe(), "math_rl", sft) == risen


def test_a_side_branch_teaches_only_what_it_was_held_to(run: FixtureRun) -> None:
    made = with_side_branch()
    sft, side = branch(run, made, {"mcqa": 0.99, "ifeval": 0.9, "arith": 0.5})
    candidates = teacher_candidates(run.layout, made, "math_rl", sft)
    assert side in {one.checkpoint.reference for one in candidates}
    teachers = best_teachers(run.layout, candidates)
    assert teachers["instruction_following"].checkpoint.reference == side
    assert teachers["knowledge"].checkpoint.reference == sft
    everything = with_side_branch(side_branches="all")
    candidates = teacher_candidates(run.layout, everything, "math_rl", sft)
    assert best_teachers(run.layout, candidates)["knowledge"].checkpoint.reference == side
