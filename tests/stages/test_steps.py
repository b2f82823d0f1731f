"""The steps of a cascade on a run folder: what the pipeline calls, from preflight to settled stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_cascade import make_run, stage

from kascade.errors import CheckpointError, GuardStop, UserError
from kascade.guard.lineage import open_reference, read_outcomes
from kascade.guard.scores import read_score, read_scores
from kascade.guard.verdict import read_verdict
from kascade.storage.checkpoint import CheckpointRef, verify
from kascade.storage.files import read_json
from kascade.storage.layout import RunLayout

from kascade.stages import steps


def run_stage(layout: RunLayout, name: str, parent: str) -> str:
    """One guarded stage as the pipeline runs it."""
    run = str(layout.root)
    candidate = steps.train(run, name, parent)
    for round_ in (1, 2, 3):
        steps.evaluate(run, name, candidate, parent)
        if not steps.verdict(run, name, candidate, parent) or round_ == 3:
            break
        candidate = steps.recover(run, name, round_, candidate, parent)
    return steps.settle(run, name, candidate, parent)


def start(layout: RunLayout) -> str:
    base = steps.preflight(str(layout.root))
    steps.evaluate(str(layout.root), "base", base, base)
    return base


def files_of(root: Path) -> set[tuple[str, int]]:
    kept = ("checkpoints", "scores", "samples", "verdicts", "training")
    paths = (path for name in kept for path in (root / name).rglob("*") if path.is_file())
    return {(str(path.relative_to(root)), path.stat().st_mtime_ns) for path in paths}


BOTH = stage("sft", "sft", "say_a", "say_b", steps=30)
FORGET = stage("forget", "sft", "say_a", steps=10, optimizer={"learning_rate": 3e-2, "weight_decay": 0.0})


@pytest.fixture
def digest_of_reference():
    return lambda reference: CheckpointRef.parse(reference).digest


def test_a_regression_is_caught_recovered_and_nothing_is_done_twice(tmp_path: Path):
    # The second stage breaks say_b: it trains say_a alone, from a prompt that names no other letter.
    layout = make_run(tmp_path, BOTH, stage("drift", "if_rl", "say_b", "say_a", steps=2), FORGET)
    run = str(layout.root)
    base = start(layout)
    first = run_stage(layout, "sft", base)
    second = run_stage(layout, "drift", first)
    third = run_stage(layout, "forget", second)
    outcomes = {outcome.stage: outcome for outcome in read_outcomes(layout)}
    assert outcomes["sft"].decision == "accepted"
    print(outcomes["forget"], [read_verdict(layout, v) for v in outcomes["forget"].verdicts])
    before = files_of(layout.root)
    assert steps.preflight(run) == base
    assert steps.train(run, "sft", base) == first
    steps.evaluate(run, "sft", first, base)
    assert not files_of(layout.root) ^ before
    assert verify(third)[1].stage == "forget"
