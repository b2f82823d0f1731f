"""Benchmarks of runs through their stages: asked of MLflow, and plotted for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kascade.recipe.run_recipe import read_run_recipe
from kascade.storage.run_folder import RunFolder
from kascade.tracking.mlflow_server import RUN_TAG, STAGE_TAG, connect, tracking_uri
from kascade.tracking.mlflow_sync import sync, tracking_id

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kascade.tracking.summary import HistoryPoint

Curves = dict[str, list[tuple[int, float]]]
REWARDS = (-0.04, 1.04)  # so that marks at the ends are whole
LOOKS: tuple[dict[str, Any], ...] = (
    {"marker": "o", "linestyle": "-", "linewidth": 3, "markersize": 7, "alpha": 0.6},
    {"marker": "s", "linestyle": "--"},
    {"marker": "^", "linestyle": "-."},
    {"marker": "D", "linestyle": ":"},
)


def benchmark_curves(where: Path | str, run_id: str | None = None) -> Curves:
    """(step, mean reward) of each benchmark; step 0 is the base model, step i what stage i ended with.

    where: a run's folder, which is brought into its MLflow first; or a tracking URI, and then `run_id` is
    MLflow's id of the pipeline's run. Raises TrackingError, ValueError without an id.
    """
    if isinstance(where, Path):
        layout = RunFolder(where)
        recipe = read_run_recipe(where)
        sync(where, recipe)
        with connect(tracking_uri(where, recipe)) as client:
            return _curves(client, pipeline_run(client, recipe.tracking.experiment, tracking_id(layout)))
    if run_id is None:
        raise ValueError("with a tracking URI, MLflow's id of the run is needed, too")
    with connect(where) as client:
        return _curves(client, client.get_run(run_id))


def pipeline_run(client: Any, experiment: str, run: str) -> Any:
    """MLflow's run of a whole cascade, by the id that its folder keeps (`tracking_id`)."""
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
    """One small panel a benchmark, one line a run; runs that agree show through each other."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    names = list(benchmarks or sorted({name for curves in runs.values() for name in curves}))
    columns = min(3, len(names)) or 1
    rows = -(-len(names) // columns) or 1
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns, 2.6 * rows + 0.8), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        for label, look in zip(runs, cycle(LOOKS), strict=False):
            points = runs[label].get(name, [])
            axis.plot([step for step, _ in points], [mean for _, mean in points], label=label, **look)
        axis.set(title=name, ylim=REWARDS)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    figure.suptitle("Benchmarks after each stage")
    figure.supxlabel("stages trained (0: the base model)")
    figure.supylabel("mean reward")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    found: Figure = figure
    return found


def plot_history(points: Sequence[HistoryPoint], benchmark: str, stages: Sequence[str]) -> Figure:
    """Every checkpoint's mean reward in one benchmark with its 95 % interval, by stage.

    stages: their names; points of column 0 are the base model's. The line follows what was accepted.
    """
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(max(6.0, 1.5 * len(stages) + 2), 3.4), layout="constrained")
    kept = [one for one in points if one.accepted and one.on_main_line]
    axis.plot([one.column for one in kept], [one.point.mean for one in kept], color="tab:blue", alpha=0.5)
    for accepted, label, colour, marker, aside in (
        (True, "accepted", "tab:blue", "o", 0.0),
        (False, "not accepted", "tab:red", "X", -0.08),
    ):
        shown = [one for one in points if one.accepted == accepted]
        if not shown:
            continue
        means = [one.point.mean for one in shown]
        intervals = [one.point.interval or (one.point.mean,) * 2 for one in shown]
        below = [max(0.0, mean - low) for mean, (low, _) in zip(means, intervals, strict=True)]
        above = [max(0.0, high - mean) for mean, (_, high) in zip(means, intervals, strict=True)]
        axis.errorbar(
            [one.column + aside for one in shown],
            means,
            yerr=[below, above],
            fmt=marker,
            color=colour,
            capsize=3,
            label=label,
        )
    axis.set(title=f"{benchmark}: every checkpoint", xlabel="stage", ylabel="mean reward, 95 %", ylim=REWARDS)
    axis.set_xticks(range(len(stages) + 1), ["base", *stages], rotation=30 if len(stages) > 5 else 0)
    axis.grid(axis="y", alpha=0.3)
    axis.legend()
    found: Figure = figure
    return found
