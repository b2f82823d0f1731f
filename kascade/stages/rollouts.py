"""Answers of the policy and their grades: the input of every RL stage and of the exams."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kascade.clock import Clock
from kascade.environments import get_environment
from kascade.environments.base import Grade, Task
from kascade.environments.crashes import graded as graded_by
from kascade.errors import TrainingStopped
from kascade.learning.advantages import Floats, Mask
from kascade.learning.limits import check_limits
from kascade.recipe.schema import MOPDStage, RolloutStage, Sampling
from kascade.rollout.conversations import Opening, converse, open_sessions
from kascade.rollout.types import Prompt, Sample, SamplingParams
from kascade.stages.job import Job, Policy


@dataclass(frozen=True, slots=True)
class Answered:
    """One task with the policy's samples, as tokens and as text.

    grades: of conversations, which their environment grades as they end; None for single answers.
    """

    task: Task
    prompt_ids: tuple[int, ...]
    samples: tuple[Sample, ...]
    answers: tuple[str, ...]
    grades: tuple[Grade, ...] | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The graded rollouts of one task. Arrays have one entry a rollout: [G]."""

    answered: Answered
    grades: tuple[Grade, ...]

    @property
    def rewards(self) -> Floats:
        return np.array([grade.reward for grade in self.grades], dtype=np.float64)

    @property
    def graded(self) -> Mask:
        return np.array([grade.error is None for grade in self.grades], dtype=np.bool_)

    @property
    def truncated(self) -> Mask:
        return np.array([s.finish_reason == "length" for s in self.answered.samples], dtype=np.bool_)


Grader = Callable[[Sequence[Answered]], list[list[Grade]]]


def sampling_params(sampling: Sampling) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        stop_texts=sampling.stop,
        thinking_budget=sampling.thinking_budget,
        conversation=sampling.conversation,
    )


def answer(
    policy: Policy,
    tasks: Sequence[Task],
    params: SamplingParams,
    *,
    num_samples: int,
    seed_of: Callable[[Task], int],
    clock: Clock,
) -> list[Answered]:
    """Sample `num_samples` answers to each task, or have as many conversations where it takes several turns.

    Raises TrainingStopped if other weights drew them.
    """
    policy.check_weights()
    with clock.section("sampling"):
        sessions = open_sessions(tasks, num_samples)
        single = [task for task, opened in zip(tasks, sessions, strict=True) if opened is None]
        openings = [
            Opening(task, opened, seed_of(task))
            for task, opened in zip(tasks, sessions, strict=True)
            if opened is not None
        ]
        spoken = iter(_talk(policy, openings, params))
        said = iter(_answer_once(policy, single, params, num_samples, seed_of))
        answered = [next(said) if opened is None else next(spoken) for opened in sessions]
    _check_versions(policy, answered)
    return answered


def answer_with_greedy(
    policy: Policy,
    tasks: Sequence[Task],
    params: SamplingParams,
    *,
    num_samples: int,
    seed_of: Callable[[Task], int],
    clock: Clock,
) -> tuple[list[Answered], list[Answered]]:
    """`answer`, and one greedy answer to each task. Both kinds share the work on prompts, if no task takes
    several turns.
    """
    sessions = open_sessions(tasks, 1)
    for opened in sessions:
        for session in opened or ():
            session.close()
    if any(opened is not None for opened in sessions):
        greedy = replace(params, temperature=0.0)
        return (
            answer(policy, tasks, params, num_samples=num_samples, seed_of=seed_of, clock=clock),
            answer(policy, tasks, greedy, num_samples=1, seed_of=seed_of, clock=clock),
        )
    with clock.section("sampling"):
        both = _answer_once(policy, tasks, params, num_samples, seed_of, greedy=True)
    _check_versions(policy, both)
    return [_part(one, slice(1, None)) for one in both], [_part(one, slice(1)) for one in both]


def _part(answered: Answered, which: slice) -> Answered:
    return replace(answered, samples=answered.samples[which], answers=answered.answers[which])


def _check_versions(policy: Policy, answered: Sequence[Answered]) -> None:
    versions = {sample.weights_version for one in answered for sample in one.samples}
    if versions - {policy.version}:
        raise TrainingStopped(
            f"the sampler used weights version {sorted(versions)}, the trainer holds {policy.version}"
        )


