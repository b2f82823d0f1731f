"""Promotion by a person: the comparison where it is missing, then the alias, the report and the card."""

from __future__ import annotations

from pathlib import Path

from kascade.errors import CheckpointError, Fault, UserError
from kascade.run.context import Run, open_run
from kascade.steps.challenge import challenge
from kascade.steps.telling import tell_promotion
from kascade.storage.checkpoint import verify
from kascade.tracking.card import write_model_card
from kascade.tracking.mlflow_sync import sync
from kascade.tracking.promote import Allowed, Promotion, promote, registered
from kascade.tracking.report import write_report


def promote_by_hand(run: Path, allowed: Allowed) -> Promotion:
    """Promote what a run ended with, and bring its pages up to date. Idempotent.

    Raises TrackingError, CheckpointError for a champion that cannot be loaded, and UserError where the
    comparison was to be left out although it can be made.
    """
    with open_run(str(run), "promote") as opened:
        if allowed.without_champion:
            _refuse_where_it_loads(opened)
        challenge(opened, allowed=allowed)
        sync(run, opened.recipe)
        found = promote(run, opened.recipe, allowed)
        tell_promotion(opened, found)
        write_model_card(run)
        write_report(run)
    return found


def _refuse_where_it_loads(opened: Run) -> None:
    with registered(opened.layout.root, opened.recipe) as model:
        champion = model.champion()
    if champion is None:
        return
    try:
        verify(champion.reference)
    except CheckpointError:
        return
    what = f"the champion, version {champion.number}, is there and can be compared"
    raise UserError(Fault("--without-champion", what, remedy="leave the option out"))
