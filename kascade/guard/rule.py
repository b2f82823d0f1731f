"""When a fall is a regression: screen cheaply, confirm on fresh samples, hold the error over the cascade.

Two steps. Every benchmark is screened with few samples a task against the best accepted checkpoint. Only
where that looks like a fall, both checkpoints draw many fresh samples, and these alone decide. Fresh ones,
because the best of several noisy scores is too high by selection (the winner's curse): compared with it, a
model in which nothing changed looks worse. Selection by the screen does not touch samples drawn afterwards,
so their p-values keep their meaning, whichever baseline was picked and however often a screen alarmed.

The family is all that the cascade can test: verdicts (stages x (1 + recovery rounds)), each with its
benchmarks. Bonferroni between verdicts, as later ones depend on earlier ones; Holm within a verdict
(Scand. J. Stat. 1979), where a benchmark that was not suspicious counts as tested with p = 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from kascade.environments import get_environment
from kascade.guard.scores import Score
from kascade.guard.stats import Comparison, compare
from kascade.recipe.schema import Guard, MOPDStage, Recipe, RLHFStage, RLStage, SFTStage


def num_verdicts(recipe: Recipe) -> int:
    """How many verdicts a cascade can come to: one a stage and one a recovery round."""
    return len(recipe.stages) * (1 + recipe.guard.recovery.rounds)


def verdict_level(recipe: Recipe) -> float:
    """False alarms allowed in one verdict."""
    return recipe.guard.family_level / num_verdicts(recipe)


def goal_benchmarks(recipe: Recipe, stage: SFTStage | RLStage | MOPDStage | RLHFStage) -> frozenset[str]:
    """Benchmarks a stage must raise: those it names, else those of the domains it trains on."""
    if stage.goals is not None:
        return frozenset(stage.goals)
    domains = {get_environment(mix.source.environment).domain for mix in stage.data}
    chosen = (b for b in recipe.benchmarks if get_environment(b.source.environment).domain in domains)
    return frozenset(benchmark.name for benchmark in chosen)


def is_suspicious(p_fall: float, guard: Guard) -> bool:
    return p_fall <= guard.screen_level


def screen(
    before: Mapping[str, Score], after: Mapping[str, Score], guard: Guard, known_lost: Collection[str] = ()
) -> list[str]:
    """Benchmarks whose screening scores look like a fall from `before` (the baselines) to `after`.

    known_lost: lost by the attempt that this one is to repair; few lucky samples must not clear those.
    Benchmarks without a baseline, or without one task graded on both sides, cannot be suspicious.
    """
    found = {name: compare(before[name], after[name]) for name in after if name in before}
    return [
        name
        for name, comparison in found.items()
        if comparison is not None and (name in known_lost or is_suspicious(comparison.p_fall, guard))
    ]


@dataclass(frozen=True, slots=True)
class Test:
    """level: the p that this fall had to reach; significant: it did; regressed: and it is large enough."""

    level: float
    significant: bool
    regressed: bool


def confirm(falls: Mapping[str, Comparison], family: int, level: float, guard: Guard) -> dict[str, Test]:
    """Holm's step-down test of the suspicious benchmarks on their fresh samples.

    falls: comparisons on the confirming samples; family: benchmarks compared in this verdict, suspicious or
    not; level: the verdict's share of the cascade's error.
    """
    drops = {name: (found.p_fall, -found.difference) for name, found in falls.items()}
    return holm(drops, family, level, guard.min_drop)


def holm(
    drops: Mapping[str, tuple[float, float]], family: int, level: float, min_drop: float
) -> dict[str, Test]:
    """Test of each (p, drop): the i-th smallest p must reach level / (family - i), and all before it too."""
    tests: dict[str, Test] = {}
    significant = True
    for rank, name in enumerate(sorted(drops, key=lambda name: drops[name][0])):
        p, drop = drops[name]
        threshold = level / (family - rank)
        significant = significant and p <= threshold
        tests[name] = Test(threshold, significant, significant and drop >= min_drop)
    return tests
