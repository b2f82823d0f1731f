"""What is read from a run folder, whole, partial and damaged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.example_run import BASE, SFT, ExampleRun, recipe

from kascade.guard.scores import Score
from kascade.storage.files import write_json
from kascade.tracking import wording
from kascade.tracking.summarise import summarise


@pytest.fixture
def copy(partial: Path, tmp_path: Path) -> Path:
    """A partial run that a test may damage. References in it still name the original folder."""
    return shutil.copytree(partial, tmp_path / "run")


def test_whole_run_is_complete_and_ends_at_the_last_accepted_checkpoint(whole: Path) -> None:
    summary = summarise(whole)
    assert (summary.status, summary.problems) == ("complete", ())
    assert summary.final is not None
    assert summary.final.id == "swe_rl/train-k"
    ended = {stage.name: stage.outcome.decision for stage in summary.stages if stage.outcome}
    assert ended["multi_domain_rl"] == "recovered"
    assert (ended["rlhf"], ended["code_rl"]) == ("continued", "rolled_back")


def test_headline_counts_what_the_paired_intervals_say(whole: Path) -> None:
    summary = summarise(whole)
    up = sum(change.low > 0 for change in summary.changes)
    assert f"Of 9 benchmarks, {up} ended above the base model" in wording.headline(summary)
    assert "8 of 8 stages" in wording.headline(summary)


def test_regressions_say_what_became_of_them(whole: Path) -> None:
    found = {(one.stage.name, one.benchmark): one for one in summarise(whole).regressions()}
    assert set(found) >= {("multi_domain_rl", "ifeval"), ("rlhf", "needle"), ("code_rl", "arithmetic")}
    healed = found["multi_domain_rl", "ifeval"]
    assert healed.fraction is not None
    assert healed.fraction > 0.8
    assert "shown to be back within the margin" in wording.regression(healed)
    failed = wording.regression(found["code_rl", "arithmetic"])
    assert "the recovery failed" in failed
    assert "rolled back to the checkpoint before it" in failed
    lost = found["rlhf", "needle"]
    assert "The stage was continued with the loss" in wording.regression(replace(lost, standing="lost"))
    kept = wording.regression(replace(lost, standing="kept", after=lost.before))
    assert kept.endswith("kept: shown to be back within the margin."), "the loss is that of another benchmark"


def test_rolled_back_stage_ends_where_it_began(whole: Path) -> None:
    column = [point for point in summarise(whole).history("arithmetic") if point.place == "Code RL"]
    kept = [point for point in column if point.accepted]
    assert [(point.attempt.id, point.mark) for point in kept] == [("long_context_rl/train-k", "rolled_back")]
    assert {point.mark for point in column if not point.accepted} == {"regressed"}


def test_confirming_samples_replace_the_screening_ones_that_raised_the_suspicion(whole: Path) -> None:
    column = [point for point in summarise(whole).history("ifeval") if point.mark == "regressed"]
    assert [(point.point.score.phase, point.point.samples_per_task) for point in column] == [("confirm", 128)]


def test_errors_are_counted_and_are_not_zeros(whole: Path) -> None:
    summary = summarise(whole)
    errors, total = wording.error_count(summary)
    screened = [a for a in summary.current if a.points["functions"].score.phase == "screen"]
    assert errors == len(screened)
    assert total > 1000
    point = summary.current[0].points["functions"]
    graded = [r for rewards in point.score.rewards.values() for r in rewards if r is not None]
    assert len(graded) == point.num_answers - 1


def test_partial_run_says_so(partial: Path) -> None:
    summary = summarise(partial)
    assert summary.status == "unfinished"
    assert "2 of 3 stages settled" in wording.status(summary)
    assert summary.final is not None
    assert summary.final.id == "if_rl/recover-1-k"


def test_no_regression_is_said_plainly(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path, recipe(("sft",)), tasks=30)
    run.base(BASE)
    run.stage("sft", SFT)
    assert wording.guard_sentences(summarise(tmp_path)) == [
        "No loss was shown in 1 judged checkpoint, so no recovery was needed."
    ]


def test_guard_stop_is_named(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path, recipe(("sft", "rlhf"), "stop"), tasks=30)
    run.base(BASE)
    run.stage("sft", SFT)
    run.stage("rlhf", {"needle": 0.01}, decision="stopped")
    summary = summarise(tmp_path)
    assert summary.status == "stopped"
    assert wording.status(summary).startswith("Stopped by the guard in RLHF")
    assert summary.final is not None
    assert summary.final.id == "sft/train-k"


def test_results_of_an_earlier_recipe_are_left_aside(copy: Path) -> None:
    run = ExampleRun(copy, recipe(("sft", "if_rl", "rlhf")), tasks=30, clock=500)
    old_base = run.checkpoint("base2", "train", None)
    run.parent, run.skills = old_base, dict(BASE)
    run.sit(old_base, BASE)
    summary = summarise(copy)
    assert summary.base is not None
    assert summary.base.id == "base2/train-k"
    assert all(not stage.attempts for stage in summary.stages)
    assert {attempt.id for attempt in summary.others} >= {"sft/train-k", "if_rl/train-k"}


def test_failure_of_a_step_is_shown_until_a_later_step_finishes(copy: Path) -> None:
    error = {"type": "TrainingStopped", "message": "loss is not finite", "exit_code": 4, "faults": []}
    write_json(copy / "logs" / "train-rlhf.error.json", error)
    summary = summarise(copy)
    assert summary.status == "failed"
    assert wording.status(summary).endswith("TrainingStopped: loss is not finite")
    write_json(copy / "costs" / "later.json", {"wall_s": 1.0, "cpu_s": 1.0})
    assert summarise(copy).status == "unfinished"


@pytest.mark.parametrize(
    "folder", ["checkpoints", "scores", "verdicts", "outcomes", "costs", "samples", "training"]
)
def test_any_folder_may_be_missing(copy: Path, folder: str) -> None:
    shutil.rmtree(copy / folder)
    assert wording.headline(summarise(copy))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"step": 1}', "null"])
def test_damaged_files_are_listed_and_the_rest_is_kept(copy: Path, text: str) -> None:
    for folder in ("scores", "verdicts", "outcomes"):
        next((copy / folder).rglob("*.json")).write_text(text)
    with next((copy / "samples").rglob("*.jsonl")).open("a") as file:
        file.write(text + "\n{torn")
    summary = summarise(copy)
    assert len(summary.problems) >= 4
    assert summary.base is not None
    assert summary.base.points


def test_missing_recipe_is_listed(copy: Path) -> None:
    (copy / "recipe.resolved.json").unlink()
    summary = summarise(copy)
    assert summary.recipe is None
    assert any("recipe.resolved.json" in problem for problem in summary.problems)


def test_scores_of_other_tasks_are_not_compared(copy: Path) -> None:
    final = summarise(copy).final
    assert final is not None
    for path in (copy / "scores" / final.digest[:16]).glob("json.*"):
        score = Score.model_validate_json(path.read_text())
        path.write_text(score.model_copy(update={"rewards": {"another task": [1.0]}}).model_dump_json())
    summary = summarise(copy)
    assert "json" not in {change.benchmark for change in summary.changes}
    assert any("different tasks" in problem for problem in summary.problems)
