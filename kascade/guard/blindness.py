"""Benchmarks on which the base model leaves nothing to see: every answer right, or every answer wrong."""

from __future__ import annotations

from kascade.guard.scores import RIGHT, Score


def blindness(score: Score) -> str | None:
    """Why a score of the base model leaves nothing to see: every answer right, or every answer wrong."""
    given = [reward for rewards in score.rewards.values() for reward in rewards if reward is not None]
    if not given:
        return "no answer could be graded"
    if all(reward >= RIGHT for reward in given):
        return f"all {len(given)} answers of the base model are right: it cannot show a rise"
    if all(reward <= 1 - RIGHT for reward in given):
        return f"all {len(given)} answers of the base model are wrong: it cannot show a drop"
    return None
