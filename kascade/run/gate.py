"""Whether a stage, a recovery or the end check may begin: a person's word, and the budget.

What may not begin is written down in the run's folder. Nothing after it begins, and the run ends without an
error. The next run of the same folder asks again.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from kascade.guard.approval import Waiting, ask, read_waiting, rejection, wait
from kascade.guard.lineage import own_outcomes
from kascade.recipe.schema import Recipe
from kascade.run.budget import in_words, spent
from kascade.run.outlook import still_needed
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.run_folder import RunFolder

log = logging.getLogger(__name__)
END_CHECK = "retain"


def may_begin(folder: RunFolder, recipe: Recipe, before: str, subject: str) -> bool:
    """Whether `before` may begin from the checkpoint `subject`; if not, the folder says why.

    before: a stage, `STAGE.recover-N`, or `retain`. What has ended before may be gone through again.
    """
    if read_waiting(folder) is not None:
        return False
    if _has_ended(folder, recipe, before, subject):
        return True
    decision = ask(folder, recipe, before, subject)
    if decision is None:
        return _stays(folder)
    if not decision.approved:
        wait(folder, rejection(before, decision))
        return _stays(folder)
    if over := _over_budget(folder, recipe, before):
        since = datetime.now(UTC).isoformat(timespec="seconds")
        wait(folder, Waiting(word="budget reached", before=before, sentence=over, since=since))
        return _stays(folder)
    return True


def _has_ended(folder: RunFolder, recipe: Recipe, before: str, subject: str) -> bool:
    if before == END_CHECK:
        return folder.retained_of(subject) is not None
    outcome = own_outcomes(folder, recipe).get(before)
    digests = [CheckpointRef.parse(one).digest for one in (outcome.parent, subject)] if outcome else [""]
    return outcome is not None and outcome.decision != "stopped" and len(set(digests)) == 1


def _stays(folder: RunFolder) -> bool:
    waiting = read_waiting(folder)
    if waiting is not None:
        log.info("%s: %s", waiting.word, waiting.sentence)
    return False


def _over_budget(folder: RunFolder, recipe: Recipe, before: str) -> str | None:
    """Why the budget does not reach for `before`, and what to do; None where it does."""
    used, needed = spent(folder, recipe), still_needed(folder, recipe, before)
    for name, limit in recipe.limits.limits().items():
        so_far, more = used.get(name, 0.0), needed.get(name, 0.0)
        if so_far + more <= limit and so_far < limit:
            continue
        expected = f" and {before} is expected to take {in_words(name, more, recipe)} more" if more else ""
        return (
            f"{in_words(name, so_far, recipe)} are used{expected}; the budget is "
            f"{in_words(name, limit, recipe)}. To do: kascade resume {folder.root} --set "
            f"budget.{name}=NUMBER, or a new run of this folder with a larger budget."
        )
    return None
