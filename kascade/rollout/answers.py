"""Answers of the policy and their grades: the input of every RL stage and of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kascade.clock import Clock
from kascade.environments import get_environment
from kascade.environments.crashes import graded as graded_by
from kascade.errors import TrainingStopped
from kascade.recipe.schema import Sampling
from kascade.rollout.conversations import Opening, converse, open_sessions
from kascade.rollout.policy import Policy
from kascade.rollout.types import Floats, Mask, Prompt, Sample, SamplingParams
from kascade.task import Grade, Task, with_switch


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
    first: int = 0,
) -> list[Answered]:
    """Sample `num_samples` answers to each task, or have as many conversations where it takes several turns.

    first: number of the first sample. Raises TrainingStopped if other weights drew them.
    """
    policy.check_weights()
    with clock.section("sampling"):
        sessions = open_sessions(tasks, num_samples)
        single = [task for task, opened in zip(tasks, sessions, strict=True) if opened is None]
        openings = [
            Opening(task, opened, seed_of(task), first)
            for task, opened in zip(tasks, sessions, strict=True)
            if opened is not None
        ]
        spoken = iter(_talk(policy, openings, params))
        said = iter(_answer_once(policy, single, params, num_samples, seed_of, first=first))
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
    first: int = 0,
) -> list[Answered]:
    """greedy: a greedy answer before the samples. first: number of the first sample."""
    prompt_ids = [tuple(policy.chat.prompt_ids(task)) for task in tasks]
    prompts = [
        Prompt(ids, num_samples, seed_of(task), greedy, task.thinking and policy.chat.opens(task), first)
        for ids, task in zip(prompt_ids, tasks, strict=True)
    ]
    sampled = policy.engine.sample(prompts, params) if prompts else []
    return [
        Answered(task, ids, tuple(samples), tuple(policy.chat.said(task, s.token_ids) for s in samples))
        for task, ids, samples in zip(tasks, prompt_ids, sampled, strict=True)
    ]


def _talk(policy: Policy, openings: Sequence[Opening], params: SamplingParams) -> list[Answered]:
    return [
        Answered(
            opening.task,
            dialogues[0].prompt_ids,
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
    return [
        Group(one, tuple(with_switch(one.task, one.answers, group)))
        for one, group in zip(answered, grades, strict=True)
    ]
