"""Exams: a benchmark's tasks, answered by a checkpoint and graded by the benchmark's environment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kascade.clock import Clock
from kascade.environments.base import Domain, Task
from kascade.guard.scores import Phase, Score, read_score, write_score
from kascade.recipe.schema import Benchmark
from kascade.rollout.types import SamplingParams
from kascade.stages.answers import TaskAnswers, answer_lines, append_answers, grade_again, read_answers
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
from kascade.stages.tasks import exam_tasks
from kascade.storage.files import write_text
from kascade.storage.layout import RunLayout

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
    wanted = {task.id for task in exam_tasks(run, benchmark)}
    enough = all(len(rewards) == num_samples(run, benchmark, phase) for rewards in score.rewards.values())
    return score if score.rewards.keys() == wanted and enough else None


def num_samples(run: Run, benchmark: Benchmark, phase: Phase) -> int:
    guard = run.recipe.guard
    return (benchmark.samples or guard.screen_samples) if phase == "screen" else guard.confirm_samples


def score_benchmark(
    run: Run, policy: Policy, benchmark: Benchmark, digest: str, *, phase: Phase, draw: int = 0
) -> Score:
    """Draw and write the score of the checkpoint in `policy`, identified by digest.

    The draws differ by checkpoint, phase and round, so that no two scores share their luck. Answers are kept
    as they come, `keep_every` tasks at a time: interrupted, the exam goes on with the tasks still to answer.
    """
    tasks = exam_tasks(run, benchmark)
    exam = _Draw(
        sampling_params(benchmark.sampling),
        num_samples(run, benchmark, phase),
        derive_seed(run.recipe.seed, "exam", benchmark.name, digest, phase, draw),
        with_greedy=benchmark.greedy and phase == "screen",
    )
    path = run.layout.answers(digest, benchmark.name, phase, draw)
    answers = _sit_and_keep(run, policy, benchmark, path, exam)
    domain = tasks[0].domain
    return write_results(run.layout, benchmark, domain, digest, answers, phase=phase, draw=draw)


@dataclass(frozen=True, slots=True)
class _Draw:
    """How the answers of an exam are drawn; `seed` fixes all of them."""

    params: SamplingParams
    num_samples: int
    seed: int
    with_greedy: bool

    def sit(self, policy: Policy, tasks: Sequence[Task], clock: Clock) -> list[TaskAnswers]:
        """Graded answers to the tasks, the greedy ones behind the drawn ones."""
        if not self.with_greedy:
            count = self.num_samples
            groups = sit_exam(policy, tasks, self.params, num_samples=count, seed=self.seed, clock=clock)
            return [TaskAnswers.of(group, greedy=False) for group in groups]
        both = answer_with_greedy(
            policy,
            tasks,
            self.params,
            num_samples=self.num_samples,
            seed_of=lambda task: derive_seed(self.seed, task.id),
            clock=clock,
        )
        return [
            TaskAnswers.of(group, greedy=greedy)
            for greedy, answered in zip((False, True), both, strict=True)
            for group in grade(answered, grade_by_environment, clock)
        ]

    def wanted(self, task: Task) -> list[tuple[str, bool]]:
        """Keys of what must be known of a task: its drawn answers, the greedy one where asked for."""
        return [(task.id, greedy) for greedy in ((False, True) if self.with_greedy else (False,))]


def _sit_and_keep(
    run: Run, policy: Policy, benchmark: Benchmark, path: Path, draw: _Draw
) -> list[TaskAnswers]:
    """The answers to all tasks in order: those kept at `path`, and the others drawn now and kept there."""
    tasks = exam_tasks(run, benchmark)
    kept = {
        (one.task_id, one.greedy): one
        for one in read_answers(path)
        if one.greedy or len(one.answers) == draw.num_samples
    }
    pending = [task for task in tasks if not all(key in kept for key in draw.wanted(task))]
    for start in range(0, len(pending), benchmark.keep_every):
        found = draw.sit(policy, pending[start : start + benchmark.keep_every], run.clock)
        append_answers(path, found)
        kept |= {(one.task_id, one.greedy): one for one in found}
    return [kept[key] for task in tasks for key in draw.wanted(task)]


def write_results(
    layout: RunLayout,
    benchmark: Benchmark,
    domain: Domain,
    digest: str,
    answers: Sequence[TaskAnswers],
    *,
    phase: Phase,
    draw: int,
) -> Score:
    """The score of an exam's answers, written with some of them for people to read."""
    score = to_score(benchmark, domain, digest, answers, phase=phase, draw=draw)
    write_score(layout, score)
    if phase == "screen":
        path = layout.samples(digest) / f"{benchmark.name}.jsonl"
        drawn = [one for one in answers if not one.greedy][:SHOWN_TASKS]
        greedy = [one for one in answers if one.greedy][:SHOWN_TASKS]
        write_text(path, sample_lines([*drawn, *greedy]))
    return score


