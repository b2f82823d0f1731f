"""Metrics and parameters in MLflow's shape, made from a run's files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kascade.guard.scores import Score, score_path
from kascade.storage.run_folder import ACCELERATOR, TRIES, UNDER_WAY, RunFolder
from kascade.task import Domain
from kascade.tracking.nodes import CheckpointNode

DOMAIN_PREFIX = "domain/"

MAX_PARAM = 6000  # characters; MLflow refuses longer values


def flat(part: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Parameters with dotted names, as text."""
    params: dict[str, str] = {}
    for key, value in part.items():
        if isinstance(value, Mapping):
            params |= flat(value, f"{prefix}{key}.")
        else:
            params[f"{prefix}{key}"] = str(value)[:MAX_PARAM]
    return params


def numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The finite numbers of a JSON object."""
    for key, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield key, float(value)


def curve_metrics(attempt: str, rows: Sequence[Mapping[str, Any]], time_ms: int) -> list[Any]:
    """Training curves of one attempt as `ATTEMPT/NAME` over steps."""
    from mlflow.entities import Metric

    return [
        Metric(f"{attempt}/{key}", value, time_ms + int(row["step"]), int(row["step"]))
        for row in rows
        for key, value in numbers(row)
        if key != "step"
    ]


def score_metrics(
    layout: RunFolder, node: CheckpointNode, run_id: str, model_id: str, step: int
) -> list[Any]:
    """Scores tied to a LoggedModel and, as datasets, to their benchmark.

    NAME: mean reward of the screening samples, comparable through all stages; NAME.greedy; NAME.confirm-N:
    the guard's fresh samples; NAME.end-N: those of the end check. domain/NAME: screening mean over a domain's
    benchmarks, its dataset the domain. MLflow keys a model's metrics by name, step and time: the time is that
    of the score's file.
    """
    from mlflow.entities import Metric

    tied = {"step": step, "model_id": model_id, "run_id": run_id}
    times = {id(score): _drawn_ms(layout, score) for score in node.scores}
    found = [
        Metric(
            key,
            value,
            times[id(score)],
            dataset_name=score.benchmark,
            dataset_digest=task_set_digest(score),
            **tied,
        )
        for score in node.scores
        for key, value in _score_values(score)
    ]
    newest = max(times.values(), default=node.time_ms)
    return found + [
        Metric(domain_key(domain), mean, newest, dataset_name=domain, dataset_digest=domain, **tied)
        for domain, mean in domain_means(node.scores).items()
    ]


def domain_key(domain: Domain) -> str:
    return f"{DOMAIN_PREFIX}{domain}"


def _drawn_ms(layout: RunFolder, score: Score) -> int:
    return _changed_ms(score_path(layout, score))


def trajectory_metrics(line: Sequence[CheckpointNode]) -> list[Any]:
    """Screening means of the accepted checkpoints of all stages in order, from step 1 (step 0: the base)."""
    from mlflow.entities import Metric

    return [
        Metric(key, value, node.time_ms, step)
        for step, node in enumerate(line, 1)
        for score in node.scores
        if score.phase == "screen"
        for key, value in _score_values(score)
    ]


def _score_values(score: Score) -> Iterator[tuple[str, float]]:
    if not score.task_means():
        return
    if score.phase != "screen":
        yield f"{score.benchmark}.{score.phase}-{score.round}", score.mean
        return
    yield score.benchmark, score.mean
    if score.greedy_mean is not None:
        yield f"{score.benchmark}.greedy", score.greedy_mean
    for name in ("switch_obeyed", "thought"):
        if (share := getattr(score, name)) is not None:
            yield f"{score.benchmark}.{name}", share


def domain_means(scores: Sequence[Score]) -> dict[Domain, float]:
    """Screening mean over the benchmarks of each domain."""
    means: dict[Domain, list[float]] = {}
    for score in scores:
        if score.phase == "screen" and score.task_means():
            means.setdefault(score.domain, []).append(score.mean)
    return {domain: sum(values) / len(values) for domain, values in means.items()}


def task_set_digest(score: Score) -> str:
    """Identity of the benchmark's tasks; MLflow keeps up to 36 characters."""
    return hashlib.sha256("\n".join(sorted(score.rewards)).encode()).hexdigest()[:32]


def dataset_inputs(group: Sequence[CheckpointNode]) -> list[Any]:
    """The benchmarks that these checkpoints sat, as MLflow datasets of their domain."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    scored = {score.benchmark: score for node in group for score in node.scores}
    return [
        DatasetInput(
            Dataset(name, task_set_digest(score), "benchmark", "{}"),
            [InputTag("mlflow.data.context", score.domain)],
        )
        for name, score in scored.items()
    ]


def cost_metrics(layout: RunFolder, costs: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """`cost/STEP/NAME` of every step, and what all took together: wall_s, cpu_s, the highest peak memory.

    A step that was tried again has a further point, with what all its tries cost. One that is under way has
    none. The totals' step is the number of tries, so they grow as the run does.
    """
    from mlflow.entities import Metric

    costs = {step: cost for step, cost in costs.items() if not cost.get(UNDER_WAY)}
    times = {step: _changed_ms(layout.cost(step)) for step in costs}
    tries = {step: int(cost.get(TRIES, 1)) for step, cost in costs.items()}
    each = [
        Metric(f"cost/{step}/{key}", value, times[step], tries[step] - 1)
        for step, cost in costs.items()
        for key, value in numbers(cost)
        if key != TRIES
    ]
    found = [dict(numbers(cost)) for cost in costs.values()]
    totals = {key: sum(cost.get(key, 0.0) for cost in found) for key in ("wall_s", "cpu_s", ACCELERATOR)}
    totals["peak_memory_bytes"] = max((cost.get("peak_memory_bytes", 0.0) for cost in found), default=0.0)
    newest = max(times.values(), default=0)
    return each + [Metric(f"cost/{key}", value, newest, sum(tries.values())) for key, value in totals.items()]


def _changed_ms(path: Path) -> int:
    """When a file was written, milliseconds since 1970."""
    return int(path.stat().st_mtime * 1000)
