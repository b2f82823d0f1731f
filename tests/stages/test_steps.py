"""The steps of a cascade on a run folder: what the pipeline calls, from preflight to settled stages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_cascade import RECOVERY, SURE, make_run, mix, stage

from kascade.errors import CheckpointError, GuardStop, KascadeError, UserError
from kascade.guard.end_check import read_end_verdict
from kascade.guard.lineage import (
    accepted_of_stages,
    open_reference,
    own_outcomes,
    read_outcomes,
    write_outcome,
)
from kascade.guard.scores import read_scores
from kascade.guard.verdict import read_verdict
from kascade.learning.metrics import read_metrics
from kascade.recipe.run_recipe import read_run_recipe
from kascade.run.context import open_run
from kascade.stages.attempts import tried
from kascade.steps import pages, steps
from kascade.steps.begin import _started_from
from kascade.steps.settle import settle_stage
from kascade.storage.checkpoint import CheckpointRef, verify
from kascade.storage.files import read_json, write_text
from kascade.storage.run_folder import RunFolder
from kascade.tracking.promote import final_checkpoint

BOTH = stage("sft", "sft", "say_a", "say_b", steps=30)
HARSH = {"learning_rate": 1.5e-2, "weight_decay": 0.0}
FORGET = stage("forget", "sft", "say_a", steps=16, optimizer=HARSH)  # one letter only: the other is lost


def start(layout: RunFolder) -> str:
    base = steps.preflight(str(layout.root))
    steps.evaluate(str(layout.root), "base", base, base)
    return base


Settle = Callable[[str, str, str], str]


def settle_untracked(run: str, name: str, parent: str) -> str:
    """As `steps.settle`, without MLflow, which takes seconds."""
    with open_run(run, f"{name}.settle") as opened:
        return settle_stage(opened, name, tried(opened, name, parent)[-1], parent)


def guarded(layout: RunFolder, name: str, parent: str, settle: Settle = settle_untracked) -> str:
    """One guarded stage as the pipeline runs it."""
    run, candidate = str(layout.root), steps.train(str(layout.root), name, parent)
    for round_ in (1, 2, 3):
        if not steps.evaluate(run, name, candidate, parent) or round_ == 3:
            break
        candidate = steps.recover(run, name, round_, candidate, parent)
    return settle(run, name, parent)


def files_of(root: Path) -> set[tuple[str, int]]:
    kept = ("checkpoints", "scores", "samples", "verdicts", "outcomes", "training")
    paths = (path for name in kept for path in (root / name).rglob("*") if path.is_file())
    return {(str(path.relative_to(root)), path.stat().st_mtime_ns) for path in paths}


def test_a_regression_is_caught_recovered_and_nothing_is_done_twice(tmp_path: Path):
    layout = make_run(tmp_path, BOTH, FORGET, **SURE)
    run = str(layout.root)
    base = start(layout)
    first = guarded(layout, "sft", base)
    second = guarded(layout, "forget", first, steps.settle)
    assert (layout.root / "mlflow.db").exists()
    accepted, recovered = read_outcomes(layout)
    assert (accepted.decision, recovered.decision) == ("accepted", "recovered")
    assert recovered.recovered["knowledge"] > 0.8
    lost = read_verdict(layout, recovered.verdicts[0])
    assert lost is not None
    assert lost.lost_benchmarks == ("say_b",)
    manifest = verify(second)[1]
    assert manifest.stage == "forget"
    assert manifest.attempt in ("recover-1", "recover-2")
    before = [read_verdict(layout, attempt) for attempt in recovered.verdicts[:-1]]
    fallen = {domain for verdict in before if verdict for domain in verdict.lost_domains}
    assert "knowledge" in fallen
    teachers = {domain: first if domain in fallen else lost.checkpoint for domain in ("knowledge", "math")}
    assert manifest.teachers == teachers
    done = files_of(layout.root)
    assert steps.preflight(run) == base
    assert guarded(layout, "sft", base) == first
    assert guarded(layout, "forget", first) == second
    assert not files_of(layout.root) ^ done


def test_a_folder_that_is_continued_settles_what_its_own_recipe_trained(tmp_path: Path):
    """Another recipe's results in the folder are newer or older; the key says whose they are."""
    layout = make_run(tmp_path, BOTH)
    base, whole = start(layout), layout.resolved_recipe.read_text()
    first = guarded(layout, "sft", base)
    layout.resolved_recipe.write_text(whole.replace('"steps":30', '"steps":31'))
    other = guarded(layout, "sft", base)
    assert other != first and [one.accepted for one in read_outcomes(layout)] == [first, other]
    layout.resolved_recipe.write_text(whole)
    assert settle_untracked(str(layout.root), "sft", base) == first


