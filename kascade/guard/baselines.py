"""What a checkpoint is held against, and what the cascade has let pass."""

from __future__ import annotations

from collections.abc import Iterable

from kascade.guard.accepted import accepted_before, outcomes_before
from kascade.guard.comparison import compare
from kascade.guard.lineage import Ancestor, Outcome
from kascade.guard.scores import Score, read_scores
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.run_folder import RunFolder


def baselines(
    layout: RunFolder, recipe: Recipe, stage: str, parent: str
) -> dict[str, tuple[Ancestor, Score]]:
    """Per benchmark, the accepted checkpoint to hold `stage` against, and its screening score.

    A later one takes the place of an earlier one where its screening score is higher with a one-sided p <=
    `better_level`: the maximum of several noisy means is biased upwards, and a baseline that changes with
    every lucky score costs fresh samples. It only picks whom to compare with: a fall counts by fresh samples
    of both checkpoints (see `kascade.guard.rule`). A loss that was let pass is not found again by every later
    stage: from there on the checkpoint that it was let pass in is the one to hold.
    """
    let_pass = _let_pass(outcomes_before(layout, recipe, stage, parent))
    best: dict[str, tuple[Ancestor, Score]] = {}
    for one in accepted_before(layout, recipe, stage, parent):
        for name, score in read_scores(layout, one.checkpoint.digest, "screen").items():
            if name not in one.held or not score.task_means():
                continue
            lowered = name in let_pass.get(one.checkpoint.digest, ())
            if lowered or name not in best or _is_better(best[name][1], score, recipe.guard.better_level):
                best[name] = (one.checkpoint, score)
    return best


def _is_better(best: Score, later: Score, level: float) -> bool:
    if later.mean <= best.mean:
        return False
    if best.rewards.keys() != later.rewards.keys():
        return True
    found = compare(best.task_rewards(), later.task_rewards())
    return found is None or found.p_rise <= level


def _let_pass(outcomes: Iterable[Outcome]) -> dict[str, frozenset[str]]:
    """By digest, every loss that an outcome let pass in it.

    A later stage that is rolled back accepts the same checkpoint again, and takes none of that back.
    """
    found: dict[str, frozenset[str]] = {}
    for outcome in outcomes:
        if outcome.accepted:
            digest = CheckpointRef.parse(outcome.accepted).digest
            found[digest] = found.get(digest, frozenset()) | frozenset(outcome.let_pass)
    return found


def losses_let_pass(layout: RunFolder, recipe: Recipe, stage: str, parent: str) -> dict[str, float]:
    """Per benchmark what was let pass before `stage`, which starts from `parent`, summed, in reward."""
    total: dict[str, float] = {}
    for outcome in outcomes_before(layout, recipe, stage, parent):
        for name, loss in outcome.let_pass_losses.items():
            total[name] = total.get(name, 0.0) + loss
    return total
