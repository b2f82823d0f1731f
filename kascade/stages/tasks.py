"""Which tasks a stage trains on, which a teacher's lead is measured on, and which an exam asks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import kascade
from kascade.environments import get_environment
from kascade.environments.base import Domain, Task
from kascade.errors import Fault, UserError
from kascade.recipe.identity import short_hash
from kascade.recipe.schema import Benchmark, DataSource, Mix, Recipe, Stage
from kascade.rollout.pools import TaskPool, source_tasks
from kascade.stages.context import Run
from kascade.stages.job import derive_seed
from kascade.storage.files import read_json, write_json


def domain_of(source: DataSource) -> Domain:
    return get_environment(source.environment).domain


def training_pool(mixes: Sequence[Mix], seed: int, name: str) -> TaskPool:
    """The tasks that stage `name` trains on; generated ones differ between stages."""
    return TaskPool.from_mixes(mixes, split="train", seed=derive_seed(seed, "tasks", name))


def benchmark_tasks(benchmark: Benchmark, seed: int) -> list[Task]:
    """The fixed tasks of an exam, the same for every checkpoint of a run."""
    return source_tasks(benchmark.source, split="test", seed=seed, count=benchmark.tasks)


def exam_tasks(run: Run, benchmark: Benchmark) -> list[Task]:
    """`benchmark_tasks` of a run. Generated ones are kept in its folder: every exam asks for them again."""
    seed, source = run.recipe.seed, benchmark.source
    if source.path is not None:
        return benchmark_tasks(benchmark, seed)
    asked = [source.model_dump(mode="json"), benchmark.tasks, seed, kascade.__version__]
    path = run.layout.exam_tasks(benchmark.name, short_hash(asked))
    if not path.exists():
        made = benchmark_tasks(benchmark, seed)
        write_json(path, [asdict(task) for task in made])
    return [_task(found) for found in read_json(path)]


def _task(found: dict[str, Any]) -> Task:
    return Task(**{**found, "messages": tuple(found["messages"]), "tools": tuple(found["tools"])})


def sources_by_domain(recipe: Recipe, stages: Iterable[Stage]) -> dict[Domain, list[DataSource]]:
    """What a domain can be trained on: the data of `stages`, else the generator behind a benchmark.

    A benchmark read from a file is an exam only and is never trained on.
    """
    found: dict[Domain, list[DataSource]] = {}
    for source in (mix.source for stage in stages for mix in stage.data):
        known = found.setdefault(domain_of(source), [])
        if source not in known:
            known.append(source)
    for benchmark in recipe.benchmarks:
        if benchmark.source.path is None:
            found.setdefault(domain_of(benchmark.source), [benchmark.source])
    return found


def recovery_mixes(
    sources: dict[Domain, list[DataSource]],
    lost: Collection[Domain],
    kept: Collection[Domain],
    keep_weight: float,
) -> tuple[Mix, ...]:
    """Prompts of a recovery: the lost domains together weigh 1, the kept ones (if any) keep_weight.

    Raises UserError naming the lost domains that there is nothing to train on for.
    """
    remedy = "give a stage data of that domain, or generate the benchmark's tasks instead of reading them"
    if missing := [domain for domain in lost if domain not in sources]:
        what = "was lost, and the recipe has no tasks to recover it with"
        raise UserError([Fault(domain, what, remedy=remedy) for domain in missing])
    shares = {domain: 1 / len(lost) for domain in lost}
    shares |= {domain: keep_weight / len(kept) for domain in kept}
    return tuple(
        Mix(source=source, weight=share / len(sources[domain]))
        for domain, share in shares.items()
        for source in sources[domain]
    )
