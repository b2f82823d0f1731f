"""What the doctor looks at: a recipe, with all that it reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from kascade.data.contamination import seen_tasks
from kascade.data.files import local_path
from kascade.environments.rows.loading import load_tasks
from kascade.errors import Fault, UserError
from kascade.exams.tasks import benchmark_tasks
from kascade.models.load import BUILTIN_SCHEME, resolve_source
from kascade.recipe.parts import DataSource
from kascade.recipe.schema import Benchmark, Recipe
from kascade.rollout.pools import configured, no_rows_in, source_tasks
from kascade.stages.tasks import pool_seed
from kascade.task import Split, Task, split_of

Place = Callable[..., str]
SourceTasks = tuple[DataSource, list[Task]]


class NotChecked(Exception):
    """A check cannot look at its subject here; the text says why."""


def dotted(*path: str | int) -> str:
    """The place of a field in a recipe whose file is not at hand ("stages.1.steps")."""
    return ".".join(map(str, path))


@dataclass(slots=True)
class Reading:
    """Tasks that a recipe reads or generates, the stages that learn from them, the benchmarks that ask them.

    place: where the source is written in the recipe.
    """

    source: DataSource
    place: str = ""
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


def has_wrong_options(source: DataSource) -> bool:
    """Whether its environment refuses its options, or lacks one. `data.options` says so, once."""
    try:
        configured(source).check_options(source.options)
    except (UserError, ValueError):
        return True
    return False


def readings(recipe: Recipe, place: Place = dotted) -> list[Reading]:
    """Every source of tasks, once."""
    found: list[Reading] = []

    def of(source: DataSource, *path: str | int) -> Reading:
        known = next((one for one in found if one.source == source), None)
        if known is None:
            end = () if source.path is None else ("path",)
            found.append(known := Reading(source, place(*path, "source", *end)))
        return known

    for i, stage in enumerate(recipe.stages):
        for j, mix in enumerate(stage.data):
            reading = of(mix.source, "stages", i, "data", j)
            reading.stages += [] if stage.name in reading.stages else [stage.name]
    for i, benchmark in enumerate(recipe.benchmarks):
        of(benchmark.source, "benchmarks", i).benchmarks.append(benchmark.name)
    return found


@dataclass
class Subject:
    """A recipe and what it names, each read once, by the first check that needs it.

    place: where a field of the recipe is written. out: the folder that the run is to go to.
    generated: look at generated tasks, too; making them takes seconds. fetch: whether a model or rows of the
    hub or a bucket may be fetched. generate: the generated tasks of a benchmark, where a run keeps them.
    job_faults: what keeps the jobs of several nodes from being launched.
    """

    recipe: Recipe
    place: Place = dotted
    out: Path | None = None
    generated: bool = False
    fetch: bool = False
    generate: Callable[[Benchmark], list[Task]] | None = None
    job_faults: Callable[[Recipe], list[Fault]] | None = None
    _unmet: dict[str, list[str]] = field(default_factory=dict)

    @cached_property
    def model_folder(self) -> Path:
        """The folder of the base model. Raises UserError; NotChecked for a hub id that is not fetched."""
        source = self.recipe.model.source
        is_hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~", BUILTIN_SCHEME))
        if is_hub_id and not Path(source).is_dir() and not self.fetch:
            raise NotChecked(f"{source} is a hub id, which the run fetches")
        try:
            return resolve_source(source)
        except UserError as error:
            where = self.place("model", "source")
            raise UserError([Fault(where, f.what, f.allowed, f.remedy) for f in error.faults]) from error

    @cached_property
    def readings(self) -> list[Reading]:
        """Every source of tasks, once."""
        return readings(self.recipe, self.place)

    @cached_property
    def rows(self) -> list[tuple[Reading, list[Task] | UserError | NotChecked]]:
        """Each source of rows with its tasks of all splits, or why they cannot be had."""
        return [
            (reading, self._read(reading)) for reading in self.readings if reading.source.path is not None
        ]

    def unmet(self, source: DataSource) -> list[str]:
        """What the source's environment cannot have here: a server that answers, another tool. Asked once.

        Nothing where its options are wrong: `data.options` says so.
        """
        if has_wrong_options(source):
            return []
        key = f"{source.environment} {json.dumps(source.options, sort_keys=True)}"
        if key not in self._unmet:
            self._unmet[key] = configured(source).needs()
        return self._unmet[key]

    def _read(self, reading: Reading) -> list[Task] | UserError | NotChecked:
        source, path = reading.source, str(reading.source.path)
        if has_wrong_options(source):
            return NotChecked(f"the options of {source.environment} are wrong")
        try:
            joined = None if source.join is None else local_path(source.join.path)
            if joined is not None and not joined.exists():
                what, remedy = f"{joined} does not exist", "put the rows there, or name others in `join.path`"
                return UserError(Fault(f"{reading.place} join.path", what, "a file of rows", remedy))
            local = local_path(path)
            if local is None and not self.fetch:
                return NotChecked(f"{path} is not on this machine, the run fetches it")
            if local is not None and not local.exists():
                remedy = f"put rows there, or name others: data: {{{source.environment}: PATH}}"
                allowed = "a file or folder of rows, hf://OWNER/NAME, s3://BUCKET/KEY"
                return UserError(Fault(reading.place, f"{path} does not exist", allowed, remedy))
            return list(load_tasks(configured(source), source).tasks)
        except UserError as error:
            return error

    def _known(self, source: DataSource, split: Split) -> list[Task]:
        """The rows of one split of a source; none where they cannot be had."""
        for reading, found in self.rows:
            if reading.source == source and isinstance(found, list):
                return [task for task in found if not source.hold_out or split_of(task.id) == split]
        return []

    @cached_property
    def _posed(self) -> tuple[dict[str, list[Task]], dict[str, list[SourceTasks]], list[Fault]]:
        """Tasks of benchmarks, tasks of stages by source, and why generators make none."""
        exams: dict[str, list[Task]] = {}
        pools: dict[str, list[SourceTasks]] = {}
        faults: list[Fault] = []
        for benchmark in self.recipe.benchmarks:
            source = benchmark.source
            if source.of_another_tool:
                continue
            make = partial(self.generate or self._generate, benchmark)
            if tasks := self._had(source, "test", make, faults):
                exams[benchmark.name] = tasks[: benchmark.tasks]
        for stage in self.recipe.stages:
            seed = pool_seed(self.recipe.seed, f"{stage.name}/train")
            for source in (mix.source for mix in stage.data):
                make = partial(source_tasks, source, split="train", seed=seed)
                if tasks := self._had(source, "train", make, faults):
                    pools.setdefault(stage.name, []).append((source, tasks))
        return exams, pools, faults

    def _generate(self, benchmark: Benchmark) -> list[Task]:
        return benchmark_tasks(benchmark, self.recipe.seed)

    def _had(
        self, source: DataSource, split: Split, make: Callable[[], list[Task]], faults: list[Fault]
    ) -> list[Task]:
        if source.path is not None:
            return self._known(source, split)
        if has_wrong_options(source):
            return []
        try:
            return make() if self.generated else []
        except UserError as error:
            faults += error.faults
            return []

    @property
    def exams(self) -> Mapping[str, list[Task]]:
        """The tasks of each benchmark that could be had."""
        return self._posed[0]

    @property
    def pools(self) -> Mapping[str, list[SourceTasks]]:
        """The training tasks of each stage that could be had, by source."""
        return self._posed[1]

    @property
    def generator_faults(self) -> list[Fault]:
        """Why a generator does not make the tasks that are asked of it."""
        return self._posed[2]

    @cached_property
    def contaminated(self) -> dict[str, dict[str, int]]:
        """Per stage and benchmark, how many of its tasks the stage shows; nothing where there are none."""
        found: dict[str, dict[str, int]] = {}
        for stage, pools in self.pools.items():
            seen = seen_tasks((task for _, tasks in pools for task in tasks), self.exams)
            if counts := Counter(one.benchmark for one in seen):
                found[stage] = dict(counts)
        return found

    def all_tasks(self) -> Iterator[tuple[str, Task]]:
        """(where it is used, task) of all tasks at hand."""
        for name, tasks in self.exams.items():
            yield from ((f"benchmark {name}", task) for task in tasks)
        for name, pools in self.pools.items():
            yield from ((f"stage {name}", task) for _, tasks in pools for task in tasks)
