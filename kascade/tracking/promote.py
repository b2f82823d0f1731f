"""Promotion: an alias of the registry moves to a run's final checkpoint only when every verdict passed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kascade.guard.lineage import Outcome, read_outcomes
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.layout import RunLayout
from kascade.tracking.mlflow_server import connect, tracking_uri
from kascade.tracking.mlflow_sync import RUN_TAG, tracking_id

PASSED = ("accepted", "recovered")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Promotion:
    """alias moved to `reference`, a new version of the registered model; None where `reasons` forbade it."""

    reference: str | None
    version: str | None
    reasons: tuple[str, ...] = ()


def final_checkpoint(layout: RunLayout, recipe: Recipe) -> Promotion:
    """The checkpoint that may be promoted, by the newest outcome of each stage of the main line."""
    newest: dict[str, Outcome] = {outcome.stage: outcome for outcome in read_outcomes(layout)}
    reasons, last = [], None
    for stage in recipe.stages:
        if stage.side_branch:
            continue
        last = newest.get(stage.name)
        if last is None:
            reasons.append(f"{stage.name} has not ended")
        elif last.decision not in PASSED:
            reasons.append(f"{stage.name}: {last.decision.replace('_', ' ')}")
    if reasons or last is None:
        return Promotion(None, None, tuple(reasons))
    return Promotion(last.accepted, None)


def promote(run: Path, recipe: Recipe) -> Promotion:
    """Let `tracking.promote_as` name the run's final checkpoint, if its verdicts allow it. Idempotent.

    The run has been synced before. Raises TrackingError when MLflow cannot be reached.
    """
    alias, layout = recipe.tracking.promote_as, RunLayout(run)
    found = final_checkpoint(layout, recipe)
    if alias is None or found.reference is None:
        if alias is not None:
            log.warning("%s stays where it is: %s", alias, "; ".join(found.reasons))
        return found
    with connect(tracking_uri(run, recipe)) as client:
        version = _version(client, recipe.name, found.reference, tracking_id(layout))
        client.set_registered_model_alias(recipe.name, alias, version)
    log.info("%s is now version %s of %s", alias, version, recipe.name)
    return Promotion(found.reference, version)


def _version(client: Any, name: str, reference: str, run_id: str) -> str:
    """The registered version of a checkpoint; a new one where there is none."""
    from mlflow.exceptions import MlflowException

    digest = CheckpointRef.parse(reference).digest
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("digest") == digest:
            return str(version.version)
    experiments = [one.experiment_id for one in client.search_experiments()]
    models = client.search_logged_models(
        experiments, filter_string=f"tags.`{RUN_TAG}` = '{run_id}' AND tags.digest = '{digest}'"
    )
    tags = {"digest": digest, "reference": reference, RUN_TAG: run_id}
    if models:  # by tag: the client looks a `model_id` up at another address than ours
        tags["model_id"] = models[0].model_id
    source = models[0].artifact_location if models else CheckpointRef.parse(reference).uri
    made = client.create_model_version(name, source=source, tags=tags)
    return str(made.version)
