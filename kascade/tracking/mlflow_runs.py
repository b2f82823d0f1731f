"""Which of MLflow's runs is the pipeline's: one that a platform opened for it, or our own from before."""

from __future__ import annotations

import logging
import os
from typing import Any

from kascade.tracking.mlflow_server import RUN_TAG

OPENED_BY_PLATFORM = "MLFLOW_RUN_ID"
ABOVE = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
log = logging.getLogger(__name__)


def platforms_run(client: Any) -> Any | None:
    """The pipeline's run that the platform opened (MLFLOW_RUN_ID names it, or a task's run in it).

    None where there is none, and where it cannot be written to: it was deleted, or is in another MLflow than
    the recipe's.
    """
    named = os.environ.get(OPENED_BY_PLATFORM)
    run = _usable(client, named) if named else None
    if run is None:
        return None
    above = run.data.tags.get(ABOVE)
    return _usable(client, above) if above else run


def _usable(client: Any, run_id: str) -> Any | None:
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        log.warning("%s names a run that is not in this MLflow: a run of our own is used", OPENED_BY_PLATFORM)
        return None
    if run.info.lifecycle_stage != "active":
        log.warning("%s names a run that was deleted: a run of our own is used", OPENED_BY_PLATFORM)
        return None
    return run


def runs_of(client: Any, experiment: str, run: str) -> list[Any]:
    """The runs in MLflow of what it knows as `run`: in `experiment`, else wherever they are.

    A run that a platform opened is in the platform's experiment, also for later steps that it does not name.
    """
    condition = f"tags.`{RUN_TAG}` = '{run}'"
    if found := list(client.search_runs([experiment], filter_string=condition)):
        return found
    others = [one.experiment_id for one in client.search_experiments() if one.experiment_id != experiment]
    return list(client.search_runs(others, filter_string=condition)) if others else []


def point_from(client: Any, opened: Any, parent: Any) -> None:
    """Say on a run that the platform opened where the results are: in the run that the folder began with."""
    note = f"This run continues a folder. Its results are in the run {parent.info.run_id}."
    if opened.info.run_id != parent.info.run_id and opened.data.tags.get(NOTE) != note:
        client.set_tag(opened.info.run_id, NOTE, note)
