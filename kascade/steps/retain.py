"""The end check after the last stage, and what follows from it."""

from __future__ import annotations

import logging

from kascade.environments import domain_of
from kascade.errors import GuardStop
from kascade.exams.evaluate import Wanted, grade_again_unjudged, score_all, screen_all
from kascade.exams.exams import Draw
from kascade.guard.accepted import accepted_at_end
from kascade.guard.end_check import (
    EndVerdict,
    better,
    open_end_check,
    read_end_verdict,
    sentences,
    write_end_verdict,
)
from kascade.guard.lineage import open_reference
from kascade.guard.teachers import best_teachers
from kascade.recipe.checks import BASE
from kascade.run.context import Run
from kascade.stages.attempts import Attempt, loss_in, stage_index
from kascade.stages.recover import recovery_part
from kascade.stages.tasks import recovery_mixes
from kascade.stages.train import make_checkpoint

log = logging.getLogger(__name__)


def retain_all(run: Run, checkpoint: str) -> str:
    """Hold the cascade's last checkpoint against all that was once best. Returns the checkpoint to end with.

    That is another one where `guard.retention.on_loss` says `recover` and the last recovery lost less. Raises
    GuardStop where something is not shown to be kept and it says `stop`.
    """
    rule = run.recipe.guard.retention
    found = check(run, checkpoint)
    if not found.kept and rule.on_loss == "recover" and open_reference(checkpoint).manifest.stage != BASE:
        recovered = recover_last(run, checkpoint, found)
        if recovered is None:
            log.warning("no last recovery: nothing of what is not kept can be trained on")
            return found.checkpoint
        screen_all(run, recovered)
        found = better(found, check(run, recovered, checkpoint))
    if not found.kept and rule.on_loss == "stop":
        raise GuardStop("the end check stops here, as guard.retention says:\n" + "\n".join(sentences(found)))
    return found.checkpoint


def check(run: Run, checkpoint: str, recovered_from: str | None = None) -> EndVerdict:
    """The end check of a checkpoint on fresh samples, drawn look by look until each benchmark is decided.

    Easy benchmarks are decided at the first looks, so samples go where the variance is.
    """
    round_ = 0 if recovered_from is None else 1
    known = read_end_verdict(run.layout, checkpoint)
    held = known.benchmarks.items() if known else ()
    grade_again_unjudged(run, [name for name, one in held if one.standing == "not_judged"])
    opened = open_end_check(run.layout, run.recipe, checkpoint, round_, recovered_from)
    while needed := opened.needed():
        wanted = [
            Wanted(one, name, Draw("end", round_, size))
            for name, (other, size) in needed.items()
            for one in (checkpoint, other)
        ]
        score_all(run, wanted)
    domains = {one.name: domain_of(one.source) for one in run.recipe.benchmarks}
    found = opened.conclude(domains, recovered_from)
    if read_end_verdict(run.layout, checkpoint) != found:
        write_end_verdict(run.layout, found)
    for sentence in sentences(found):
        log.info("end check: %s", sentence)
    return found


def recover_last(run: Run, checkpoint: str, found: EndVerdict) -> str | None:
    """One last MOPD over all domains that are not kept, taught by their best accepted checkpoints, which are
    those that the end check compares with. None where there are no tasks to train on for any of them.
    """
    own = open_reference(checkpoint)
    stage = own.manifest.stage
    domains = list(dict.fromkeys(held.domain for held in found.not_kept.values()))
    loss = loss_in(run.recipe, stage_index(run, stage), domains)
    if not loss.lost:
        return None
    best = best_teachers(run.layout, accepted_at_end(run.layout, run.recipe, checkpoint))
    taught = {domain: best[domain].checkpoint for domain in loss.lost}
    teachers = {**taught, **dict.fromkeys(loss.kept, own)}
    rule = run.recipe.guard.recovery
    attempt = Attempt(stage, f"recover-{rule.rounds + 1}", checkpoint, teachers, loss.borrowed)
    mixes = recovery_mixes(loss.sources, loss.lost, loss.kept, rule.keep_weight)
    return make_checkpoint(run, attempt, recovery_part(run, stage, mixes))