def test_a_recovery_is_found_again_when_other_teachers_would_be_chosen_now(tmp_path: Path):
    """A side branch that is settled beside the recovery may offer some; the manifest says who taught."""
    layout = make_run(tmp_path, BOTH, FORGET)
    first = guarded(layout, "sft", start(layout))
    second = guarded(layout, "forget", first)
    with open_run(str(layout.root), "test") as opened, pytest.MonkeyPatch.context() as patch:
        expected = tried(opened, "forget", first)
        own = open_reference(expected[0])
        patch.setattr("kascade.stages.attempts.recovery_teachers", lambda *_: {"knowledge": own})
        assert len(expected) > 1 and expected[-1] == second
        assert tried(opened, "forget", first) == expected


def test_a_stage_that_was_left_out_hands_on_what_it_was_given(tmp_path: Path):
    layout = make_run(tmp_path, BOTH)
    base = start(layout)
    assert not steps.begin(str(layout.root), "forget", base)
    assert steps.skip(str(layout.root), "forget", base) is None
    assert steps.settle(str(layout.root), "forget", base) == base
    assert not read_outcomes(layout)
    with pytest.raises(KascadeError, match="no checkpoint that this recipe trained"):
        steps.settle(str(layout.root), "sft", base)


def test_the_page_of_a_run_says_what_was_lost_and_why(tmp_path: Path):
    layout = make_run(tmp_path, BOTH, FORGET)
    first = guarded(layout, "sft", start(layout))
    assert steps.begin(str(layout.root), "forget", first)
    second = guarded(layout, "forget", first)
    found = steps.verdict(str(layout.root), "forget", "train", first)
    text = pages.verdict_markdown(found)
    row = next(line for line in text.splitlines() if line.startswith("| say_b"))
    assert "lost say_b" in text and "| lost |" in row and found.benchmarks["say_b"].reason in row
    scores = pages.verdict_scores(found)
    assert scores["benchmarks lost"] == 1 and scores["say_b"] == found.benchmarks["say_b"].after
    digest = CheckpointRef.parse(second).digest
    means = {name: score.mean for name, score in read_scores(layout, digest, "screen").items()}
    assert pages.final_scores(str(layout.root)) == means and set(means) == {"say_a", "say_b"}
    last = open_reference(second).manifest.attempt
    assert steps.verdict(str(layout.root), "forget", last, first).checkpoint == second


def test_confirming_draws_fresh_samples_of_both_checkpoints(tmp_path: Path):
    layout = make_run(tmp_path, BOTH, FORGET)
    first = guarded(layout, "sft", start(layout))
    candidate = steps.train(str(layout.root), "forget", first)
    steps.evaluate(str(layout.root), "forget", candidate, first)
    for reference in (first, candidate):
        digest = CheckpointRef.parse(reference).digest
        assert {len(r) for r in read_scores(layout, digest, "screen")["say_b"].rewards.values()} == {2}
        assert {len(r) for r in read_scores(layout, digest, "confirm")["say_b"].rewards.values()} <= {2, 4}
    samples = layout.samples(CheckpointRef.parse(candidate).digest, "say_a").read_text()
    assert {json.loads(line)["greedy"] for line in samples.splitlines()} == {False, True}


