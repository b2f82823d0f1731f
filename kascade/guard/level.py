"""How much of the cascade's false alarms one verdict may spend.

`family_level` is split over all verdicts that a recipe allows: `first_share` of it over what its stages
train, the rest over their recoveries (Bonferroni, as later verdicts depend on earlier ones). What a verdict
was held to stays spent in its folder, also when the recipe changes: a stage taken out gives nothing back to
the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from kascade.guard.verdict import Verdict
from kascade.recipe.schema import Guard, Recipe


def verdict_part(guard: Guard, stages: int, round_: int) -> float:
    """The part of `family_level` for one verdict of this round, in a cascade of so many stages."""
    rounds = guard.recovery.rounds
    first = guard.first_share if rounds else 1.0
    return first / stages if round_ == 0 else (1 - first) / (stages * max(rounds, 1))


def verdict_level(recipe: Recipe, stage: str, round_: int = 0, earlier: Sequence[Verdict] = ()) -> float:
    """False alarms allowed in one verdict.

    earlier: verdicts that the folder holds on other checkpoints, of whatever recipe. The level is the
    recipe's share, and no more than those of the same kind were held to, and no more than its part of what is
    left.
    """
    guard = recipe.guard
    part = verdict_part(guard, len(recipe.stages), round_)
    same_kind = [found.level for found in earlier if found.level and (found.round > 0) == (round_ > 0)]
    left = max(0.0, guard.family_level - sum(spent(verdict, recipe) for verdict in earlier))
    open_parts = part + _later_parts(recipe, stage, round_)
    rest = left * part / open_parts if open_parts else 0.0
    return min(part * guard.family_level, *same_kind, rest)


def spent(verdict: Verdict, recipe: Recipe) -> float:
    """What a verdict was held to; of one from before levels were kept, by its smallest tested level."""
    if verdict.level is not None:
        return verdict.level
    tested = [found.level for found in verdict.benchmarks.values() if found.level is not None]
    if tested:
        return min(tested) * sum(found.difference is not None for found in verdict.benchmarks.values())
    return recipe.guard.family_level / (len(recipe.stages) * (1 + recipe.guard.recovery.rounds))


def _later_parts(recipe: Recipe, stage: str, round_: int) -> float:
    """Parts of all verdicts that may still come after this one."""
    names = [one.name for one in recipe.stages]
    following = len(names) - 1 - names.index(stage)
    rounds = recipe.guard.recovery.rounds
    recoveries = max(0, rounds - round_) + following * rounds
    parts = [verdict_part(recipe.guard, len(names), one) for one in (0, 1)]
    return following * parts[0] + recoveries * parts[1]