def to_score(
    benchmark: Benchmark,
    domain: Domain,
    digest: str,
    answers: Sequence[TaskAnswers],
    *,
    phase: Phase,
    draw: int,
) -> Score:
    drawn = [one for one in answers if not one.greedy]
    return Score(
        benchmark=benchmark.name,
        domain=domain,
        checkpoint=digest,
        phase=phase,
        round=draw,
        temperature=benchmark.sampling.temperature,
        rewards={one.task_id: list(one.rewards) for one in drawn},
        greedy={one.task_id: one.rewards[0] for one in answers if one.greedy},
        mean_response_tokens=float(np.mean([tokens for one in drawn for tokens in one.num_tokens])),
        num_truncated=sum(sum(one.truncated) for one in drawn),
    )


def sample_lines(answers: Sequence[TaskAnswers]) -> str:
    """JSON lines of the first answer to each task, for people to read."""
    return "".join(json.dumps(_shown(one), ensure_ascii=False) + "\n" for one in answers)


def _shown(one: TaskAnswers) -> dict[str, object]:
    return {
        "task_id": one.task_id,
        "prompt": one.prompt,
        "answer": one.answers[0],
        "reward": one.rewards[0],
        "components": dict(one.components[0]),
        "error": one.errors[0],
        "greedy": one.greedy,
    }


def regrade(run: Run) -> list[tuple[Score, Score]]:
    """Grade every kept answer of a run again and write the scores. Returns (before, after) of each.

    Nothing is sampled. Answers of benchmarks that the recipe no longer has, or asks other tasks of, stay as
    they are.
    """
    results = []
    for benchmark in run.recipe.benchmarks:
        tasks = exam_tasks(run, benchmark)
        for path in sorted(run.layout.all_scores.glob(f"*/{benchmark.name}.*-*.json")):
            before = Score.model_validate_json(path.read_text(encoding="utf-8"))
            phase, draw = before.phase, before.round
            kept = run.layout.answers(before.checkpoint, benchmark.name, phase, draw)
            answers = _current(read_answers(kept), before)
            if not answers or before.rewards.keys() != {task.id for task in tasks}:
                continue
            answers = grade_again(tasks, answers)
            write_text(kept, answer_lines(answers))
            after = write_results(
                run.layout, benchmark, before.domain, before.checkpoint, answers, phase=phase, draw=draw
            )
            results.append((before, after))
    return results


def _current(answers: Sequence[TaskAnswers], score: Score) -> list[TaskAnswers]:
    """The answers that a score was made of: the last of its tasks, with its number of samples."""
    wanted = {
        (one.task_id, one.greedy): one
        for one in answers
        if one.greedy or len(one.answers) == len(score.rewards.get(one.task_id, []))
    }
    drawn = {task for task, greedy in wanted if not greedy}
    return list(wanted.values()) if drawn == score.rewards.keys() else []
