"""The run's final checkpoint against the champion, on fresh samples of both."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from kascade.errors import CheckpointError, KascadeError
from kascade.exams.evaluate import Wanted, grade_again_unjudged, score_all
from kascade.exams.exams import Draw
from kascade.guard.champion import Challenge, Contenders, read_challenge, sentences, write_challenge
from kascade.run.context import Run
from kascade.tracking.promote import (
    NOTHING,
    Allowed,
    final_checkpoint,
    opponent,
    outcome,
    registered,
    write_promotion,
)
from kascade.tracking.registry import Version

log = logging.getLogger(__name__)
WRONG = (KascadeError, OSError, ValueError, KeyError, RuntimeError)


def challenge_quietly(run: Run, ended: str) -> None:
    """The comparison, as a step of a run makes it: what prevents it is written down and ends nothing."""
    try:
        challenge(run, ended)
    except KascadeError as error:
        log.warning("the champion was not challenged: %s", error)


def challenge(run: Run, ended: str | None = None, allowed: Allowed = NOTHING) -> Challenge | None:
    """Compare what the run ended with to the champion, where there is another one. Returns None where not.

    Answers are drawn look by look, until each benchmark is decided. Raises TrackingError, and CheckpointError
    for a champion that cannot be loaded; `promotion.json` then says so.
    """
    final = final_checkpoint(run.layout, run.recipe, ended)
    if final.reference is None:
        return None
    with registered(run.layout.root, run.recipe) as model:
        champion, _ = opponent(model, final.reference, allowed)
    if champion is None:
        return None
    pair = Contenders(run.layout, run.recipe, final.reference, champion.reference, champion.given_up)
    earlier = read_challenge(run.layout, final.reference, champion.reference)
    contests = earlier.benchmarks.items() if earlier else ()
    unjudged = [name for name, one in contests if one.standing == "not_judged"]
    try:
        grade_again_unjudged(run, unjudged, [champion.reference])
        while needed := pair.needed():
            draws = {name: Draw("promotion", pair.round, size) for name, size in needed.items()}
            _score_both(run, final.reference, champion, draws)
    except CheckpointError as error:
        why = outcome(run.recipe, "not compared", final.reference, champion, (str(error),))
        write_promotion(run.layout, why)
        raise
    found = pair.conclude(champion.benchmarks)
    if earlier != found:
        write_challenge(run.layout, found)
    for sentence in sentences(found):
        log.info("against the champion: %s", sentence)
    return found


def _score_both(run: Run, own: str, champion: Version, draws: Mapping[str, Draw]) -> None:
    """Draw both models' answers in one go. Whatever is wrong with the champion is reported as its error."""
    theirs = [Wanted(champion.reference, name, draw) for name, draw in draws.items()]
    try:
        score_all(run, [*(replace(one, reference=own) for one in theirs), *theirs])
    except WRONG:
        _score_champion(run, champion, theirs)  # alone: if this works, the error was not the champion's
        raise


def _score_champion(run: Run, champion: Version, wanted: list[Wanted]) -> None:
    """Raises CheckpointError for whatever is wrong with a model that another run made."""
    try:
        score_all(run, wanted)
    except WRONG as error:
        what = " ".join(str(error).split())[:400]
        remedy = (
            "bring its files back, name an earlier champion (`kascade rollback`), or let the end check alone "
            "decide (`kascade promote RUN --without-champion`)"
        )
        where = f"the champion, version {champion.number} ({champion.reference})"
        raise CheckpointError(f"{where}, cannot be loaded: {what}. To do: {remedy}") from error