def _answer_once(
    policy: Policy,
    tasks: Sequence[Task],
    params: SamplingParams,
    num_samples: int,
    seed_of: Callable[[Task], int],
    *,
    greedy: bool = False,
) -> list[Answered]:
    """greedy: a greedy answer before the samples."""
    prompt_ids = [tuple(policy.chat.prompt_ids(task)) for task in tasks]
    prompts = [
        Prompt(ids, num_samples, seed_of(task), greedy, task.thinking)
        for ids, task in zip(prompt_ids, tasks, strict=True)
    ]
    sampled = policy.engine.sample(prompts, params) if prompts else []
    return [
        Answered(task, ids, tuple(samples), tuple(policy.chat.decode(s.token_ids) for s in samples))
        for task, ids, samples in zip(tasks, prompt_ids, sampled, strict=True)
    ]


def _talk(policy: Policy, openings: Sequence[Opening], params: SamplingParams) -> list[Answered]:
    return [
        Answered(
            opening.task,
            tuple(policy.chat.prompt_ids(opening.task)),
            tuple(one.sample for one in dialogues),
            tuple(one.text for one in dialogues),
            tuple(one.grade for one in dialogues),
        )
        for opening, dialogues in zip(
            openings, converse(policy.engine, policy.chat, openings, params), strict=True
        )
    ]


def grade_by_environment(answered: Sequence[Answered]) -> list[list[Grade]]:
    """Grades in order; each environment sees all its groups at once, so that it can batch them."""
    grades = [list(one.grades or ()) for one in answered]
    ungraded = [row for row, one in enumerate(answered) if one.grades is None]
    for name in dict.fromkeys(answered[row].task.environment for row in ungraded):
        rows = [row for row in ungraded if answered[row].task.environment == name]
        graded = graded_by(get_environment(name), [(answered[r].task, answered[r].answers) for r in rows])
        for row, group in zip(rows, graded, strict=True):
            grades[row] = group
    return grades


def grade(answered: Sequence[Answered], grader: Grader, clock: Clock) -> list[Group]:
    with clock.section("grading"):
        grades = grader(answered)
    return [Group(one, tuple(group)) for one, group in zip(answered, grades, strict=True)]


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Of a step's rollouts: reward (graded ones), response_tokens (what the policy said itself), shares of
    truncated and grader_errors."""
    rewards = np.concatenate([group.rewards for group in groups])
    graded = np.concatenate([group.graded for group in groups])
    lengths = [len(sample.logprobs) for group in groups for sample in group.answered.samples]
    metrics = {
        "response_tokens": float(np.mean(lengths)),
        "truncated": float(np.concatenate([group.truncated for group in groups]).mean()),
        "grader_errors": float(1.0 - graded.mean()),
    }
    return metrics | ({"reward": float(rewards[graded].mean())} if graded.any() else {})


def rollout_seed(job: Job, step: int, task: Task) -> int:
    """What fixes the rollouts of a task in a step."""
    return job.draw_seed("rollout", step, task.id)


def limit_check(
    step: int, seen: Mapping[str, float], part: RolloutStage
) -> Callable[[Mapping[str, float]], None]:
    """A check for `Trainer.update`: the rollouts' and the update's metrics against the stage's limits.

    GRPO scores tokens under the truncated distribution they were drawn from. MOPD compares whole
    distributions: there nucleus sampling, which renormalises what it keeps, at least top_p, may raise a
    log-probability by up to -log top_p, and top-k sampling by an unknown amount, so that the gap is not
    held to its limit.
    """
    whole = isinstance(part, MOPDStage)
    older = part.workers.asynchronous  # the gap is one of weights, too
    hidden = {"logprob_gap"} if older or (whole and part.sampling.top_k is not None) else set()
    slack = -math.log(part.sampling.top_p) if whole else 0.0

    def check(learnt: Mapping[str, float]) -> None:
        metrics = {name: value for name, value in {**seen, **learnt}.items() if name not in hidden}
        check_limits(step, metrics, part.limits, truncation_slack=slack)

    return check
