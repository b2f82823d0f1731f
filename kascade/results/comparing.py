"""Two sets of results on the same tasks, benchmark by benchmark, by the guard's own statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kascade.errors import Fault, UserError
from kascade.guard.comparison import MAX_MISSING, UNEQUAL_MISSING, Comparison, Standing, compare
from kascade.guard.ranges import part
from kascade.guard.rewards import TaskRewards
from kascade.results.model import Answer, Results


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """B against A on one benchmark.

    standing: whether B kept what A could, within the margin. level: of both limits and of the tests.
    interval: of the difference, two-sided at 1 - level. p_fall, p_rise: Holm-adjusted over the benchmarks
    compared. visible: the fall that this comparison would have shown at the level with 95%. only_a, only_b:
    tasks that the other lacks: their grades count as missing there.
    """

    benchmark: str
    found: Comparison
    standing: Standing
    level: float
    interval: tuple[float, float]
    p_fall: float
    p_rise: float
    visible: float
    only_a: int
    only_b: int


@dataclass(frozen=True, slots=True)
class DifferingTask:
    """One task on which the mean rewards differ, with an answer of each side where it was kept."""

    benchmark: str
    task: str
    before: float
    after: float
    a: Answer | None
    b: Answer | None


def compare_results(
    a: Results,
    b: Results,
    *,
    margin: float = 0.03,
    level: float = 0.05,
    max_missing: float = MAX_MISSING,
    unequal_missing: float = UNEQUAL_MISSING,
) -> list[BenchmarkRow]:
    """B against A on every benchmark that both have, in A's order.

    margin: the fall that still counts as kept, in reward. level: of the tests, of the interval and of
    `visible`. max_missing, unequal_missing: as of `Comparison.can_be_judged`. A task that one side lacks has
    no grade there. Raises UserError when no benchmark and no task is in both, and KascadeError for a number
    out of range.
    """
    shared = [name for name in a.benchmarks if name in b.benchmarks]
    found = {name: _paired(a.benchmarks[name], b.benchmarks[name]) for name in shared}
    rows = {name: one for name, one in found.items() if one is not None}
    if not rows:
        what = f"{a.name} and {b.name} have no graded task in common"
        allowed = f"benchmarks there: {', '.join(a.benchmarks)}; here: {', '.join(b.benchmarks)}"
        raise UserError(Fault("compare", what, allowed, "evaluate both on the same tasks"))
    falls = holm({name: one.p_fall for name, one in rows.items()})
    rises = holm({name: one.p_rise for name, one in rows.items()})
    return [
        BenchmarkRow(
            benchmark=name,
            found=one,
            standing=one.standing(margin, level, max_missing, unequal_missing),
            level=level,
            interval=one.limits(level / 2),
            p_fall=falls[name],
            p_rise=rises[name],
            visible=one.visible_fall(level),
            only_a=len(a.benchmarks[name].rewards.keys() - b.benchmarks[name].rewards.keys()),
            only_b=len(b.benchmarks[name].rewards.keys() - a.benchmarks[name].rewards.keys()),
        )
        for name, one in rows.items()
    ]


def _paired(a: TaskRewards, b: TaskRewards) -> Comparison | None:
    """On the tasks of both. Those that one side lacks are there without a grade, and count as missing."""
    return compare(a.with_tasks(b), b.with_tasks(a))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p values (1979, Scand. J. Stat. 6): each holds for the whole family of tests.

    Raises KascadeError for a p that is not from 0 to 1.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: part("p", p_values[name]))):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def differences(a: Results, b: Results, benchmark: str, most: int) -> list[DifferingTask]:
    """The tasks whose mean rewards differ most, the falls first."""
    before, after = a.benchmarks[benchmark].task_means(), b.benchmarks[benchmark].task_means()
    tasks = [task for task in before if task in after and before[task] != after[task]]
    tasks.sort(key=lambda task: (after[task] - before[task], task))
    first = {side.name: side.answers for side in (a, b)}

    def kept(side: Results, task: str) -> Answer | None:
        answers = first[side.name].get((benchmark, task))
        return answers[0] if answers else None

    return [
        DifferingTask(benchmark, task, before[task], after[task], kept(a, task), kept(b, task))
        for task in tasks[:most]
    ]
