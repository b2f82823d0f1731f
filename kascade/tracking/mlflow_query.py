"""What MLflow answers about checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kascade.recipe.run_recipe import read_run_recipe
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain, in_order
from kascade.tracking.mlflow_metrics import DOMAIN_PREFIX
from kascade.tracking.mlflow_server import RUN_TAG, connect, tracking_uri
from kascade.tracking.mlflow_sync import tracking_id


@dataclass(frozen=True, slots=True)
class Best:
    """mean: screening reward over the domain's benchmarks; reference: `URI@sha256:DIGEST`."""

    domain: Domain
    id: str
    reference: str
    mean: float


def best_checkpoints(where: Path | str, experiment: str = "kascade") -> dict[Domain, Best]:
    """The best accepted checkpoint of each domain, asked of MLflow.

    where: a run's folder (its own checkpoints only), or a tracking URI (every run of `experiment`).
    Raises TrackingError when MLflow cannot be reached.
    """
    accepted = "tags.accepted = 'true'"
    if isinstance(where, str):
        return _query(where, experiment, accepted)
    layout = RunFolder(where)
    recipe = read_run_recipe(where)
    own = f"{accepted} AND tags.`{RUN_TAG}` = '{tracking_id(layout)}'"
    return _query(tracking_uri(where, recipe), recipe.tracking.experiment, own)


def _query(uri: str, experiment: str, condition: str) -> dict[Domain, Best]:
    best: dict[Domain, Best] = {}
    with connect(uri) as client:
        found = client.get_experiment_by_name(experiment)
        for model in _models(client, found.experiment_id, condition) if found is not None else ():
            newest = {m.key: m.value for m in sorted(model.metrics or (), key=lambda m: m.timestamp)}
            for key, mean in newest.items():
                domain = key.removeprefix(DOMAIN_PREFIX)
                if key.startswith(DOMAIN_PREFIX) and (domain not in best or mean > best[domain].mean):
                    reference = f"{model.tags['uri']}@sha256:{model.tags['digest']}"
                    best[domain] = Best(domain, model.tags["id"], reference, mean)
    return {domain: best[domain] for domain in in_order(best)}


def _models(client: Any, experiment_id: str, condition: str) -> Iterator[Any]:
    """Every logged model that meets the condition, page by page."""
    token = None
    while True:
        page = client.search_logged_models([experiment_id], filter_string=condition, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
