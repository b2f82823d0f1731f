"""The steps of a cascade: what the pipeline's components call, and nothing else.

`run` is the run's folder; `parent` and `checkpoint` are references `URI@sha256:DIGEST`. Every step is
idempotent: finished work is found by its key and returned, interrupted work is continued. Each writes
`costs/STEP.json` and `progress/STEP.json`, STEP being `preflight`, `STAGE.begin`, `STAGE.skip`,
`STAGE.train`, `STAGE.ATTEMPT.evaluate`, `STAGE.ATTEMPT.verdict`, `STAGE.recover-N`, `STAGE.settle`, `retain`,
`finish` or `report`. The end check begins as a stage called `retain` does.

Each imports what it needs when it is called: on a cluster every step is a process of its own, and most
hold no model.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from kascade.errors import Fault, GuardStop, KascadeError, redact
from kascade.guard.approval import Waiting, go_on, read_waiting
from kascade.guard.lineage import open_reference
from kascade.guard.own import write_identity
from kascade.guard.ruling import judge, open_case
from kascade.guard.verdict import Verdict, read_verdict, write_verdict
from kascade.recipe.checks import BASE
from kascade.recipe.schema import Recipe
from kascade.run.context import Run, open_run
from kascade.run.gate import END_CHECK, may_begin
from kascade.run.process import marked_wait
from kascade.steps.telling import tell_end, tell_outcome, tell_promotion, tell_stop, tell_verdict
from kascade.storage.run_folder import RunFolder

log = logging.getLogger(__name__)


def preflight(run: str, job_faults: Callable[[Recipe], list[Fault]] = lambda recipe: []) -> str:
    """Check model, data and graders, and import the base model. Returns its reference; raises UserError."""
    from kascade.doctor.preflight import check_and_import

    with open_run(run, "preflight") as opened:
        go_on(opened.layout)
        base = check_and_import(opened, job_faults)
        write_identity(opened.layout, opened.recipe, base)
        return base


def train(run: str, stage: str, parent: str) -> str:
    """Train a stage from the accepted checkpoint `parent`. Returns the trained checkpoint's reference."""
    from kascade.stages.train import train_stage

    with open_run(run, f"{stage}.train") as opened:
        return train_stage(opened, stage, parent)


def evaluate(run: str, stage: str, checkpoint: str, parent: str) -> bool:
    """Score a checkpoint on all benchmarks, and judge it against the best accepted ones.

    Returns whether it regressed; False, too, where the run is held up before the recovery, and where there is
    nothing to train a recovery on. Stage `base` is screened only, having nothing to fall from.
    """
    from kascade.exams.evaluate import confirm_suspicious, grade_again_unjudged, screen_all
    from kascade.stages.attempts import can_recover
    from kascade.stages.tasks import NOTHING_TO_TRAIN_ON

    with open_run(run, f"{stage}.{_attempt(checkpoint)}.evaluate") as opened:
        known = read_verdict(opened.layout, open_reference(checkpoint).manifest.id)
        grade_again_unjudged(opened, known.not_judged if known else ())
        screen_all(opened, checkpoint)
        if stage == BASE:
            return False
        confirm_suspicious(opened, checkpoint, parent)
        found = _judged(opened, checkpoint, parent)
        tell_verdict(opened, found)
        round_ = 1 if found.attempt == "train" else int(found.attempt.removeprefix("recover-")) + 1
        if not found.regressed or round_ > opened.recipe.guard.recovery.rounds:
            return found.regressed
        if not can_recover(opened, stage, checkpoint):
            log.warning("no recovery: %s", "; ".join(found.lost_domains) + ": " + NOTHING_TO_TRAIN_ON)
            return False
        return may_begin(opened.layout, opened.recipe, f"{stage}.recover-{round_}", checkpoint)


def _judged(opened: Run, checkpoint: str, parent: str) -> Verdict:
    """The verdict on an evaluated checkpoint, written down where it is a new one."""
    found = judge(open_case(opened.layout, opened.recipe, checkpoint, parent))
    known = read_verdict(opened.layout, found.id)
    if known is not None and known.model_copy(update={"created": found.created}) == found:
        return known
    write_verdict(opened.layout, found)
    return found


def begin(run: str, stage: str, parent: str) -> bool:
    """Whether a stage (or the end check, `retain`) begins: not where the run form switched it off, and not
    where a person's word or the budget holds the run up, which is then written down in the run's folder.
    """
    from kascade.steps.words import beginning

    with open_run(run, f"{stage}.begin", light=True) as opened:
        log.info("%s", beginning(opened, stage, parent))
        known = {END_CHECK, *(part.name for part in opened.recipe.stages)}
        return stage in known and may_begin(opened.layout, opened.recipe, stage, parent)


def skip(run: str, stage: str, parent: str) -> Waiting | None:
    """What the run waits for, where a stage was not begun; None where the run form switched the stage off.

    Nothing depends on it. MLflow is told.
    """
    with open_run(run, f"{stage}.skip", light=True) as opened:
        waiting = read_waiting(opened.layout)
        if waiting is not None and waiting.before == stage:
            _track(opened)
        return waiting


