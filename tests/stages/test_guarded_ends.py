"""How a cascade ends by its guard: an end check that stops it, and a side branch that joins the main line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toy_cascade import RECOVERY, SayB, make_run, stage

from kascade.doctor.sight import unrecoverable
from kascade.doctor.subject import Subject
from kascade.environments.base import generate_tasks
from kascade.errors import GuardStop
from kascade.guard.end_check import read_end_verdict
from kascade.guard.lineage import open_reference, own_outcomes
from kascade.recipe.run_recipe import read_run_recipe
from kascade.run.context import open_run
from kascade.stages.attempts import recovery, tried
from kascade.steps import steps
from kascade.steps.retain import check, recover_last
from kascade.steps.settle import settle_stage
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.tracking.promote import final_checkpoint

BOTH = stage("sft", "sft", "say_a", "say_b", steps=30)
HARSH = {"learning_rate": 1.5e-2, "weight_decay": 0.0}
FORGET = stage("forget", "sft", "say_a", steps=16, optimizer=HARSH)  # one letter only: the other is lost
ALONE = {**RECOVERY, "rounds": 0}


def settled(layout: RunFolder, name: str, parent: str) -> str:
    """A stage as the pipeline runs it, without a recovery and without MLflow, which takes seconds."""
    run = str(layout.root)
    candidate = steps.train(run, name, parent)
    steps.evaluate(run, name, candidate, parent)
    with open_run(run, f"{name}.settle") as opened:
        return settle_stage(opened, name, tried(opened, name, parent)[-1], parent)


def start(layout: RunFolder) -> str:
    base = steps.preflight(str(layout.root))
    steps.evaluate(str(layout.root), "base", base, base)
    return settled(layout, "sft", base)


def says(layout: RunFolder, **retention: object) -> None:
    """Let the folder's recipe say something else about the end check."""
    recipe = read_run_recipe(layout.root)
    rule = recipe.guard.retention.model_copy(update=retention)
    changed = recipe.model_copy(update={"guard": recipe.guard.model_copy(update={"retention": rule})})
    write_text(layout.resolved_recipe, changed.model_dump_json())


def test_an_end_check_that_stops_ends_the_run_with_what_is_lost(tmp_path: Path) -> None:
    """A loss is let pass, and stays until the end. Nothing is promoted, and another recipe goes on."""
    retention = {"on_loss": "stop", "samples": 8}
    layout = make_run(tmp_path, BOTH, FORGET, retention=retention, let_pass_budget=1.0, recovery=ALONE)
    run = str(layout.root)
    last = settled(layout, "forget", start(layout))
    assert own_outcomes(layout)["forget"].decision == "continued"
    with pytest.raises(GuardStop, match=r"as guard\.retention says:\n(.*\n)*say_b is lost: "):
        steps.retain(run, last)
    found = read_end_verdict(layout, last)
    assert found is not None and found.benchmarks["say_b"].standing == "lost"
    assert layout.retained_of(last) is None and layout.final_checkpoint() is None
    assert final_checkpoint(layout, read_run_recipe(layout.root)).reference is None
    with pytest.raises(GuardStop):
        steps.retain(run, last)
    says(layout, on_loss="report")
    assert steps.retain(run, last) == last, "the answers are there, and only what follows has changed"
    assert steps.finish(run, last) == last


def test_an_end_check_that_may_stop_lets_pass_what_is_kept(tmp_path: Path) -> None:
    layout = make_run(tmp_path, BOTH, retention={"on_loss": "stop", "samples": 8, "margin": 0.9})
    last = start(layout)
    assert steps.retain(str(layout.root), last) == last
    assert layout.retained_of(last) == last


@pytest.mark.parametrize("unrecovered", ["continue", "rollback"])
def test_a_side_branch_that_joins_and_lost_too_much_is_left_behind(unrecovered: str, tmp_path: Path) -> None:
    """The branch may lose a letter. The stage that starts from it may not, and does not end with the
    branch."""
    side = {**FORGET, "side_branch": True}
    join = stage("join", "sft", "say_a", steps=2, parent="forget")
    layout = make_run(tmp_path, BOTH, side, join, unrecovered=unrecovered, recovery=ALONE)
    first = start(layout)
    branch = settled(layout, "forget", first)
    assert own_outcomes(layout)["forget"].decision == "accepted"
    assert settled(layout, "join", branch) == first
    outcome = own_outcomes(layout)["join"]
    assert (outcome.decision, outcome.accepted, outcome.parent) == ("rolled_back", first, branch)
    assert "what it had before the stage" in outcome.reasons[-1]