def test_the_end_check_names_what_is_lost_and_recovers_it_once_more(tmp_path: Path):
    """What a stage lost is let pass; at the end one last recovery brings it back, or the better of both
    stays."""
    retention = {"on_loss": "recover", "samples": 8}
    budget = {"let_pass_budget": 1.0, "recovery": {**RECOVERY, "rounds": 0}}
    layout = make_run(tmp_path, BOTH, FORGET, retention=retention, **budget)
    run = str(layout.root)
    first = guarded(layout, "sft", start(layout))
    candidate = steps.train(run, "forget", first)
    assert steps.evaluate(run, "forget", candidate, first)
    last = settle_untracked(run, "forget", first)
    assert read_outcomes(layout)[-1].decision == "continued"
    kept = steps.retain(run, last)
    before = read_end_verdict(layout, last)
    assert before is not None
    assert before.benchmarks["say_b"].standing == "lost"
    after = read_end_verdict(layout, kept)
    assert after is not None
    assert after.benchmarks["say_b"].fall < before.benchmarks["say_b"].fall
    assert after.recovered_from == last
    assert steps.retain(run, last) == kept, "done once"


@pytest.mark.parametrize(("unrecovered", "decision"), [("rollback", "rolled_back"), ("stop", "stopped")])
def test_what_is_not_recovered_is_rolled_back_or_stops(unrecovered: str, decision: str, tmp_path: Path):
    layout = make_run(tmp_path, BOTH, FORGET, unrecovered=unrecovered)
    run = str(layout.root)
    first = guarded(layout, "sft", start(layout))
    candidate = steps.train(run, "forget", first)
    assert steps.evaluate(run, "forget", candidate, first)
    if decision == "stopped":
        with pytest.raises(GuardStop, match=": lost"):
            settle_untracked(run, "forget", first)
    else:
        assert settle_untracked(run, "forget", first) == first
    assert read_outcomes(layout)[-1].decision == decision


def test_mopd_is_taught_by_the_best_accepted_checkpoint_of_each_domain(tmp_path: Path):
    mopd = stage("mopd", "mopd", "say_a", "say_b", steps=2, teachers={"math": "sft"})
    layout = make_run(tmp_path, BOTH, mopd)
    first = guarded(layout, "sft", start(layout))
    distilled = steps.train(str(layout.root), "mopd", first)
    assert open_reference(distilled).manifest.teachers == {"math": first, "knowledge": first}


def test_where_no_teacher_leads_mopd_leaves_the_weights_and_says_so(tmp_path: Path):
    mopd = stage("mopd", "mopd", "say_a", steps=2, min_teacher_gap=0.5, validation_tasks=10)
    layout = make_run(tmp_path, BOTH, mopd)
    first = guarded(layout, "sft", start(layout))
    distilled = steps.train(str(layout.root), "mopd", first)
    weights = [verify(reference)[1].files["model.safetensors"] for reference in (first, distilled)]
    assert weights[0] == weights[1]
    (line,) = read_metrics(next(layout.root.glob("training/mopd/*/metrics.jsonl")))
    assert line["note"] == "no update: no teacher leads by min_teacher_gap 0.5"


def test_preflight_names_all_faults_at_once(tmp_path: Path):
    missing = {"source": {"environment": "say_b", "path": str(tmp_path / "missing.jsonl")}}
    layout = make_run(tmp_path, stage("rl", "if_rl", "say_a", data=[mix("say_a"), missing]))
    (tmp_path / "base" / "tokenizer.json").unlink()
    with pytest.raises(UserError) as caught:
        steps.preflight(str(layout.root))
    assert {"has no tokenizer"} <= {fault.what for fault in caught.value.faults}
    assert any("missing.jsonl" in fault.what for fault in caught.value.faults)


def test_a_damaged_checkpoint_is_not_trained_from(tmp_path: Path):
    layout = make_run(tmp_path, BOTH)
    base = start(layout)
    weights = CheckpointRef.parse(base).path / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()  # a link to the user's own file, which stays as it is
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        steps.train(str(layout.root), "sft", base)


def test_costs_add_up_over_tries(tmp_path: Path):
    layout = make_run(tmp_path, BOTH)
    base = start(layout)
    steps.train(str(layout.root), "sft", base)
    paid = read_json(layout.cost("sft.train"))
    steps.train(str(layout.root), "sft", base)
    again = read_json(layout.cost("sft.train"))
    assert again["training_s"] == paid["training_s"] > 0
    assert again["wall_s"] >= paid["wall_s"]


