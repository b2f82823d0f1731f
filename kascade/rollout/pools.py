"""Which tasks a step sees: pools of tasks by split, mixed by weight, drawn without state."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from kascade.environments import get_environment
from kascade.environments.base import Environment, generate_tasks
from kascade.environments.rows.loading import load_tasks
from kascade.errors import Fault, UserError
from kascade.recipe.schema import DataSource, Mix
from kascade.task import Split, Task, in_mode, split_of

GOLDEN_RATIO = (5**0.5 - 1) / 2  # its multiples spread evenly over [0, 1): any stretch has the mix's shares


def source_tasks(source: DataSource, *, split: Split, seed: int, count: int | None = None) -> list[Task]:
    """Tasks of one split of a source; `count` overrides the source's own, and caps a file's rows.

    Splits are disjoint by content hash. Raises UserError when there are no or not enough tasks.
    """
    environment = configured(source)
    wanted = count or source.count
    if source.path is not None:
        loaded = load_tasks(environment, source).tasks
        tasks = [task for task in loaded if not source.hold_out or split_of(task.id) == split]
        if not tasks:
            raise UserError(no_rows_in(source, split))
        return tasks[:count]
    if wanted is None:
        raise UserError(Fault(f"source {source.environment!r}", "has neither a path nor a count"))
    try:
        made = generate_tasks(environment, split=split, count=wanted, seed=seed, levels=source.levels)
        return [
            in_mode(replace(task, thinking=task.thinking or source.thinking), source.mode) for task in made
        ]
    except ValueError as error:
        remedy = "ask for fewer tasks (count), widen `levels`, or change `options`"
        raise UserError(Fault(f"source {source.environment!r}", str(error), remedy=remedy)) from error


def no_rows_in(source: DataSource, split: Split, *, needed_by: str | None = None) -> Fault:
    """The fault of rows none of which falls into a split."""
    why = f", which {needed_by} needs" if needed_by else ""
    what = f"has no rows that fall into the {split} split{why}"
    remedy = "give more rows (80 / 10 / 10 % are split by hash), or set hold_out: false"
    return Fault(str(source.path), what, remedy=remedy)


def configured(source: DataSource) -> Environment:
    """The source's environment with its options. Raises UserError for one that it does not have."""
    try:
        return _configured(get_environment(source.environment), json.dumps(source.options, sort_keys=True))
    except ValueError as error:
        where, _, what = str(error).partition(": ")
        raise UserError(Fault(f"source {source.environment!r} {where}", what)) from error


@lru_cache(maxsize=64)
def _configured(environment: Environment, options: str) -> Environment:
    """One instance for the same options, so that rows are read once."""
    return environment.with_options(json.loads(options))


@dataclass(frozen=True)
class TaskPool:
    """Sources of tasks with their weights. What a step draws depends on (seed, position) only.

    So resume needs no cursor: the same step of the same pool is the same tasks, whatever was drawn before.
    """

    sources: tuple[tuple[Task, ...], ...]
    weights: tuple[float, ...]
    seed: int

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.weights) or not all(self.sources):
            raise ValueError("a pool needs at least one source, each with tasks and a weight")

    @classmethod
    def from_mixes(cls, mixes: Sequence[Mix], *, split: Split, seed: int) -> TaskPool:
        """Raises UserError with the faults of all sources."""
        sources: list[tuple[Task, ...]] = []
        faults: list[Fault] = []
        for mix in mixes:
            try:
                sources.append(tuple(source_tasks(mix.source, split=split, seed=seed)))
            except UserError as error:
                faults.extend(error.faults)
        if faults:
            raise UserError(faults)
        return cls(tuple(sources), tuple(mix.weight for mix in mixes), seed)

    def draw(self, step: int, count: int) -> list[Task]:
        """The tasks of one step, when every step draws `count`."""
        return self.take(step * count, count)

    def take(self, start: int, count: int) -> list[Task]:
        """Tasks at positions start ... start + count - 1 of the pool's endless, seeded sequence.

        Each source is gone through in a new random order every epoch, without repeats within one.
        """
        owners = self._owners(start + count)
        drawn = np.bincount(owners[:start], minlength=len(self.sources))
        tasks = []
        for source in owners[start:]:
            tasks.append(self._nth(int(source), int(drawn[source])))
            drawn[source] += 1
        return tasks

    def _owners(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Which source each of the first `count` positions draws from."""
        # A low-discrepancy sequence: after n draws each source is off its share by less than about one task.
        shares = np.cumsum(self.weights) / np.sum(self.weights)
        points = (random.Random(f"{self.seed}/mix").random() + np.arange(count) * GOLDEN_RATIO) % 1
        return np.searchsorted(shares[:-1], points, side="right")

    def _nth(self, source: int, number: int) -> Task:
        tasks = self.sources[source]
        epoch, place = divmod(number, len(tasks))
        return tasks[_order(self.seed, source, epoch, len(tasks))[place]]


@lru_cache(maxsize=64)
def _order(seed: int, source: int, epoch: int, size: int) -> tuple[int, ...]:
    order = list(range(size))
    random.Random(f"{seed}/{source}/{epoch}").shuffle(order)
    return tuple(order)
