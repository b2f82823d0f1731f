"""When a fall is a loss: screen cheaply, confirm on fresh samples, hold the error over the cascade.

Every benchmark is screened with few samples per task against its baseline, the best accepted checkpoint. Only
where that looks like a fall, both checkpoints draw fresh samples, and these alone decide. Fresh ones, because
the best of several noisy scores is too high by selection (the winner's curse): compared with it, a model in
which nothing changed looks worse. Selection by the screen does not touch samples drawn afterwards, so their p
values keep their meaning, whichever baseline was picked and however often a screen alarmed.

Two tests run side by side on the fresh samples, with the level split between them: one over tasks, one within
them (`guard.flips`). They look several times (`guard.looks`). Holm's step-down test holds the level over the
benchmarks of a verdict (Scand. J. Stat. 1979), where one that was not suspicious counts as tested with p = 1;
`guard.level` holds it over the verdicts. A loss that is known already is judged by non-inferiority instead:
kept, lost or not shown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from kascade.environments import domain_of
from kascade.guard.comparison import compare
from kascade.guard.looks import SAME, FallRule, KeepRule, look_sizes
from kascade.guard.scores import Score
from kascade.recipe.schema import Guard, Recipe, StagePart


def goal_benchmarks(recipe: Recipe, stage: StagePart) -> frozenset[str]:
    """Benchmarks a stage must raise: those it names, else those of the domains it trains on."""
    if stage.goals is not None:
        return frozenset(stage.goals)
    domains = {domain_of(mix.source) for mix in stage.data}
    chosen = (b for b in recipe.benchmarks if domain_of(b.source) in domains)
    return frozenset(benchmark.name for benchmark in chosen)


def held_benchmarks(recipe: Recipe, stage: StagePart) -> frozenset[str]:
    """Benchmarks on which a stage may not fall: all, and of a side branch its goals (`guard.side_branches`).

    A side branch is never served. Others take from it what it teaches, and are held to everything themselves.
    One without a goal is held to all.
    """
    goals = goal_benchmarks(recipe, stage)
    if stage.side_branch and recipe.guard.side_branches == "goals" and goals:
        return goals
    return frozenset(benchmark.name for benchmark in recipe.benchmarks)


def fixed_fall_rule(guard: Guard, level: float, family: int, samples: int, choices: int) -> FallRule:
    """The rule for a benchmark whose answers are fixed: one look at what there is, over tasks alone.

    There is no chance in the answers to these very tasks, so their own test has no part. choices: accepted
    checkpoints among which these very answers chose the baseline; p counts so many times (Bonferroni).
    """
    rule = fall_rule(guard, level, family)
    return replace(rule, looks=(samples,), within_share=0.0, choices=choices)


def fall_rule(guard: Guard, level: float, family: int) -> FallRule:
    """The rule for one of `family` benchmarks of a verdict that may spend `level`."""
    return FallRule(
        looks=look_sizes(guard.first_look, guard.confirm_samples),
        level=level / max(family, 1),
        min_drop=guard.min_drop,
        within_share=guard.within_share,
        within_margin=guard.within_margin,
        futile_fall=guard.futile_fall,
        futile_level=guard.futile_level,
        max_missing=guard.max_missing,
        unequal_missing=guard.unequal_missing,
    )


def keep_rule(guard: Guard, fixed: int | None = None, claims: int = 1) -> KeepRule:
    """The rule for what was lost before, for the end check and for a champion. fixed: answers per task, where
    there are no others. claims: comparisons of which any may be called lost; of a known loss it is one."""
    retention = guard.retention
    return KeepRule(
        looks=look_sizes(guard.first_look, retention.samples) if fixed is None else (fixed,),
        margin=retention.margin,
        level=retention.level,
        futile_chance=retention.futile_chance,
        max_missing=guard.max_missing,
        unequal_missing=guard.unequal_missing,
        claims=claims,
    )


def first_kept_look(recipe: Recipe, name: str) -> int:
    """Answers per task of a benchmark at the first look of `keep_rule`."""
    fixed = any(one.name == name and one.is_fixed for one in recipe.benchmarks)
    return 1 if fixed else keep_rule(recipe.guard).looks[0]


def fixed_samples(*scores: Score) -> int | None:
    """Answers per task that both of two fixed scores have; None where fresh ones can be drawn."""
    if not any(score.fixed for score in scores):
        return None
    return max(1, min(score.task_rewards().num_samples for score in scores))


def is_suspicious(p_fall: float, guard: Guard) -> bool:
    """Whether a screen with this one-sided p asks for fresh samples."""
    return p_fall <= guard.screen_level


def screen(
    before: Mapping[str, Score], after: Mapping[str, Score], guard: Guard, known_lost: Collection[str] = ()
) -> list[str]:
    """Benchmarks whose screening scores look like a fall from `before` (the baselines) to `after`.

    known_lost: lost by the attempt that this one is to repair; few lucky samples must not clear those.
    Benchmarks without a baseline, or without one task graded on both sides, cannot be suspicious.
    """
    pairs = {
        name: (before[name].task_rewards(), after[name].task_rewards()) for name in after if name in before
    }
    found = {name: compare(*pair) for name, pair in pairs.items()}
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
        tests[name] = Test(threshold, significant, significant and drop >= min_drop - SAME)
    return tests