TRAIN = """
import sys
from toy_cascade import ENVIRONMENTS
from kascade.environments import BUILTIN
BUILTIN.update(ENVIRONMENTS)
from kascade.stages.attempts import tried
from kascade.steps import pages, steps
from kascade.run.context import open_run
from kascade.steps.settle import settle_stage
print(steps.train(*sys.argv[1:]))
"""


def test_killed_with_9_and_run_again_it_ends_with_the_same_checkpoint(tmp_path: Path):
    part = stage("rl", "if_rl", "say_a", steps=40, save_every=5)
    whole, cut = make_run(tmp_path / "whole", part), make_run(tmp_path / "cut", part)
    expected = steps.train(str(whole.root), "rl", start(whole))
    base = start(cut)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths}
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(cut.root), "rl", base], env=environment)
    while not list(cut.root.glob("training/rl/*/state/step-*/state.json")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list((cut.root / "checkpoints" / "rl").glob("train-*"))
    resumed = steps.train(str(cut.root), "rl", base)
    assert CheckpointRef.parse(resumed).digest == CheckpointRef.parse(expected).digest
    curves = [next(layout.root.glob("training/rl/*/metrics.jsonl")) for layout in (whole, cut)]
    assert read_metrics(curves[0]) == read_metrics(curves[1])


def test_scores_do_not_depend_on_how_many_processes_share_an_exam(tmp_path: Path):
    layout = make_run(tmp_path, BOTH, FORGET)
    base = start(layout)
    digest = CheckpointRef.parse(base).digest
    alone = read_scores(layout, digest, "screen")
    shutil.rmtree(layout.score(digest, "any", "screen", 0).parent)
    recipe = json.loads(layout.resolved_recipe.read_text())
    layout.resolved_recipe.write_text(json.dumps({**recipe, "exam_processes": 2}))
    steps.evaluate(str(layout.root), "base", base, base)
    assert read_scores(layout, digest, "screen") == alone


def test_a_checkpoint_of_one_run_is_the_model_of_another(tmp_path: Path):
    first = make_run(tmp_path / "first", BOTH)
    base = steps.preflight(str(first.root))
    second = make_run(tmp_path / "second", BOTH)
    recipe = read_run_recipe(second.root)
    for source in (str(CheckpointRef.parse(base).path), _started_from(recipe, base).model.source):
        model = recipe.model.model_copy(update={"source": source})
        changed = recipe.model_copy(update={"model": model})
        write_text(second.resolved_recipe, changed.model_dump_json())
        again = steps.preflight(str(second.root))
        assert verify(again)[1].files == verify(base)[1].files


def test_another_recipes_results_in_the_folder_are_no_teachers_of_this_one(tmp_path: Path):
    mopd = stage("mopd", "mopd", "say_a", "say_b", steps=1, teachers={"math": "sft"})
    layout = make_run(tmp_path, stage("sft", "sft", "say_a", "say_b", steps=3), mopd)
    recipe = read_run_recipe(layout.root)
    first = guarded(layout, "sft", start(layout))
    shorter = recipe.stages[0].model_copy(update={"steps": 2})
    for stages in ((shorter, recipe.stages[1]), recipe.stages):
        changed = recipe.model_copy(update={"stages": stages})
        write_text(layout.resolved_recipe, changed.model_dump_json())
        base = start(layout)
        ended = guarded(layout, "sft", base)
        assert open_reference(steps.train(str(layout.root), "mopd", ended)).manifest.teachers == {
            "math": ended,
            "knowledge": ended,
        }
    assert ended == first
    assert len(read_outcomes(layout)) == 2  # the first recipe's outcome is found, not written again
    assert own_outcomes(layout)["sft"].accepted == first
    other = next(one for one in read_outcomes(layout) if one.accepted != first)
    write_outcome(layout, other.model_copy(update={"created": "2099-01-01T00:00:00+00:00"}))  # clock set back
    assert own_outcomes(layout)["sft"].accepted == first
    assert final_checkpoint(layout, recipe).reasons == ("mopd has not ended",)
    assert accepted_of_stages(layout, ("sft",))[0].reference == first
