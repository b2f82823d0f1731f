"""All that a recipe reads, with what reads it: what the data doctor looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kascade.environments.base import Split, Task, split_of
from kascade.errors import Fault, UserError
from kascade.recipe.parts import DataSource
from kascade.recipe.schema import Recipe
from kascade.rollout.pools import no_rows_in
from kascade.stages.tasks import benchmark_tasks


@dataclass(slots=True)
class Reading:
    """Rows that a recipe reads, the stages that learn from them, the benchmarks that ask them."""

    source: DataSource
    stages: list[str] = field(default_factory=list)
    benchmarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "; ".join(
            f"{kind} {', '.join(names)}"
            for kind, names in (("learnt in", self.stages), ("asked by", self.benchmarks))
            if names
        )

    def learnt(self, tasks: list[Task]) -> list[Task]:
        """Those that stages learn from."""
        if not self.stages:
            return []
        return [task for task in tasks if not self.source.hold_out or split_of(task.id) == "train"]

    def split_faults(self, tasks: list[Task]) -> list[Fault]:
        """Splits without a row that somebody needs."""
        needs: tuple[tuple[Split, list[str]], ...] = (("train", self.stages), ("test", self.benchmarks))
        splits = {split_of(task.id) for task in tasks}
        lacking = self.source.hold_out and bool(tasks)
        return [
            no_rows_in(self.source, split, needed_by=", ".join(names))
            for split, names in needs
            if lacking and names and split not in splits
        ]


def readings(recipe: Recipe) -> list[Reading]:
    """Every source of rows, once."""
    found: list[Reading] = []

    def of(source: DataSource) -> Iterator[Reading]:
        if source.path is not None:
            known = next((one for one in found if one.source == source), None)
            if known is None:
                found.append(known := Reading(source))
            yield known

    for stage in recipe.stages:
        for mix in stage.data:
            for reading in of(mix.source):
                reading.stages += [] if stage.name in reading.stages else [stage.name]
    for benchmark in recipe.benchmarks:
        for reading in of(benchmark.source):
            reading.benchmarks.append(benchmark.name)
    return found


def recipe_exams(recipe: Recipe) -> tuple[dict[str, list[Task]], list[Fault]]:
    """The tasks of each benchmark, and the faults of those that generate theirs.

    Benchmarks whose rows cannot be had are left out: `readings` tells their faults.
    """
    found: dict[str, list[Task]] = {}
    faults: list[Fault] = []
    for benchmark in recipe.benchmarks:
        try:
            found[benchmark.name] = benchmark_tasks(benchmark, recipe.seed)
        except UserError as error:
            faults += error.faults if benchmark.source.path is None else ()
    return found, faults
