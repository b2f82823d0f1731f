"""Benchmarks of runs through their stages, asked of MLflow: for notebooks that compare runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kascade.recipe.schema import read_resolved
from kascade.storage.layout import RunLayout
from kascade.tracking.mlflow_server import connect, tracking_uri
from kascade.tracking.mlflow_sync import RUN_TAG, STAGE_TAG, sync, tracking_id

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = dict[str, list[tuple[int, float]]]


def benchmark_curves(where: Path | str, run_id: str | None = None) -> Curves:
    """(step, mean reward) of each benchmark; step 0 is the base model, step i what stage i ended with.

    where: a run's folder, which is brought into its MLflow first; or a tracking URI, and then `run_id` is
    MLflow's id of the pipeline's run. Raises TrackingError, ValueError without an id.
    """
    if isinstance(where, Path):
        layout = RunLayout(where)
        recipe = read_resolved(layout.resolved_recipe)
        sync(where, recipe)
        with connect(tracking_uri(where, recipe)) as client:
            return _curves(client, _pipeline_run(client, recipe.tracking.experiment, tracking_id(layout)))
    if run_id is None:
        raise ValueError("with a tracking URI, MLflow's id of the run is needed, too")
    with connect(where) as client:
        return _curves(client, client.get_run(run_id))


def _pipeline_run(client: Any, experiment: str, run: str) -> Any:
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], filter_string=f"tags.`{RUN_TAG}` = '{run}'")
    return next(one for one in runs if STAGE_TAG not in one.data.tags)


def _curves(client: Any, run: Any) -> Curves:
    names = [name for name in run.data.metrics if not any(mark in name for mark in ("/", "."))]
    curves: Curves = {}
    for name in sorted(names):
        history = client.get_metric_history(run.info.run_id, name)
        latest = {metric.step: metric for metric in sorted(history, key=lambda one: one.timestamp)}
        curves[name] = [(step, latest[step].value) for step in sorted(latest)]
    return curves


def plot_curves(runs: Mapping[str, Curves], benchmarks: Sequence[str] | None = None) -> Figure:
    """One small panel a benchmark, one line a run."""
    from matplotlib import pyplot as plt

    names = list(benchmarks or sorted({name for curves in runs.values() for name in curves}))
    columns = min(3, len(names)) or 1
    rows = -(-len(names) // columns) or 1
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 2.6 * rows), squeeze=False, sharey=True)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        for label, curves in runs.items():
            points = curves.get(name, [])
            axis.plot([step for step, _ in points], [mean for _, mean in points], marker="o", label=label)
        axis.set(title=name, xlabel="stage", ylim=(0, 1))
    axes.flat[0].set_ylabel("mean reward")
    axes.flat[0].legend()
    figure.tight_layout()
    found: Figure = figure
    return found
