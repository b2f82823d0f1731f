"""Supervised fine-tuning on reference answers. [C2 §3; Nemotron 3 Super, SFT stages 1 and 2]"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import torch

from kascade.learning.example import Example
from kascade.learning.limits import check_limits
from kascade.learning.losses import per_sample_weights, per_token_weights
from kascade.learning.objectives import Supervised
from kascade.models.adapters import dropping
from kascade.recipe.schema import SFTStage
from kascade.rollout.policy import Policy
from kascade.stages.training import StepMetrics, Training, merge
from kascade.task import Task

WEIGHTS = {"per_token": per_token_weights, "per_sample": per_sample_weights}


def train_sft(training: Training[SFTStage]) -> None:
    """Train the policy in place on the answers of `tasks` alone (prompts are not scored).

    Tasks without a reference answer and sequences longer than max_tokens are left out and counted. Raises
    TrainingStopped when a limit of the recipe is passed.
    """
    policy, part = training.policy, training.stage

    def take_step(step: int) -> StepMetrics:
        with training.clock.section("training"):
            drawn = training.tasks.draw(step, part.batch_size)
            demonstrated = [task for task in drawn if task.reference is not None]
            tokens = [
                tokenize(policy, task, text) for task, text in demonstrations(demonstrated, training, step)
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
            examples = supervised_examples(kept, part)
            with dropping(policy.model, training.draw_seed("dropout", step)):
                check = partial(check_limits, step, limits=part.limits)
                learnt = training.make_trainer().update(step, examples, Supervised(), check)
        return merge(counts, {"response_tokens": learnt["tokens"] / len(kept)}, learnt)

    training.run_steps(take_step)


def demonstrations(tasks: Sequence[Task], training: Training[SFTStage], step: int) -> list[tuple[Task, str]]:
    """Each task with its answer; a share `noise` has another task's answer, of the same batch."""
    shown = [(task, task.reference) for task in tasks if task.reference is not None]
    result = []
    for task, reference in shown:
        rng = random.Random(training.draw_seed("noise", step, task.id))
        others = [
            text for other, text in shown if other.environment == task.environment and text != reference
        ]
        wrong = others and rng.random() < training.stage.noise
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
