"""Who may have been the best: what the end of a cascade is held against."""

from __future__ import annotations

from kascade.guard.accepted import accepted_at_end, distinct
from kascade.guard.comparison import compare
from kascade.guard.lineage import Ancestor
from kascade.guard.scores import Score, read_scores
from kascade.recipe.schema import Recipe
from kascade.storage.run_folder import RunFolder


def contenders(
    layout: RunFolder, recipe: Recipe, line: str, checkpoint: Ancestor
) -> dict[str, list[Ancestor]]:
    """Per benchmark the accepted checkpoints that may have been the best, the strongest first: within
    `near_best` standard errors of the best screening score. A side branch counts on what it was held to.
    Equal models count once, and `checkpoint` itself is left out. A benchmark is missing where the
    checkpoints before have no grade on it.
    """
    accepted = distinct(accepted_at_end(layout, recipe, line), checkpoint)
    screens = [read_scores(layout, one.checkpoint.digest, "screen") for one in accepted]
    found: dict[str, list[Ancestor]] = {}
    for name in (benchmark.name for benchmark in recipe.benchmarks):
        scored = [
            (one.checkpoint, scores[name])
            for one, scores in zip(accepted, screens, strict=True)
            if name in one.held and name in scores and scores[name].task_means()
        ]
        scored.sort(key=lambda pair: pair[1].mean, reverse=True)
        near = recipe.guard.retention.near_best
        if scored or not accepted:
            found[name] = [one for one, score in scored if _is_near(scored[0][1], score, near)]
    return found


def _is_near(best: Score, other: Score, near: float) -> bool:
    if best.rewards.keys() != other.rewards.keys():
        return False
    found = compare(best.task_rewards(), other.task_rewards())
    return found is not None and found.difference >= -near * found.standard_error
