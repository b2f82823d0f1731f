"""Exams: a benchmark's tasks, answered by a checkpoint and graded by the benchmark's environment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kascade.environments import domain_of
from kascade.exams.answers import TaskAnswers, answer_lines, grade_again, joined, read_answers
from kascade.exams.draws import Exam
from kascade.exams.outside import Asked, ask_outside
from kascade.exams.tasks import exam_tasks
from kascade.guard.scores import (
    Phase,
    Score,
    all_scores,
    answers_path,
    kept_answers_path,
    read_score,
    write_score,
)
from kascade.recipe.schema import Benchmark, Recipe
from kascade.rollout.answers import sampling_params
from kascade.rollout.policy import Policy
from kascade.run.context import Run
from kascade.seeds import derive_seed
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.task import switch_shares

SHOWN_TASKS = 20  # tasks whose answers are kept for people to read


@dataclass(frozen=True, slots=True)
class Draw:
    """Which answers of a benchmark are meant. samples: of each task; None: as many as the recipe says."""

    phase: Phase
    round: int = 0
    samples: int | None = None


def known_score(run: Run, benchmark: Benchmark, digest: str, draw: Draw) -> Score | None:
    """The score on disk, if it is of the tasks and the samples that the recipe asks for, and graded."""
    score = read_score(run.layout, digest, benchmark.name, draw.phase, draw.round)
    if score is None or score.draws == "own" or score.missing > run.recipe.guard.max_missing:
        return None
    samples = draw.samples or num_samples(run, benchmark, draw.phase)
    counts = [len(rewards) for rewards in score.rewards.values()]
    if benchmark.source.of_another_tool:
        same = score.asked == _asked(run, benchmark, digest, draw).hashed()
        return score if same and (score.fixed or min(counts) >= samples) else None
    wanted = {task.id for task in exam_tasks(run, benchmark)}
    enough = min(counts) >= samples and (draw.phase != "screen" or max(counts) == samples)
    return score if score.rewards.keys() == wanted and enough else None


def num_samples(run: Run, benchmark: Benchmark, phase: Phase) -> int:
    """Answers per task that a draw asks for at most: one where more would be the same."""
    if benchmark.is_fixed:
        return 1
    guard = run.recipe.guard
    retention = guard.retention.samples
    most = {"confirm": guard.confirm_samples, "end": retention, "promotion": retention}
    return most.get(phase) or benchmark.samples or guard.screen_samples


def score_benchmark(run: Run, policy: Policy, benchmark: Benchmark, digest: str, draw: Draw) -> Score:
    """Draw and write the score of the checkpoint in `policy`, identified by digest.

    Every checkpoint answers a task's sample i from the same random numbers, so that differences have less
    noise (common random numbers: Glasserman and Yao, Management Science 38, 1992). They differ by phase and
    round, so that fresh samples are fresh. Answers are kept as they come, `keep_every` tasks at a time:
    interrupted, the exam continues with the tasks still to answer.
    """
    if benchmark.source.of_another_tool:
        return _score_outside(run, policy, benchmark, digest, draw)
    tasks = exam_tasks(run, benchmark)
    exam = Exam(
        sampling_params(benchmark.sampling),
        draw.samples or num_samples(run, benchmark, draw.phase),
        draw_seed(run.recipe, benchmark, draw),
        with_greedy=benchmark.greedy and draw.phase == "screen",
        exactly=draw.phase == "screen",
    )
    path = answers_path(run.layout, digest, benchmark.name, draw.phase, draw.round)
    answers = exam.sit_and_keep(policy, tasks, path, benchmark.keep_every, run.clock)
    return write_results(run.layout, benchmark, _shape(benchmark, digest, draw), answers)


def _score_outside(run: Run, policy: Policy, benchmark: Benchmark, digest: str, draw: Draw) -> Score:
    """Another tool's results. Where they are always the same, a fresh draw is the screen's."""
    if benchmark.is_fixed and draw.phase != "screen":
        first = Draw("screen")
        score = known_score(run, benchmark, digest, first)
        score = score or _score_outside(run, policy, benchmark, digest, first)
        score = score.model_copy(update={"phase": draw.phase, "round": draw.round})
        write_score(run.layout, score)
        return score
    asked = _asked(run, benchmark, digest, draw)
    answers = ask_outside(policy, asked)
    shape = _shape(benchmark, digest, draw)
    shape = shape.model_copy(update={"fixed": benchmark.is_fixed, "asked": asked.hashed()})
    score = write_results(run.layout, benchmark, shape, answers)
    write_text(kept_answers_path(run.layout, score), answer_lines(answers))
    return score


def _asked(run: Run, benchmark: Benchmark, digest: str, draw: Draw) -> Asked:
    samples = draw.samples or num_samples(run, benchmark, draw.phase)
    ids = [manifest.id for ref, manifest in run.layout.checkpoints() if ref.digest == digest]
    same = Draw("screen") if benchmark.is_fixed else draw
    name = ids[0] if ids else digest[:16]
    return Asked(benchmark, name, digest, samples, draw_seed(run.recipe, benchmark, same))


def draw_seed(recipe: Recipe, benchmark: Benchmark, draw: Draw) -> int:
    """What fixes all answers of a draw, whichever checkpoint gives them."""
    return derive_seed(recipe.seed, "shared draws", benchmark.name, draw.phase, draw.round)


def _shape(benchmark: Benchmark, digest: str, draw: Draw) -> Score:
    """A score without its answers."""
    return Score(
        benchmark=benchmark.name,
        domain=domain_of(benchmark.source),
        checkpoint=digest,
        phase=draw.phase,
        round=draw.round,
        draws="shared",
        temperature=benchmark.sampling.temperature,
        rewards={},
        mean_response_tokens=0.0,
        num_truncated=0,
    )


def write_results(
    layout: RunFolder, benchmark: Benchmark, shape: Score, answers: Sequence[TaskAnswers]
) -> Score:
    """The score of a benchmark's answers, written with some of them for people to read.

    shape: whose score this is and of which draw.
    """
    score = to_score(benchmark, shape, answers)
    write_score(layout, score)
    if score.phase == "screen":
        path = layout.samples(score.checkpoint, benchmark.name)
        drawn = [one for one in answers if not one.greedy][:SHOWN_TASKS]
        greedy = [one for one in answers if one.greedy][:SHOWN_TASKS]
        write_text(path, sample_lines([*drawn, *greedy]))
    return score


def to_score(benchmark: Benchmark, shape: Score, answers: Sequence[TaskAnswers]) -> Score:
    """`shape` with these answers' rewards, scaled from the benchmark's `reward_range` to [0, 1].

    Raises KascadeError for a reward that is not finite or outside the range.
    """
    drawn = [one for one in answers if not one.greedy]
    low, high = benchmark.reward_range

    def scaled(reward: float | None) -> float | None:
        return None if reward is None else (reward - low) / (high - low)

    score = shape.model_copy(
        update={
            "rewards": {one.task_id: [scaled(reward) for reward in one.rewards] for one in drawn},
            "greedy": {one.task_id: scaled(one.rewards[0]) for one in answers if one.greedy},
            "mean_response_tokens": float(np.mean([tokens for one in drawn for tokens in one.num_tokens])),
            "num_truncated": sum(sum(one.truncated) for one in drawn),
            **switch_shares([each for one in drawn for each in one.components]),
        }
    )
    score.task_rewards()
    return score


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

    Nothing is sampled. Answers of benchmarks that the recipe no longer has, asks other tasks of, or lets
    another tool grade, stay as they are.
    """
    results = []
    for benchmark in run.recipe.benchmarks:
        if benchmark.source.of_another_tool:
            continue
        tasks = exam_tasks(run, benchmark)
        for before in all_scores(run.layout, benchmark.name):
            kept = kept_answers_path(run.layout, before)
            answers = _current(read_answers(kept), before)
            if not answers or before.rewards.keys() != {task.id for task in tasks}:
                continue
            answers = grade_again(tasks, answers)
            write_text(kept, answer_lines(answers))
            results.append((before, write_results(run.layout, benchmark, before, answers)))
    return results


def _current(answers: Sequence[TaskAnswers], score: Score) -> list[TaskAnswers]:
    """The answers that a score was made of: of its tasks, with its number of samples."""
    whole = [
        one for one in answers if one.greedy or len(one.answers) == len(score.rewards.get(one.task_id, []))
    ]
    found = joined([one for one in whole if one.start == 0]) | {
        key: one
        for key, one in joined(answers).items()
        if len(one.answers) == len(score.rewards.get(one.task_id, []))
    }
    drawn = {task for task, greedy in found if not greedy}
    return list(found.values()) if drawn == score.rewards.keys() else []