def verdict(run: str, stage: str, attempt: str, parent: str) -> Verdict:
    """The verdict that an attempt of a stage was given, as MLflow and the page of the run show it.

    Nothing depends on it. MLflow is brought up to date when a recovery follows; else settling does that.
    """
    from kascade.stages.attempts import tried

    with open_run(run, f"{stage}.{attempt}.verdict", light=True) as opened:
        manifests = [open_reference(one).manifest for one in tried(opened, stage, parent)]
        known = {one.attempt: read_verdict(opened.layout, one.id) for one in manifests}
        found = known.get(attempt)
        if found is None:
            raise KascadeError(f"{stage}: {attempt} has not been judged yet")
        if found.regressed:
            _track(opened)
        return found


def recover(run: str, stage: str, round: int, checkpoint: str, parent: str) -> str:
    """Distil back what the stage lost. Returns the recovered candidate's reference, still to be judged."""
    from kascade.stages.recover import recover_stage

    with open_run(run, f"{stage}.recover-{round}") as opened:
        return recover_stage(opened, stage, round, checkpoint, parent)


def settle(run: str, stage: str, parent: str) -> str:
    """End a stage that started from `parent`. Returns the accepted checkpoint: `parent` where the run form
    left the stage out, or the run waits. Raises GuardStop when the recipe says to stop here.
    """
    from kascade.stages.attempts import tried
    from kascade.steps.settle import settle_stage

    with open_run(run, f"{stage}.settle", light=True) as opened:
        if stage not in {part.name for part in opened.recipe.stages}:
            log.info("%s is left out; the cascade continues from %s", stage, parent)
            return parent
        attempts, waiting = tried(opened, stage, parent), read_waiting(opened.layout)
        if waiting is not None and (not attempts or waiting.before.partition(".")[0] == stage):
            log.info("%s: %s", waiting.word, waiting.sentence)
            return parent
        if not attempts:
            raise KascadeError(f"{stage} has no checkpoint that this recipe trained from {parent}")
        try:
            return settle_stage(opened, stage, attempts[-1], parent)
        finally:
            _track(opened)
            tell_outcome(opened, stage)


def retain(run: str, checkpoint: str) -> str:
    """The end check after the last stage: hold `checkpoint` against all that was once best.

    Where the recipe promotes, what the cascade ends with is then compared with the champion. Returns the
    checkpoint that the cascade ends with; raises GuardStop when the recipe says to stop here.
    """
    from kascade.steps.challenge import challenge_quietly
    from kascade.steps.retain import retain_all

    with open_run(run, "retain") as opened:
        try:
            retained = retain_all(opened, checkpoint)
        except GuardStop as error:
            tell_stop(opened, error)
            raise
        if opened.recipe.tracking.promote_as:
            challenge_quietly(opened, retained)
        opened.layout.write_retained(checkpoint, retained)
        return retained


def finish(run: str, checkpoint: str) -> str:
    """Write down what the end check made of the main line's last checkpoint, and return its reference.

    A run that waits has not ended: nothing is written.
    """
    layout = RunFolder(Path(run))
    if read_waiting(layout) is not None:
        return checkpoint
    retained = layout.retained_of(checkpoint) or checkpoint  # who makes no end check ends with it as it is
    layout.write_final(retained)
    return retained


def report(run: str) -> str:
    """Write the report and the model card from the run's folder, however far it came.

    Returns the path of the HTML page; of preflight's error where there is no run to report on.
    """
    from kascade.tracking.card import write_model_card
    from kascade.tracking.mlflow_server import TrackingError
    from kascade.tracking.promote import not_reached, promote
    from kascade.tracking.report import write_report
    from kascade.tracking.retrain import read_reason, remember

    layout = RunFolder(Path(run))
    if not layout.has_begun:
        log.warning("the run never began: see %s", layout.step_error("preflight"))
        return str(layout.step_error("preflight"))
    with open_run(run, "report", light=True) as opened:
        try:
            reason = read_reason(opened.layout) if opened.recipe.retrain else None
            if reason is None or reason.train:
                _track(opened)
                if opened.recipe.tracking.promote_as:
                    tell_promotion(opened, promote(opened.layout.root, opened.recipe))
                remember(opened.layout.root, opened.recipe)
        except TrackingError as error:  # the run has ended all the same
            not_reached(opened.layout, opened.recipe, error)
        finally:  # the page does not need MLflow
            write_model_card(opened.layout.root)
            page = write_report(opened.layout.root)
            tell_end(opened.layout, opened.recipe)
            if (waiting := read_waiting(opened.layout)) is not None:
                sys.stderr.write(marked_wait(f"{waiting.word}: {waiting.sentence}") + "\n")
        return str(page)


def _attempt(checkpoint: str) -> str:
    return open_reference(checkpoint).manifest.attempt


def _track(opened: Run) -> None:
    """Bring MLflow up to date with the run's folder. It never stops a run: the folder holds everything."""
    from kascade.tracking.mlflow_sync import sync

    with opened.clock.section("tracking"):
        try:
            sync(opened.layout.root, opened.recipe)
        except Exception as error:  # of MLflow, of its database's driver, of the disk
            what = redact(str(error))
            log.warning(
                "MLflow is not up to date: %s. The next stage's end, or a resumed run, tries again", what
            )