def test_what_a_branch_reached_is_taught_at_the_end_though_the_line_ends_before_it(tmp_path: Path) -> None:
    """The stage that joined is rolled back. The line ends with SFT, and the branch came after that."""
    join = stage("join", "sft", "say_a", steps=2, parent="forget")
    short, side = {**BOTH, "steps": 10}, {**FORGET, "side_branch": True}
    layout = make_run(tmp_path, short, side, join, recovery={**ALONE, "steps": 2}, retention={"samples": 4})
    first = start(layout)
    branch = settled(layout, "forget", first)
    last = settled(layout, "join", branch)
    assert last == first
    with open_run(str(layout.root), "test") as run:
        found = check(run, last)
        assert found.benchmarks["say_a"].standing == "lost"
        assert found.benchmarks["say_a"].against[-1].checkpoint == branch
        recovered = open_reference(recover_last(run, last, found) or "")
    assert recovered.manifest.teachers["math"] == branch
    assert recovered.manifest.teachers["knowledge"] == first


def reads(layout: RunFolder, rows: Path) -> None:
    """Let the benchmark of the second letter read its tasks, which are then never trained on."""
    recipe = read_run_recipe(layout.root)
    tasks = generate_tasks(SayB(), split="test", count=40, seed=0)
    rows.write_text("".join(json.dumps({"words": task.messages[0]["content"]}) + "\n" for task in tasks))
    first, second = recipe.benchmarks
    read = second.model_copy(update={"source": second.source.model_copy(update={"path": str(rows)})})
    write_text(
        layout.resolved_recipe, recipe.model_copy(update={"benchmarks": (first, read)}).model_dump_json()
    )


def test_a_loss_without_tasks_to_train_on_is_not_recovered_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    taught = stage("sft", "sft", "say_a", "also_b", steps=30)
    layout = make_run(tmp_path, taught, FORGET, let_pass_budget=1.0, retention={"samples": 8})
    reads(layout, tmp_path / "rows.jsonl")
    (told,) = unrecoverable(Subject(read_run_recipe(layout.root)))
    assert told.where == "benchmark say_b" and "a loss could not be recovered" in told.what
    first, run = start(layout), str(layout.root)
    candidate = steps.train(run, "forget", first)
    assert steps.evaluate(run, "forget", candidate, first) is False, "no recovery follows"
    assert settled(layout, "forget", first) == candidate
    outcome = own_outcomes(layout)["forget"]
    assert (outcome.decision, outcome.let_pass) == ("continued", ("say_b",))
    assert steps.retain(run, candidate) == candidate
    found = read_end_verdict(layout, candidate)
    assert found is not None and found.benchmarks["say_b"].standing == "lost"


def test_a_skill_lost_before_the_stage_that_teaches_it_is_recovered_with_the_tasks_of_that_stage(
    tmp_path: Path,
) -> None:
    taught, later = stage("sft", "sft", "say_a", "also_b", steps=30), stage("later", "sft", "say_b")
    layout = make_run(tmp_path, taught, FORGET, later, recovery={**RECOVERY, "steps": 2})
    reads(layout, tmp_path / "rows.jsonl")
    recipe, run = read_run_recipe(layout.root), str(layout.root)
    assert unrecoverable(Subject(recipe)) == []
    first = start(layout)
    candidate = steps.train(run, "forget", first)
    assert steps.evaluate(run, "forget", candidate, first)
    recovered = steps.recover(run, "forget", 1, candidate, first)
    assert open_reference(recovered).manifest.teachers["knowledge"] == first
    with open_run(run, "test") as opened:
        assert tried(opened, "forget", first) == [candidate, recovered]
        attempt = recovery(opened, "forget", 1, candidate, first)
    (source,) = attempt.borrowed
    assert source == recipe.stages[2].data[0].source
    other = replace(attempt, borrowed=(source.model_copy(update={"count": 100}),))
    assert other.key(recipe) != attempt.key(recipe), "the result depends on these tasks"
