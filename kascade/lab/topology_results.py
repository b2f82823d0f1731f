"""What a race of topologies found: scores and costs by recipe and seed, compared with the first recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt

from kascade.guard.comparison import Comparison, compare
from kascade.guard.rewards import TaskRewards


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TopologySettings(_Frozen):
    """seeds: each trains every recipe anew. tasks, samples: test tasks per benchmark, and answers to each.

    budget_tolerance: how far the answers that two recipes sample may differ, as a share.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    tasks: PositiveInt = 200
    samples: PositiveInt = 2
    budget_tolerance: float = 0.02


class Cost(_Frozen):
    """Of training. answers, tokens: those that were learnt from. cpu_s: interrupted tries included."""

    updates: int
    answers: int
    tokens: int
    cpu_s: float


def total_cost(costs: Sequence[Cost]) -> Cost:
    """The sum."""
    return Cost(
        updates=sum(one.updates for one in costs),
        answers=sum(one.answers for one in costs),
        tokens=sum(one.tokens for one in costs),
        cpu_s=round(sum(one.cpu_s for one in costs), 1),
    )


class TriedRecipe(_Frozen):
    """One recipe with one seed.

    costs: by stage; sampled: of all stages that sample answers. scores, greedy: by benchmark, of the last
    checkpoint; rewards: by benchmark and task. stages: scores of earlier checkpoints that are shown.
    """

    recipe: str
    seed: int
    checkpoint: str
    costs: dict[str, Cost]
    sampled: Cost
    scores: dict[str, float]
    greedy: dict[str, float | None]
    rewards: dict[str, dict[str, list[float | None]]]
    stages: dict[str, dict[str, float]]

    @property
    def mean(self) -> float:
        """Over benchmarks."""
        return float(np.mean(list(self.scores.values())))


class TopologyRace(_Frozen):
    """A whole race; the first recipe is the one that others are compared with."""

    settings: TopologySettings
    recipes: tuple[str, ...]
    entries: tuple[TriedRecipe, ...]

    def of(self, recipe: str) -> list[TriedRecipe]:
        """The recipe's entries, one a seed."""
        return [one for one in self.entries if one.recipe == recipe]

    @property
    def benchmarks(self) -> tuple[str, ...]:
        return tuple(self.entries[0].scores)


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two recipes. seeds: the difference with each seed. interval: 95%, over seeds (Student); of one
    seed over its tasks.

    task_intervals: 95% of each seed's difference, paired by task: how well these two models are told apart.
    """

    before: float
    after: float
    seeds: tuple[float, ...]
    interval: tuple[float, float]
    task_intervals: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.seeds))

    @property
    def verdict(self) -> str:
        """What the interval over seeds shows."""
        low, high = self.interval
        return "higher" if low > 0 else "lower" if high < 0 else "not shown"


def differences(race: TopologyRace, recipe: str) -> dict[str, Difference]:
    """`recipe` against the race's first one, by benchmark; under "mean" over all benchmarks."""
    pairs = list(zip(race.of(race.recipes[0]), race.of(recipe), strict=True))
    found = {name: [_compared(first, other, name) for first, other in pairs] for name in race.benchmarks}
    by_benchmark = {name: _difference([[one] for one in compared]) for name, compared in found.items()}
    together = [[found[name][seed] for name in race.benchmarks] for seed in range(len(pairs))]
    return {**by_benchmark, "mean": _difference(together)}


def _compared(first: TriedRecipe, other: TriedRecipe, benchmark: str) -> Comparison:
    before, after = (TaskRewards(benchmark, one.recipe, one.rewards[benchmark]) for one in (first, other))
    found = compare(before, after)
    if found is None:
        raise ValueError(f"{benchmark}: no task was graded on both sides")
    return found


def _difference(by_seed: Sequence[Sequence[Comparison]]) -> Difference:
    """by_seed: comparisons of the benchmarks that are averaged, for each seed."""
    seeds = [float(np.mean([one.difference for one in compared])) for compared in by_seed]
    return Difference(
        before=float(np.mean([one.before for compared in by_seed for one in compared])),
        after=float(np.mean([one.after for compared in by_seed for one in compared])),
        seeds=tuple(seeds),
        interval=student_interval(seeds) if len(seeds) > 1 else _pooled(by_seed[0]),
        task_intervals=tuple(_pooled(compared) for compared in by_seed),
    )


def _pooled(compared: Sequence[Comparison]) -> tuple[float, float]:
    """Of a mean of independent benchmarks; of one benchmark its own interval."""
    if len(compared) == 1:
        return compared[0].interval
    middle = float(np.mean([one.difference for one in compared]))
    half = 1.96 * float(np.sqrt(sum(one.standard_error**2 for one in compared))) / len(compared)
    return middle - half, middle + half


def student_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Of the mean of independent values; NaN with fewer than two."""
    from scipy.special import stdtrit

    if len(values) < 2:
        return float("nan"), float("nan")
    half = float(stdtrit(len(values) - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return float(np.mean(values)) - half, float(np.mean(values)) + half
