"""A baseline's answers serve several verdicts, which say so, and none that it was itself judged by."""

from __future__ import annotations

from pathlib import Path

import pytest
from guard_fixture import START, FixtureRun, judged, recipe, start

from kascade.guard.case import SECOND_DRAWS
from kascade.guard.ruling import open_case
from kascade.recipe.guard import Recovery


@pytest.fixture
def run(tmp_path: Path) -> FixtureRun:
    return FixtureRun(tmp_path)


def test_two_verdicts_that_use_one_pool_say_so(run: FixtureRun) -> None:
    sft = start(run)
    made = recipe(screen_level=0.999)
    first = judged(run, run.checkpoint("if_rl", "train", sft, "a"), sft, START, made)
    second = judged(run, run.checkpoint("if_rl", "train", sft, "b"), sft, START, made)
    pool = second.benchmarks["mcqa"].pool
    assert pool is not None
    assert pool.draw == "confirm-0"
    assert pool.shared_with == (first.id,)
    assert first.benchmarks["mcqa"].pool is not None
    assert first.benchmarks["mcqa"].pool.shared_with == ()


def test_what_a_checkpoint_was_judged_by_is_no_pool_for_the_next_one(run: FixtureRun) -> None:
    """It lost four points, and the loss is let pass. Its answers of then are too low: they were called."""
    sft = start(run)
    first = run.checkpoint("if_rl", "train", sft)
    lost = judged(run, first, sft, {**START, "mcqa": 0.7})
    assert lost.lost_benchmarks == ("mcqa",)
    run.settle("continued", first, sft, first, let_pass=("mcqa",))
    last = run.checkpoint("math_rl", "train", first)
    made = recipe(screen_level=0.999)
    run.score(last, {**START, "mcqa": 0.69})
    case = open_case(run.layout, made, last, first)
    assert case.before["mcqa"][0].reference == first
    assert case.next_looks(["mcqa"]) == {"mcqa": 2}, "the old answers do not count"
    verdict = judged(run, last, first, {**START, "mcqa": 0.69}, made)
    pool = verdict.benchmarks["mcqa"].pool
    assert pool is not None and (pool.draw, pool.shared_with) == ("confirm-3", ())
    assert verdict.benchmarks["arith"].pool is None or verdict.benchmarks["arith"].pool.draw == "confirm-0"
    third = run.checkpoint("math_rl", "train", first, key="other")
    again = judged(run, third, first, {**START, "mcqa": 0.69}, made).benchmarks["mcqa"].pool
    assert again is not None and (again.draw, again.shared_with) == ("confirm-3", (verdict.id,))


def test_what_was_drawn_again_for_a_recovery_is_declared(run: FixtureRun) -> None:
    """The best attempt is the trained one, and its answers of draw 1 showed what the recovery brought
    back."""
    sft = start(run)
    fallen = run.checkpoint("if_rl", "train", sft)
    judged(run, fallen, sft, {**START, "mcqa": 0.4})
    healed = run.checkpoint("if_rl", "recover-1", fallen)
    second = judged(run, healed, sft, {**START, "mcqa": 0.3})
    run.settle("continued", fallen, sft, fallen, let_pass=("mcqa",))
    low = run.checkpoint("math_rl", "train", fallen)
    judged(run, low, fallen, {**START, "mcqa": 0.2})
    made = recipe(screen_level=0.999)
    last = run.checkpoint("math_rl", "recover-1", low)
    pool = judged(run, last, fallen, {**START, "mcqa": 0.4}, made).benchmarks["mcqa"].pool
    assert pool is not None and (pool.draw, pool.shared_with) == ("confirm-1", (second.id,))


def test_no_recovery_has_the_number_of_a_second_draw() -> None:
    most = next(one.le for one in Recovery.model_fields["rounds"].metadata if hasattr(one, "le"))
    assert most < SECOND_DRAWS
