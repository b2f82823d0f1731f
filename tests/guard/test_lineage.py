"""Which checkpoints count as accepted, what they are compared with, and who teaches."""

from __future__ import annotations

from pathlib import Path

import pytest
from guard_fixture import FixtureRun, recipe

from kascade.errors import CheckpointError
from kascade.guard.baselines import baselines, losses_let_pass
from kascade.guard.lineage import accepted_ancestors, read_outcomes
from kascade.guard.scores import read_score, read_scores
from kascade.guard.teachers import best_teachers, teacher_candidates
from kascade.storage.checkpoint import CheckpointRef


@pytest.fixture
def run(tmp_path: Path) -> FixtureRun:
    return FixtureRun(tmp_path)


def cascade(run: FixtureRun) -> tuple[str, str, str]:
    """Base, an accepted SFT, and an IF-RL whose trained checkpoint fell and whose recovery was accepted."""
    base = run.checkpoint("base", "train", None)
    sft = run.checkpoint("sft", "train", base)
    run.settle("accepted", sft, base, sft)
    fallen = run.checkpoint("if_rl", "train", sft)
    healed = run.checkpoint("if_rl", "recover-1", fallen)
    run.settle("recovered", healed, sft, healed)
    chances = {base: (0.3, 0.2), sft: (0.8, 0.4), fallen: (0.9, 0.95), healed: (0.7, 0.9)}
    for reference, (mcqa, ifeval) in chances.items():
        run.score(reference, {"mcqa": mcqa, "ifeval": ifeval})
    return base, sft, healed


def test_rejected_attempts_are_no_ancestors(run: FixtureRun) -> None:
    base, sft, healed = cascade(run)
    assert [one.reference for one in accepted_ancestors(run.layout, healed)] == [base, sft, healed]


def test_a_stage_does_not_find_its_own_earlier_result(run: FixtureRun) -> None:
    base, sft, _ = cascade(run)
    assert [one.reference for one in accepted_ancestors(run.layout, sft)] == [base, sft]


def test_baseline_is_the_best_accepted_score_of_each_benchmark(run: FixtureRun) -> None:
    _, sft, healed = cascade(run)
    found = baselines(run.layout, recipe(), "math_rl", healed)
    assert found["mcqa"][0].reference == sft
    assert found["ifeval"][0].reference == healed


def test_a_loss_that_was_let_pass_is_not_held_against_later_stages(run: FixtureRun) -> None:
    _, sft, healed = cascade(run)
    weaker = run.checkpoint("math_rl", "train", healed)
    run.score(weaker, {"mcqa": 0.5, "ifeval": 0.6})
    run.settle("continued", weaker, healed, weaker, let_pass=("mcqa",))
    found = baselines(run.layout, recipe(), "last", weaker)
    assert found["mcqa"][0].reference == weaker
    assert found["ifeval"][0].reference == healed
    teachers = best_teachers(run.layout, teacher_candidates(run.layout, recipe(), "math_rl", weaker))
    assert teachers["knowledge"].checkpoint.reference == sft  # who was best still teaches


def test_side_branches_may_teach_but_are_no_baseline(run: FixtureRun) -> None:
    base, sft, healed = cascade(run)
    made = recipe()
    beside = made.stages[0].model_copy(update={"name": "beside", "side_branch": True})
    made = made.model_copy(update={"stages": [*made.stages[:2], beside, made.stages[2]]})
    side = run.checkpoint("beside", "train", base)
    run.settle("accepted", side, base, side)
    run.score(side, {"mcqa": 0.99, "ifeval": 0.1})
    candidates = teacher_candidates(run.layout, made, "math_rl", healed)
    assert {one.checkpoint.reference for one in candidates} == {base, sft, healed, side}
    teachers = best_teachers(run.layout, candidates)
    assert teachers["knowledge"].checkpoint.reference == side
    assert teachers["instruction_following"].checkpoint.reference == healed
    assert baselines(run.layout, made, "math_rl", healed)["mcqa"][0].reference == sft


def test_rolled_back_stage_leaves_its_parent(run: FixtureRun) -> None:
    base, sft, healed = cascade(run)
    lost = run.checkpoint("math_rl", "train", healed)
    run.settle("rolled_back", lost, healed, healed)
    assert read_outcomes(run.layout)[-1].decision == "rolled_back"
    assert [one.reference for one in accepted_ancestors(run.layout, healed)] == [base, sft, healed]


def test_changed_ancestor_is_refused(run: FixtureRun) -> None:
    _, sft, _ = cascade(run)
    wrong = f"{CheckpointRef.parse(sft).uri}@sha256:{'0' * 64}"
    with pytest.raises(CheckpointError, match="was asked for"):
        accepted_ancestors(run.layout, wrong)


def test_scores_are_kept_by_phase_and_draw(run: FixtureRun) -> None:
    base = run.checkpoint("base", "train", None)
    digest = CheckpointRef.parse(base).digest
    run.score(base, {"mcqa": 0.5})
    run.score(base, {"mcqa": 0.5}, "confirm", 1)
    assert read_score(run.layout, digest, "mcqa", "confirm", 0) is None
    confirmed = read_score(run.layout, digest, "mcqa", "confirm", 1)
    assert confirmed is not None
    assert confirmed.round == 1
    assert list(read_scores(run.layout, digest, "screen")) == ["mcqa"]


def test_a_later_stage_that_is_rolled_back_takes_no_let_pass_back(run: FixtureRun) -> None:
    _, _, healed = cascade(run)
    weaker = run.checkpoint("math_rl", "train", healed)
    run.score(weaker, {"mcqa": 0.5, "ifeval": 0.6})
    run.settle("continued", weaker, healed, weaker, let_pass=("mcqa",))
    last = run.checkpoint("last", "train", weaker)
    run.settle("rolled_back", last, weaker, weaker)
    assert baselines(run.layout, recipe(), "last", weaker)["mcqa"][0].reference == weaker


def test_what_is_let_pass_adds_up_over_the_line(run: FixtureRun) -> None:
    _, _, healed = cascade(run)
    weaker = run.checkpoint("math_rl", "train", healed)
    run.settle("continued", weaker, healed, weaker, let_pass=("mcqa",))
    assert losses_let_pass(run.layout, recipe(), "math_rl", healed) == {}
    assert losses_let_pass(run.layout, recipe(), "last", weaker) == {"mcqa": 0.02}


def test_a_lucky_score_does_not_change_the_baseline(run: FixtureRun) -> None:
    base = run.checkpoint("base", "train", None)
    sft = run.checkpoint("sft", "train", base)
    run.settle("accepted", sft, base, sft)
    run.score(base, {"mcqa": 0.5})
    run.score(sft, {"mcqa": 0.505})
    assert baselines(run.layout, recipe(better_level=0.001), "if_rl", sft)["mcqa"][0].reference == base
    screens = {one: read_scores(run.layout, CheckpointRef.parse(one).digest, "screen") for one in (base, sft)}
    means = {one: found["mcqa"].mean for one, found in screens.items()}
    free = baselines(run.layout, recipe(better_level=1.0), "if_rl", sft)
    assert free["mcqa"][0].reference == max(means, key=lambda one: means[one])
