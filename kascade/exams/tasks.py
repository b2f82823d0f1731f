"""The fixed tasks of benchmarks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kascade.recipe.identity import short_hash
from kascade.recipe.schema import Benchmark
from kascade.rollout.pools import source_tasks
from kascade.run.context import Run
from kascade.storage.files import read_json, write_json
from kascade.task import Task
from kascade.version import __version__


def benchmark_tasks(benchmark: Benchmark, seed: int) -> list[Task]:
    """The fixed tasks of an exam, the same for every checkpoint of a run."""
    return source_tasks(benchmark.source, split="test", seed=seed, count=benchmark.tasks)


def exam_tasks(run: Run, benchmark: Benchmark) -> list[Task]:
    """`benchmark_tasks` of a run. Generated ones are kept in its folder: every exam asks for them again."""
    seed, source = run.recipe.seed, benchmark.source
    if source.path is not None:
        return benchmark_tasks(benchmark, seed)
    asked = [source.model_dump(mode="json"), benchmark.tasks, seed, __version__]
    path = run.layout.exam_tasks(benchmark.name, short_hash(asked))
    if not path.exists():
        made = benchmark_tasks(benchmark, seed)
        write_json(path, [asdict(task) for task in made])
    return [_task(found) for found in read_json(path)]


def _task(found: dict[str, Any]) -> Task:
    return Task(**{**found, "messages": tuple(found["messages"]), "tools": tuple(found["tools"])})
