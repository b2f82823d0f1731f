"""RLHF by pairwise comparison, held to the stage's start by a KL term. [C2 §4.5; N3 §3.3]

[C2] Nemotron-Cascade 2 (arXiv 2603.19220), [N3] Nemotron 3 Nano (arXiv 2512.20848).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
from transformers import PreTrainedModel

from kascade.environments import get_environment
from kascade.environments.base import THINK_END, Grade, Task
from kascade.errors import Fault, UserError
from kascade.learning.advantages import (
    Comparison,
    match_rewards,
    pairs_to_compare,
    pairwise_rewards,
)
from kascade.recipe.schema import Pairwise, RLHFStage
from kascade.stages.grpo import train_grpo
from kascade.stages.job import Job, Policy, TaskSource
from kascade.stages.reward_model import RewardModel, train_reward_model
from kascade.stages.rollouts import Answered, Grader, Group, grade_by_environment, rollout_metrics

PREFERENCE = "preference"  # component: the environment's own grade of the answer, as exams see it


class PairJudge(Protocol):
    """An environment that compares two answers: scores in [1, 5]; ranking in [1, 6], 1 = first far better."""

    def compare(self, task: Task, first: str, second: str) -> tuple[float, float, float]: ...


def train_rlhf(
    policy: Policy, tasks: TaskSource, part: RLHFStage, job: Job, reference: PreTrainedModel
) -> None:
    """Train the policy in place. reference: the stage's start; a learned judge begins from it, too.

    Raises TrainingStopped when a limit is passed or a learned judge agrees too little with held-out
    preferences.
    """
    if part.judge.kind == "reward_model":
        judge = train_reward_model(policy, tasks, part, job, compare_pair)
        grader: Grader = lambda answered: reward_model_grades(judge, policy, answered)  # noqa: E731
    else:
        grader = lambda answered: pairwise_grades(answered, part.pairwise)  # noqa: E731
    kept_near = reference if part.grpo.kl_coefficient > 0 else None
    train_grpo(policy, tasks, part, job, grader=grader, observe=preference_metrics, reference=kept_near)


def compare_pair(task: Task, first: str, second: str) -> tuple[float, float, float]:
    """The rule judge's word. Raises UserError when the task's environment compares no pairs."""
    environment = get_environment(task.environment)
    if not hasattr(environment, "compare"):
        raise UserError(
            Fault(
                f"environment {task.environment!r}",
                "cannot compare two answers",
                remedy="use genrm_compare for RLHF",
            )
        )
    return cast("PairJudge", environment).compare(task, first, second)


def pairwise_grades(answered: Sequence[Answered], rule: Pairwise) -> list[list[Grade]]:
    """Rewards from comparing each task's answers with each other; the exam's grade is a component."""
    absolute = grade_by_environment(answered)
    return [_compare_group(one, exam, rule) for one, exam in zip(answered, absolute, strict=True)]


def _compare_group(one: Answered, exam: Sequence[Grade], rule: Pairwise) -> list[Grade]:
    known = [row for row, grade in enumerate(exam) if grade.error is None]
    answers = [one.answers[row] for row in known]
    matches = [
        Comparison(i, j, *compare_pair(one.task, answers[i], answers[j]))
        for i, j in pairs_to_compare(len(answers), rule.pairs)
    ]
    grades = [Grade.failed(grade.error or "there is no other answer to compare with") for grade in exam]
    if not matches:
        return grades
    think, said = zip(*(_lengths(text) for text in answers), strict=True)
    rewards = pairwise_rewards(match_rewards(len(answers), matches), np.array(think), np.array(said), rule)
    for row, reward in zip(known, rewards, strict=True):
        grades[row] = Grade(float(reward), {PREFERENCE: exam[row].reward})
    return grades


def _lengths(text: str) -> tuple[float, float]:
    """Characters of the thinking and of the answer (NeMo-Gym's genrm_compare counts characters)."""
    think, end, answer = text.rpartition(THINK_END)
    return (float(len(think)), float(len(answer))) if end else (0.0, float(len(text)))


def reward_model_grades(
    judge: RewardModel, policy: Policy, answered: Sequence[Answered]
) -> list[list[Grade]]:
    """The learned scalar as reward; the exam's grade goes along as a component, so that hacking shows."""
    exams = grade_by_environment(answered)
    return [
        [
            Grade(score, {PREFERENCE: exam.reward}) if exam.error is None else exam
            for score, exam in zip(judge.score(policy.chat, one.task, one.answers), group, strict=True)
        ]
        for one, group in zip(answered, exams, strict=True)
    ]


def preference_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """`reward` is the exam's grade; `judged_reward` the judge's, which is relative within a group."""
    metrics = rollout_metrics(groups)
    if "reward" not in metrics:
        return metrics
    exam = [grade.components[PREFERENCE] for group in groups for grade in group.grades if grade.error is None]
    return {**metrics, "reward": float(np.mean(exam)), "judged_reward": metrics["reward"]}
