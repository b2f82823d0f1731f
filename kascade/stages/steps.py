"""The steps of a cascade: what the pipeline's components call, and nothing else.

`run` is the run's folder; `parent` and `checkpoint` are references `URI@sha256:DIGEST`. Every step is
idempotent: finished work is found by its key and returned, interrupted work is continued. Each writes
`costs/STEP.json` and `progress/STEP.json`, STEP being `preflight`, `STAGE.train`, `STAGE.ATTEMPT.evaluate`,
`STAGE.ATTEMPT.verdict`, `STAGE.recover-N`, `STAGE.settle`, `finish` or `report`.

Each imports what it needs when it is called: on a cluster every step is a process of its own, and most
hold no model.
"""

from __future__ import annotations

import logging
from pathlib import Path

from kascade.guard.judge import judge, open_case
from kascade.guard.lineage import open_reference
from kascade.guard.verdict import read_verdict, write_verdict
from kascade.recipe.checks import BASE
from kascade.stages.context import Run, open_run
from kascade.storage.files import write_json
from kascade.storage.layout import RunLayout

log = logging.getLogger(__name__)


def preflight(run: str) -> str:
    """Check model, data and graders, and import the base model. Returns its reference; raises UserError."""
    from kascade.stages.preflight import check_and_import

    with open_run(run, "preflight") as opened:
        return check_and_import(opened)


def train(run: str, stage: str, parent: str) -> str:
    """Train a stage from the accepted checkpoint `parent`. Returns the trained checkpoint's reference."""
    from kascade.stages.train import train_stage

    with open_run(run, f"{stage}.train") as opened:
        return train_stage(opened, stage, parent)


def evaluate(run: str, stage: str, checkpoint: str, parent: str) -> None:
    """Score a checkpoint on all benchmarks; stage `base` is screened only, having nothing to fall from."""
    from kascade.stages.evaluate import confirm_suspicious, screen_all

    with open_run(run, f"{stage}.{_attempt(checkpoint)}.evaluate") as opened:
        screen_all(opened, checkpoint)
        if stage != BASE:
            confirm_suspicious(opened, checkpoint, parent)


def verdict(run: str, stage: str, checkpoint: str, parent: str) -> bool:
    """Judge an evaluated checkpoint against the best accepted ones. Returns whether it regressed."""
    with open_run(run, f"{stage}.{_attempt(checkpoint)}.verdict", light=True) as opened:
        found = judge(open_case(opened.layout.root, opened.recipe, checkpoint, parent))
        known = read_verdict(opened.layout, found.id)
        if known is None or known.model_copy(update={"created": found.created}) != found:
            write_verdict(opened.layout, found)
        return found.regressed


def recover(run: str, stage: str, round: int, checkpoint: str, parent: str) -> str:
    """Distil back what the stage lost. Returns the recovered candidate's reference, still to be judged."""
    from kascade.stages.recover import recover_stage

    with open_run(run, f"{stage}.recover-{round}") as opened:
        return recover_stage(opened, stage, round, checkpoint, parent)


def settle(run: str, stage: str, candidate: str, parent: str) -> str:
    """End a stage. Returns the accepted checkpoint; raises GuardStop when the recipe says to stop here."""
    from kascade.stages.settle import settle_stage

    with open_run(run, f"{stage}.settle", light=True) as opened:
        try:
            return settle_stage(opened, stage, candidate, parent)
        finally:
            _track(opened)


def finish(run: str, checkpoint: str) -> str:
    """Write down the checkpoint that the main line ended with, and return its reference."""
    write_json(RunLayout(Path(run)).final, {"final_checkpoint": checkpoint})
    return checkpoint


def report(run: str) -> str:
    """Write the report and the model card from the run's folder, however far it came.

    Returns the path of the HTML page; of preflight's error where there is no run to report on.
    """
    from kascade.tracking.card import write_model_card
    from kascade.tracking.promote import promote
    from kascade.tracking.report import write_report

    layout = RunLayout(Path(run))
    if not layout.resolved_recipe.exists():
        log.warning("the run never began: see %s", layout.task_error("preflight"))
        return str(layout.task_error("preflight"))
    with open_run(run, "report", light=True) as opened:
        try:
            _track(opened)
            if opened.recipe.tracking.promote_as:
                promote(opened.layout.root, opened.recipe)
        finally:  # the page does not need MLflow
            write_model_card(opened.layout.root)
            page = write_report(opened.layout.root)
        return str(page)


def _attempt(checkpoint: str) -> str:
    return open_reference(checkpoint).manifest.attempt


def _track(opened: Run) -> None:
    """Bring MLflow up to date with the run's folder."""
    from kascade.tracking.mlflow_sync import sync

    with opened.clock.section("tracking"):
        sync(opened.layout.root, opened.recipe)
