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
from toy_cascade import make_run, mix, stage

from kascade.errors import CheckpointError, GuardStop, UserError
from kascade.guard.lineage import open_reference, read_outcomes
from kascade.guard.scores import read_scores
from kascade.guard.verdict import read_verdict
from kascade.learning.metrics import read_metrics
from kascade.stages import steps
from kascade.stages.context import open_run
from kascade.stages.settle import settle_stage
from kascade.storage.checkpoint import CheckpointRef, verify
from kascade.storage.files import read_json
from kascade.storage.layout import RunLayout

BOTH = stage("sft", "sft", "say_a", "say_b", steps=30)
HARSH = {"learning_rate": 1.5e-2, "weight_decay": 0.0}
FORGET = stage("forget", "sft", "say_a", steps=16, optimizer=HARSH)  # one letter only: the other is lost


def start(layout: RunLayout) -> str:
    base = steps.preflight(str(layout.root))
    steps.evaluate(str(layout.root), "base", base, base)
    return base


Settle = Callable[[str, str, str, str], str]


def settle_untracked(run: str, name: str, candidate: str, parent: str) -> str:
    """As `steps.settle`, without MLflow, which takes seconds."""
    with open_run(run, f"{name}.settle") as opened:
        return settle_stage(opened, name, candidate, parent)


def guarded(layout: RunLayout, name: str, parent: str, settle: Settle = settle_untracked) -> str:
    """One guarded stage as the pipeline runs it."""
    run, candidate = str(layout.root), steps.train(str(layout.root), name, parent)
    for round_ in (1, 2, 3):
        steps.evaluate(run, name, candidate, parent)
        if not steps.verdict(run, name, candidate, parent) or round_ == 3:
            break
        candidate = steps.recover(run, name, round_, candidate, parent)
    return settle(run, name, candidate, parent)


def files_of(root: Path) -> set[tuple[str, int]]:
    kept = ("checkpoints", "scores", "samples", "verdicts", "outcomes", "training")
    paths = (path for name in kept for path in (root / name).rglob("*") if path.is_file())
    return {(str(path.relative_to(root)), path.stat().st_mtime_ns) for path in paths}


def test_a_regression_is_caught_recovered_and_nothing_is_done_twice(tmp_path: Path):
    layout = make_run(tmp_path, BOTH, FORGET)
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


def test_confirming_draws_fresh_samples_of_both_checkpoints(tmp_path: Path):
    layout = make_run(tmp_path, BOTH, FORGET)
    first = guarded(layout, "sft", start(layout))
    candidate = steps.train(str(layout.root), "forget", first)
    steps.evaluate(str(layout.root), "forget", candidate, first)
    for reference in (first, candidate):
        digest = CheckpointRef.parse(reference).digest
        assert {len(r) for r in read_scores(layout, digest, "screen")["say_b"].rewards.values()} == {2}
        assert {len(r) for r in read_scores(layout, digest, "confirm")["say_b"].rewards.values()} == {4}
    samples = (layout.samples(CheckpointRef.parse(candidate).digest) / "say_a.jsonl").read_text()
    assert {json.loads(line)["greedy"] for line in samples.splitlines()} == {False, True}


@pytest.mark.parametrize(("unrecovered", "decision"), [("rollback", "rolled_back"), ("stop", "stopped")])
def test_what_is_not_recovered_is_rolled_back_or_stops(unrecovered: str, decision: str, tmp_path: Path):
    layout = make_run(tmp_path, BOTH, FORGET, unrecovered=unrecovered)
    run = str(layout.root)
    first = guarded(layout, "sft", start(layout))
    candidate = steps.train(run, "forget", first)
    steps.evaluate(run, "forget", candidate, first)
    assert steps.verdict(run, "forget", candidate, first)
    if decision == "stopped":
        with pytest.raises(GuardStop, match="a fall beyond chance"):
            settle_untracked(run, "forget", candidate, first)
    else:
        assert settle_untracked(run, "forget", candidate, first) == first
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
    assert any("missing.jsonl" in fault.where for fault in caught.value.faults)


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
from kascade.stages import steps
from kascade.stages.context import open_run
from kascade.stages.settle import settle_stage
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
    shutil.rmtree(layout.scores(digest))
    recipe = json.loads(layout.resolved_recipe.read_text())
    layout.resolved_recipe.write_text(json.dumps({**recipe, "exam_processes": 2}))
    steps.evaluate(str(layout.root), "base", base, base)
    assert read_scores(layout, digest, "screen") == alone
