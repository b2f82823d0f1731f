"""Answers of the policy and their grades: the input of every RL stage and of the exams."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kascade.learning.limits import check_limits
from kascade.recipe.schema import RolloutStage, StagePart
from kascade.rollout.answers import Group
from kascade.stages.training import Training
from kascade.task import Task, switch_shares


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Of a step's rollouts: reward (graded ones), response_tokens (what the policy said itself), shares of
    truncated and grader_errors. Where sources have a `mode`: shares that thought, and that obeyed it."""
    rewards = np.concatenate([group.rewards for group in groups])
    graded = np.concatenate([group.graded for group in groups])
    lengths = [len(sample.logprobs) for group in groups for sample in group.answered.samples]
    metrics = {
        "response_tokens": float(np.mean(lengths)),
        "truncated": float(np.concatenate([group.truncated for group in groups]).mean()),
        "grader_errors": float(1.0 - graded.mean()),
    }
    metrics |= switch_shares([grade.components for group in groups for grade in group.grades])
    return metrics | ({"reward": float(rewards[graded].mean())} if graded.any() else {})


def rollout_seed(training: Training[StagePart], step: int, task: Task) -> int:
    """What fixes the rollouts of a task in a step."""
    return training.draw_seed("rollout", step, task.id)


def limit_check(
    step: int, seen: Mapping[str, float], part: RolloutStage, *, whole_distributions: bool = False
) -> Callable[[Mapping[str, float]], None]:
    """A check for `Trainer.update`: the rollouts' and the update's metrics against the stage's limits.

    GRPO scores tokens under the truncated distribution they were drawn from. MOPD compares
    `whole_distributions`. There nucleus sampling renormalises what it keeps, which is at least top_p, and
    may raise a log-probability by up to -log top_p. Top-k sampling raises it by an unknown amount, so that
    the gap is not held to its limit.
    """
    older = part.workers.asynchronous  # the gap is one of weights, too
    hidden = {"logprob_gap"} if older or (whole_distributions and part.sampling.top_k is not None) else set()
    slack = -math.log(part.sampling.top_p) if whole_distributions else 0.0

    def check(learnt: Mapping[str, float]) -> None:
        metrics = {name: value for name, value in {**seen, **learnt}.items() if name not in hidden}
        check_limits(step, metrics, part.limits, truncation_slack=slack)

    return check
