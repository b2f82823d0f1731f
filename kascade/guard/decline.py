"""Has one checkpoint fallen since it was measured? The same tasks, answered again with fresh samples.

The weights are the same, so a fall comes from what is around them: a grader, a judge, a server, a tool. The
tasks are the same, too, so only the spread of answers within a task counts as chance.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from kascade.guard.champion import Contenders
from kascade.guard.looks import SAME
from kascade.guard.scores import Score, read_scores
from kascade.recipe.schema import Guard, Recipe
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.run_folder import RunFolder


class Measured(BaseModel):
    """One benchmark of a checkpoint. mean: over tasks, in reward. error: of it, these tasks being fixed.
    tasks: which they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float
    error: float
    tasks: str


def measured(score: Score) -> Measured | None:
    """A score in three numbers; None without a task that was graded twice."""
    graded = [[r for r in rewards if r is not None] for rewards in score.rewards.values()]
    drawn = [rewards for rewards in graded if len(rewards) > 1]
    if not drawn:
        return None
    variances = [float(np.var(rewards, ddof=1)) / len(rewards) for rewards in drawn]
    return Measured(
        mean=float(np.mean([np.mean(rewards) for rewards in drawn])),
        error=math.sqrt(sum(variances)) / len(drawn),
        tasks=hashlib.sha256("\n".join(sorted(score.rewards)).encode()).hexdigest()[:16],
    )


def falls(before: Mapping[str, Measured], now: Mapping[str, Measured], guard: Guard) -> list[str]:
    """A sentence per benchmark that is shown to have fallen by `guard.min_drop` or more in these samples.

    One-sided at `guard.retention.level`, divided over the benchmarks (Bonferroni). Benchmarks of other tasks
    are left out: another recipe, or other rows, say so themselves.
    """
    from scipy.special import ndtri

    same = [name for name in before if name in now and before[name].tasks == now[name].tasks]
    z = float(ndtri(1 - guard.retention.level / max(1, len(same))))
    found = []
    for name in same:
        old, new = before[name], now[name]
        difference, error = new.mean - old.mean, math.hypot(old.error, new.error)
        if difference <= -guard.min_drop + SAME and difference + z * error < 0:
            found.append(
                f"The champion fell on {name}: from {old.mean:.3f} to {new.mean:.3f} on fresh samples."
            )
    return found


def when_promoted(
    layout: RunFolder, recipe: Recipe, reference: str, champion: str | None
) -> dict[str, Measured]:
    """What a checkpoint (reference) did when it was promoted, by benchmark: in the samples of its comparison
    with the champion before, else in those of the end check. Other samples made it what it is."""
    digest = CheckpointRef.parse(reference).digest
    scores = {**read_scores(layout, digest, "end", 0), **read_scores(layout, digest, "end", 1)}
    if champion is not None:
        pair = Contenders(layout, recipe, reference, champion, {})
        scores |= read_scores(layout, digest, "promotion", pair.round)
    return {name: found for name, score in scores.items() if (found := measured(score)) is not None}
