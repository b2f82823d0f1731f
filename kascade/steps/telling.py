"""What the steps of a run tell the receivers of its notifications."""

from __future__ import annotations

from kascade.guard.approval import read_waiting
from kascade.guard.lineage import own_outcomes
from kascade.guard.verdict import Verdict
from kascade.notices.notice import Notice, tell
from kascade.recipe.notify import Event
from kascade.recipe.schema import Recipe
from kascade.run.context import Run
from kascade.storage.run_folder import RunFolder
from kascade.tracking.promote import Promotion

WAITS: dict[str, Event] = {"waiting for approval": "waiting_for_approval", "budget reached": "budget_reached"}
STOPS = ("GuardStop",)  # errors that have an event of their own
DIED = "its process ended without a word: killed, or out of memory"


def tell_verdict(run: Run, found: Verdict) -> None:
    """That an attempt lost something."""
    if not found.regressed:
        return
    lost = list(found.lost_benchmarks)
    reasons = [f"{name}: {found.benchmarks[name].reason}" for name in lost]
    text = f"{found.id} lost {', '.join(lost)}. {' '.join(reasons)}"
    details = {"stage": found.stage, "checkpoint": found.checkpoint, "lost": lost}
    tell(run.layout, run.recipe, Notice("regressed", found.checkpoint, text, details))


def tell_outcome(run: Run, stage: str) -> None:
    """That a stage was recovered, or that the guard stopped the run there."""
    found = own_outcomes(run.layout, run.recipe).get(stage)
    if found is None or found.decision not in ("recovered", "stopped"):
        return
    event: Event = "recovered" if found.decision == "recovered" else "stopped"
    details = {"stage": stage, "checkpoint": found.candidate, "accepted": found.accepted}
    text = f"{stage}: {' '.join(found.reasons)}"
    tell(run.layout, run.recipe, Notice(event, f"{stage} {found.candidate}", text, details))


def tell_stop(run: Run, error: Exception) -> None:
    """That the guard stopped the run in the end check, which has no outcome of its own."""
    text = " ".join(str(error).split())
    tell(run.layout, run.recipe, Notice("stopped", f"{run.step} {text}", text, {"step": run.step}))


def tell_promotion(run: Run, found: Promotion) -> None:
    """That the champion is another one now."""
    if found.decision != "promoted" or found.challenger is None:
        return
    text = f"{found.alias} is version {found.version}. {' '.join(found.reasons)}"
    details = {"checkpoint": found.challenger, "version": found.version, "before": found.champion}
    tell(run.layout, run.recipe, Notice("promoted", f"{found.version} {found.challenger}", text, details))


def tell_end(layout: RunFolder, recipe: Recipe) -> None:
    """What keeps a run from its end: what it waits for, and steps that failed or ended without a word.

    Each try of a step is told of once.
    """
    folder = RunFolder.tolerant(layout.root)
    waiting = read_waiting(folder)
    if waiting is not None and waiting.word in WAITS:
        key = f"{waiting.before} {waiting.since}"
        details = {"before": waiting.before, "until": waiting.until}
        tell(layout, recipe, Notice(WAITS[waiting.word], key, waiting.sentence, details))
    for state in folder.states():
        step, error = state["step"], folder.error(state["step"])
        if step == "report" or state["state"] == "succeeded" or (error and error["type"] in STOPS):
            continue
        what = f"{error['type']}: {error['message']}" if error else DIED
        key = f"{step} {state['started']}"
        tell(layout, recipe, Notice("failed", key, f"{step} failed. {what}", {"step": step, "error": what}))
