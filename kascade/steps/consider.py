"""Whether a run that is started again and again trains at all: the first step of such a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from kascade.recipe.run_recipe import keep_recipe
from kascade.run.context import open_run
from kascade.run.pulse import refuse_others
from kascade.steps.begin import take_form
from kascade.storage.run_folder import RunFolder
from kascade.tracking.retrain import consider, read_reason, why

log = logging.getLogger(__name__)
ANYWAY = "To train all the same, start it with `retrain.when=always` among `overrides`."


def consider_run(run: str, packed: str, form: Sequence[str], run_id: str) -> bool:
    """Keep the recipe of the run form in the run's folder, and decide whether the run trains.

    packed, form, run_id: as `begin` takes them. Raises UserError, TrackingError.
    """
    refuse_others(RunFolder(Path(run)), "consider")
    keep_recipe(RunFolder(Path(run)), take_form(run, packed, form, run_id))
    with open_run(run, "consider", light=True) as opened:
        found = consider(opened.layout.root, opened.recipe)
        log.info("%s", why(found))
        return found.train


def reason_markdown(run: str) -> str:
    """Why the run does not train, for its page."""
    found = read_reason(RunFolder(Path(run)))
    said = why(found) if found is not None else "Nobody asked whether to train."
    return f"## Nothing to do\n\n{said}\n\n{ANYWAY}\n"
