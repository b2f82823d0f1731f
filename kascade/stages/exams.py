"""Exams: a benchmark's tasks, answered by a checkpoint and graded by the benchmark's environment."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from kascade.clock import Clock
from kascade.environments.base import Task
from kascade.guard.scores import Phase, Score, read_score, write_score
from kascade.recipe.schema import Benchmark
from kascade.rollout.types import SamplingParams
from kascade.stages.context import Run
from kascade.stages.job import Policy, derive_seed
from kascade.stages.rollouts import (
    Group,
    answer,
    answer_with_greedy,
    grade,
    grade_by_environment,
    sampling_params,
)
from kascade.stages.tasks import benchmark_tasks
from kascade.storage.files import write_text

SHOWN_TASKS = 20  # tasks whose answers are kept for people to read


def sit_exam(
    policy: Policy,
    tasks: Sequence[Task],
    params: SamplingParams,
    *,
    num_samples: int,
    seed: int,
    clock: Clock,
) -> list[Group]:
    """The policy's graded answers to each task; `seed` fixes all draws."""
    answered = answer(
        policy,
        tasks,
        params,
        num_samples=num_samples,
        seed_of=lambda task: derive_seed(seed, task.id),
        clock=clock,
    )
    return grade(answered, grade_by_environment, clock)


def known_score(run: Run, benchmark: Benchmark, digest: str, phase: Phase, draw: int) -> Score | None:
    """The score on disk, if it is of the tasks and the number of samples that the recipe asks for."""
    score = read_score(run.layout, digest, benchmark.name, phase, draw)
    if score is None:
        return None
    wanted = {task.id for task in benchmark_tasks(benchmark, run.recipe.seed)}
    enough = all(len(rewards) == num_samples(run, phase) for rewards in score.rewards.values())
    return score if score.rewards.keys() == wanted and enough else None


def num_samples(run: Run, phase: Phase) -> int:
    return run.recipe.guard.screen_samples if phase == "screen" else run.recipe.guard.confirm_samples


def score_benchmark(
    run: Run, policy: Policy, benchmark: Benchmark, digest: str, *, phase: Phase, draw: int = 0
) -> Score:
    """Draw and write the score of the checkpoint in `policy`, identified by digest.

    The draws differ by checkpoint, phase and round, so that no two scores share their luck.
    """
    tasks = benchmark_tasks(benchmark, run.recipe.seed)
    params, count = sampling_params(benchmark.sampling), num_samples(run, phase)
    seed = derive_seed(run.recipe.seed, "exam", benchmark.name, digest, phase, draw)
    greedy: list[Group] = []
    if benchmark.greedy and phase == "screen":
        drawn, best = answer_with_greedy(
            policy,
            tasks,
            params,
            num_samples=count,
            seed_of=lambda task: derive_seed(seed, task.id),
            clock=run.clock,
        )
        groups, greedy = (grade(one, grade_by_environment, run.clock) for one in (drawn, best))
    else:
        groups = sit_exam(policy, tasks, params, num_samples=count, seed=seed, clock=run.clock)
    score = to_score(benchmark, digest, groups, greedy, phase=phase, draw=draw)
    write_score(run.layout, score)
    if phase == "screen":
        path = run.layout.samples(digest) / f"{benchmark.name}.jsonl"
        write_text(
            path,
            sample_lines(groups[:SHOWN_TASKS], greedy=False)
            + sample_lines(greedy[:SHOWN_TASKS], greedy=True),
        )
    return score


def to_score(
    benchmark: Benchmark,
    digest: str,
    groups: Sequence[Group],
    greedy: Sequence[Group],
    *,
    phase: Phase,
    draw: int,
) -> Score:
    samples = [sample for group in groups for sample in group.answered.samples]
    return Score(
        benchmark=benchmark.name,
        domain=groups[0].answered.task.domain,
        checkpoint=digest,
        phase=phase,
        round=draw,
        temperature=benchmark.sampling.temperature,
        rewards={group.answered.task.id: rewards_of(group) for group in groups},
        greedy={group.answered.task.id: rewards_of(group)[0] for group in greedy},
        mean_response_tokens=float(np.mean([len(sample.logprobs) for sample in samples])),
        num_truncated=sum(sample.finish_reason == "length" for sample in samples),
    )


def rewards_of(group: Group) -> list[float | None]:
    """One reward a sample, None where the grader failed."""
    return [None if one.error else one.reward for one in group.grades]


def sample_lines(groups: Sequence[Group], *, greedy: bool) -> str:
    """JSON lines of the first answer to each task, for people to read."""
    return "".join(json.dumps(_shown(group, greedy), ensure_ascii=False) + "\n" for group in groups)


def _shown(group: Group, greedy: bool) -> dict[str, object]:
    found = group.grades[0]
    return {
        "task_id": group.answered.task.id,
        "prompt": "\n\n".join(message["content"] for message in group.answered.task.messages),
        "answer": group.answered.answers[0],
        "reward": None if found.error else found.reward,
        "components": dict(found.components),
        "error": found.error,
        "greedy": greedy,
    }
