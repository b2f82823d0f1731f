"""How far a whole run is, and how long it may still take: by the tokens that its parts have to go through.

A rough figure: tokens are counted at their most, as the plan does, and a recovery is not expected.
"""

from __future__ import annotations

from collections.abc import Sequence

from kascade.recipe.checks import BASE
from kascade.recipe.plan import make_plan
from kascade.recipe.schema import Recipe
from pipelines.watch import StageLine

OVER = ("done", "earlier")
LEARNING = 3  # a token that is learnt costs a forward and a backward, which is about three forwards
SMALLEST_SHARE = 0.02  # under it the time left says nothing


def shares(recipe: Recipe) -> dict[str, tuple[float, float]]:
    """Part of all work in the training, and in the benchmarks, of the base and of each stage."""
    screen = recipe.guard.screen_samples
    exams = sum(
        one.tasks * (one.samples or screen) * one.sampling.max_new_tokens for one in recipe.benchmarks
    )
    trained = {
        stage.name: LEARNING * stage.steps * stage.tokens_per_step for stage in make_plan(recipe).stages
    }
    total = float(sum(trained.values()) + exams * (1 + len(trained))) or 1.0
    found = {BASE: (0.0, exams / total)}
    return found | {name: (tokens / total, exams / total) for name, tokens in trained.items()}


def done_share(rows: Sequence[StageLine], recipe: Recipe, names: Sequence[str]) -> float:
    """Part of a run's work that is done. names: of the stage, or what else each row is about."""
    work = shares(recipe)
    found = 0.0
    for name, row in zip(names, rows, strict=True):
        training, exams = work.get(name, (0.0, 0.0))
        if row.mark in OVER:
            found += training + exams
        elif row.mark == "running":
            found += _within(row, training, exams)
    return min(found, 1.0)


def _within(row: StageLine, training: float, exams: float) -> float:
    progress = row.progress
    part = progress["done"] / progress["total"] if progress and progress["total"] else 0.0
    return training * part if row.step == "training" else training + exams * part


def time_left(share: float, found_earlier: float, elapsed_s: float) -> float | None:
    """Seconds until the end at the speed so far; None while too little is done to say.

    found_earlier: part of the work that an earlier run had done, which took no time now.
    """
    own = share - found_earlier
    return elapsed_s * (1 - share) / own if own >= SMALLEST_SHARE else None
