"""Where nothing changed: does the champion still do on fresh samples what it did when it was promoted?"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime

from kascade.exams.evaluate import score_by
from kascade.exams.exams import Draw
from kascade.guard.champion import ROUND_DIGITS
from kascade.guard.decline import falls, measured
from kascade.guard.scores import read_scores
from kascade.run.context import open_run
from kascade.tracking.promote import registered
from kascade.tracking.retrain import note_examined

log = logging.getLogger(__name__)


def examine_champion(run: str) -> list[str]:
    """Let the champion answer the benchmarks again, and note what fell for the next run to train on.

    Returns a sentence per benchmark that fell; [] where nothing did, or there is no champion to look at. The
    samples are fresh on every day. Raises TrackingError, and CheckpointError for a champion that is gone.
    """
    with open_run(run, "examine") as opened:
        with registered(opened.layout.root, opened.recipe) as model:
            champion = model.champion()
        if champion is None or not champion.measured:
            log.info("there is no champion with scores to look at")
            return []
        names = [one.name for one in opened.recipe.benchmarks if one.name in champion.measured]
        draw = Draw("promotion", _number(champion.digest), opened.recipe.guard.confirm_samples)
        score_by(opened, champion.reference, names, draw)
        scores = read_scores(opened.layout, champion.digest, "promotion", draw.round)
        now = {name: found for name, score in scores.items() if (found := measured(score)) is not None}
        fallen = falls(champion.measured, now, opened.recipe.guard)
        with registered(opened.layout.root, opened.recipe) as model:
            model.note_fall(champion, fallen, now)
        note_examined(opened.layout, fallen)
        return fallen


def _number(digest: str) -> int:
    """The number of today's draw, which no other comparison uses."""
    today = f"{digest} alone on {datetime.now(UTC).date().isoformat()}"
    return int(hashlib.sha256(today.encode()).hexdigest()[:ROUND_DIGITS], 16)
