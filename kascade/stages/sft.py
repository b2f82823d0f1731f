"""Supervised fine-tuning on reference answers. [C2 §3; Nemotron 3 Super, SFT stages 1 and 2]"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from kascade.environments.base import Task
from kascade.learning.losses import per_sample_weights, per_token_weights
from kascade.learning.objectives import Supervised
from kascade.learning.trainer import Example
from kascade.recipe.schema import SFTStage
from kascade.stages.job import Job, Policy, StepMetrics, TaskSource, merge, stage_trainer

WEIGHTS = {"per_token": per_token_weights, "per_sample": per_sample_weights}


def train_sft(policy: Policy, tasks: TaskSource, part: SFTStage, job: Job) -> None:
    """Train the policy in place on the answers of `tasks` alone (prompts are not scored).

    Tasks without a reference answer and sequences longer than max_tokens are left out and counted.
    """
    trainer = stage_trainer(policy, part)

    def take_step(step: int) -> StepMetrics:
        with job.clock.section("training"):
            drawn = tasks.draw(step, part.batch_size)
            demonstrated = [task for task in drawn if task.reference is not None]
            tokens = [
                tokenize(policy, task, text)
                for task, text in demonstrations(demonstrated, part.noise, job, step)
            ]
            kept = [
                (prompt, answer) for prompt, answer in tokens if len(prompt) + len(answer) <= part.max_tokens
            ]
            counts = {
                "no_reference": float(len(drawn) - len(demonstrated)),
                "too_long": float(len(tokens) - len(kept)),
            }
            if not kept:
                return merge(counts, {"note": "update skipped: no sequence to learn from"})
            learnt = trainer.update(step, supervised_examples(kept, part), Supervised())
        return merge(counts, {"response_tokens": learnt["tokens"] / len(kept)}, learnt)

    job.run_steps(policy, trainer, part, take_step)


def demonstrations(tasks: Sequence[Task], noise: float, job: Job, step: int) -> list[tuple[Task, str]]:
    """Each task with its answer; a share `noise` has the answer of another task of the batch instead."""
    shown = [(task, task.reference) for task in tasks if task.reference is not None]
    result = []
    for task, reference in shown:
        rng = random.Random(job.draw_seed("noise", step, task.id))
        others = [
            text for other, text in shown if other.environment == task.environment and text != reference
        ]
        wrong = others and rng.random() < noise
        result.append((task, rng.choice(others) if wrong else reference))
    return result


def tokenize(policy: Policy, task: Task, text: str) -> tuple[list[int], list[int]]:
    """Prompt and answer as token ids, each built for itself and never joined as text."""
    return policy.chat.prompt_ids(task), policy.chat.completion_ids(task, text)


def supervised_examples(tokens: Sequence[tuple[list[int], list[int]]], part: SFTStage) -> list[Example]:
    weights = WEIGHTS[part.loss]([len(answer) for _, answer in tokens])
    return [
        Example(
            token_ids=[*prompt, *answer],
            scored=[False] * len(prompt) + [True] * len(answer),
            columns={"weights": torch.full((len(answer),), weight)},
        )
        for (prompt, answer), weight in zip(tokens, weights, strict=True)
    ]
