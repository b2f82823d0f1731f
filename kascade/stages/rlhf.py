"""RLHF by pairwise comparison, held to the stage's start by a KL term. [C2 §4.5; N3 §3.3]

[C2] Nemotron-Cascade 2 (arXiv 2603.19220), [N3] Nemotron 3 Nano (arXiv 2512.20848).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import numpy as np

from kascade.environments import get_environment
from kascade.environments.judging.genrm import GenRM, Scores
from kascade.environments.judging.judge import JudgeError, current_judge
from kascade.errors import Fault, UserError
from kascade.learning.advantages import (
    Match,
    match_rewards,
    pairs_to_compare,
    pairwise_rewards,
)
from kascade.learning.group import Reference
from kascade.recipe.schema import Pairwise, RLHFStage
from kascade.rollout.answers import Answered, Grader, Group, grade_by_environment
from kascade.rollout.policy import Policy
from kascade.stages.grpo import train_grpo
from kascade.stages.reward_model import RewardModel, train_reward_model
from kascade.stages.rollouts import rollout_metrics
from kascade.stages.training import Training
from kascade.task import THINK_END, Grade, Task, visible_answer

CompareAll = Callable[[Sequence[tuple[Task, str, str]]], list[Scores | JudgeError]]
PREFERENCE = "preference"  # component: the grade of the answer by itself, not relative to its group


class PairJudge(Protocol):
    """An environment that compares two answers: scores in [1, 5]; ranking in [1, 6], 1 = first far better."""

    def compare(self, task: Task, first: str, second: str) -> tuple[float, float, float]: ...


def train_rlhf(training: Training[RLHFStage], reference: Reference | None = None) -> None:
    """Train the policy in place. reference: None: the stage's start; a learned judge begins from that, too.

    Raises TrainingStopped when a limit is passed or a learned judge agrees too little with held-out
    preferences.
    """
    grader = _grader(training)
    train_grpo(training, grader=grader, observe=preference_metrics, reference=reference)


def _grader(training: Training[RLHFStage]) -> Grader:
    """Rewards by the judge that the recipe names."""
    part = training.stage
    rule = part.judge
    if rule.kind == "reward_model":
        model = train_reward_model(training, compare_pair)
        return lambda answered: reward_model_grades(model, training.policy, answered)
    if rule.kind == "genrm":
        genrm = GenRM(current_judge(), rule.style, rule.principle, rule.votes)
        return lambda answered: pairwise_grades(answered, part.pairwise, genrm.compare_all, None)
    return lambda answered: pairwise_grades(
        answered, part.pairwise, compare_by_rule, grade_by_environment(answered)
    )


def compare_by_rule(pairs: Sequence[tuple[Task, str, str]]) -> list[Scores | JudgeError]:
    return [compare_pair(*pair) for pair in pairs]


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


def pairwise_grades(
    answered: Sequence[Answered],
    rule: Pairwise,
    compare_all: CompareAll,
    exams: Sequence[Sequence[Grade]] | None,
) -> list[list[Grade]]:
    """Rewards from comparing each task's answers with each other, all pairs of a step at once.

    exams: the environment's own grade of each answer, which goes along as a component, and whose errors leave
    an answer out; None where the judge's mean score stands for it. A pair without a verdict is left out; an
    answer without any is an error.
    """
    known = [
        [row for row in range(len(one.answers)) if exams is None or exams[index][row].error is None]
        for index, one in enumerate(answered)
    ]
    pairs = [
        (index, rows[i], rows[j])
        for index, rows in enumerate(known)
        for i, j in pairs_to_compare(len(rows), rule.pairs)
    ]
    verdicts = compare_all(
        [
            (
                answered[index].task,
                visible_answer(answered[index].task, answered[index].answers[i]),
                visible_answer(answered[index].task, answered[index].answers[j]),
            )
            for index, i, j in pairs
        ]
    )
    matches: list[list[Match]] = [[] for _ in answered]
    problems: dict[int, str] = {}
    for (index, i, j), verdict in zip(pairs, verdicts, strict=True):
        if isinstance(verdict, JudgeError):
            problems[index] = str(verdict)
        else:
            matches[index].append(Match(i, j, *verdict))
    return [
        _group_grades(one, matches[index], rule, exams[index] if exams else None, problems.get(index))
        for index, one in enumerate(answered)
    ]


def _group_grades(
    one: Answered,
    matches: Sequence[Match],
    rule: Pairwise,
    exam: Sequence[Grade] | None,
    problem: str | None,
) -> list[Grade]:
    base = match_rewards(len(one.answers), matches)
    lonely = problem or "there is no other answer to compare with"
    errors = [grade.error for grade in exam] if exam else [None] * len(one.answers)
    grades = [Grade.failed(error or lonely) for error in errors]
    judged = [int(row) for row in np.flatnonzero(~np.isnan(base))]
    if not judged:
        return grades
    think, said = (
        np.array(found) for found in zip(*(_lengths(one.answers[row]) for row in judged), strict=True)
    )
    rewards = pairwise_rewards(base[judged], think, said, rule)
    for row, reward in zip(judged, rewards, strict=True):
        absolute = exam[row].reward if exam else (float(base[row]) - 1) / 4
        grades[row] = Grade(float(reward), {PREFERENCE: absolute})
    return grades


def _lengths(text: str) -> tuple[float, float]:
    """Characters of the thinking and of the answer (NeMo-Gym's genrm_compare counts characters)."""
    think, end, answer = text.rpartition(THINK_END)
    return (float(len(think)), float(len(answer))) if end else (0.0, float(len(text)))


def reward_model_grades(
    judge: RewardModel, policy: Policy, answered: Sequence[Answered]
) -> list[list[Grade]]:
    """The learned scalar as reward; the exam's grade goes along as a component, so that hacking shows.

    Where only a model can judge (rows of conversations), the scalar's own logistic stands for the exam.
    """
    ruled = [one for one in answered if one.task.fields.get("judged_by") != "model"]
    exams = iter(grade_by_environment(ruled))
    return [
        _scored(
            judge.score(policy.chat, one.task, one.answers),
            None if one.task.fields.get("judged_by") == "model" else next(exams),
        )
        for one in answered
    ]


def _scored(scores: Sequence[float], exam: Sequence[Grade] | None) -> list[Grade]:
    if exam is None:
        return [Grade(score, {PREFERENCE: float(1 / (1 + np.exp(-score)))}) for score in scores]
    return [
        Grade(score, {PREFERENCE: grade.reward}) if grade.error is None else grade
        for score, grade in zip(scores, exam, strict=True)
    ]


def preference_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """`reward` is the exam's grade; `judged_reward` the judge's, which is relative within a group."""
    metrics = rollout_metrics(groups)
    if "reward" not in metrics:
        return metrics
    exam = [grade.components[PREFERENCE] for group in groups for grade in group.grades if grade.error is None]
    return {**metrics, "reward": float(np.mean(exam)), "judged_reward": metrics["reward"]}
