"""What a checkpoint is held against, and what the cascade has let pass."""

from __future__ import annotations

from kascade.guard.comparison import compare
from kascade.guard.lineage import Ancestor, accepted_ancestors, own_outcomes
from kascade.guard.scores import Score, read_scores
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.run_folder import RunFolder


def baselines(layout: RunFolder, parent: str, better_level: float = 1.0) -> dict[str, tuple[Ancestor, Score]]:
    """Per benchmark, the accepted ancestor to hold a checkpoint against, and its screening score.

    A later one takes the place of an earlier one where its screening score is higher with a one-sided p <=
    better_level: the maximum of several noisy means is biased upwards, and a baseline that changes with every
    lucky score costs fresh samples. It only picks whom to compare with: a fall counts by fresh samples of
    both checkpoints (see `kascade.guard.rule`). A loss that was let pass is not found again by every later
    stage: from there on the checkpoint that it was let pass in is the one to hold.
    """
    let_pass = _let_pass(layout)
    best: dict[str, tuple[Ancestor, Score]] = {}
    for ancestor in accepted_ancestors(layout, parent):
        for name, score in read_scores(layout, ancestor.digest, "screen").items():
            if not score.task_means():
                continue
            lowered = name in let_pass.get(ancestor.digest, ())
            if lowered or name not in best or _is_better(best[name][1], score, better_level):
                best[name] = (ancestor, score)
    return best


def _is_better(best: Score, later: Score, level: float) -> bool:
    if later.mean <= best.mean:
        return False
    if best.rewards.keys() != later.rewards.keys():
        return True
    found = compare(best.task_rewards(), later.task_rewards())
    return found is None or found.p_rise <= level


def _let_pass(layout: RunFolder) -> dict[str, frozenset[str]]:
    """By digest, every loss that an outcome let pass in it.

    A later stage that is rolled back accepts the same checkpoint again, and takes none of that back.
    """
    found: dict[str, frozenset[str]] = {}
    for outcome in own_outcomes(layout).values():
        if outcome.accepted:
            digest = CheckpointRef.parse(outcome.accepted).digest
            found[digest] = found.get(digest, frozenset()) | frozenset(outcome.let_pass)
    return found


def losses_let_pass(layout: RunFolder, parent: str) -> dict[str, float]:
    """Per benchmark what the accepted line up to `parent` has let pass so far, summed, in reward."""
    line = {one.digest for one in accepted_ancestors(layout, parent)}
    total: dict[str, float] = {}
    for outcome in own_outcomes(layout).values():
        if outcome.accepted and CheckpointRef.parse(outcome.accepted).digest in line:
            for name, loss in outcome.let_pass_losses.items():
                total[name] = total.get(name, 0.0) + loss
    return total
