"""What MLflow answers about checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kascade.environments.base import DOMAINS, Domain
from kascade.recipe.schema import read_resolved
from kascade.storage.layout import RunLayout
from kascade.tracking.mlflow_metrics import domain_key
from kascade.tracking.mlflow_server import connect, tracking_uri
from kascade.tracking.mlflow_sync import RUN_TAG, tracking_id


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
    layout = RunLayout(where)
    recipe = read_resolved(layout.resolved_recipe)
    own = f"{accepted} AND tags.`{RUN_TAG}` = '{tracking_id(layout)}'"
    return _query(tracking_uri(where, recipe), recipe.tracking.experiment, own)


def _query(uri: str, experiment: str, condition: str) -> dict[Domain, Best]:
    best: dict[Domain, Best] = {}
    with connect(uri) as client:
        found = client.get_experiment_by_name(experiment)
        for domain in DOMAINS if found is not None else ():
            key = domain_key(domain)
            models = client.search_logged_models(
                [found.experiment_id],
                filter_string=condition,
                datasets=[{"dataset_name": domain}],
                order_by=[
                    {
                        "field_name": f"metrics.{key}",
                        "ascending": False,
                        "dataset_name": domain,
                    }
                ],
                max_results=1,
            )
            for model in models:
                mean = max((m.timestamp, m.value) for m in model.metrics if m.key == key)[1]
                reference = f"{model.tags['uri']}@sha256:{model.tags['digest']}"
                best[domain] = Best(domain, model.tags["id"], reference, mean)
    return best
