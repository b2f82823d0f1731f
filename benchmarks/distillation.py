"""MOPD's step beside our own GRPO update on the same rollouts: no peer has both."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from transformers import PreTrainedModel

from benchmarks.measure import Measurement, compare
from benchmarks.rollout import make_model, spread_lengths
from benchmarks.training import (
    MICRO_BATCH_TOKENS,
    PROMPTS,
    SAMPLES,
    UNIT,
    Rows,
    example,
    ids,
    rounds_of,
    trainer_of,
)
from kascade.learning.example import Example, Objective
from kascade.learning.losses import per_sample_weights
from kascade.learning.objectives import FullDistillation, PolicyGradient
from kascade.learning.scoring import score_examples
from kascade.learning.trainer import Trainer
from kascade.models.logprobs import scored_hidden


def mopd_qwen3(quick: bool) -> list[Measurement]:
    return distillation("mini-qwen3", rounds_of(quick))


def mopd_nemotron_h(quick: bool) -> list[Measurement]:
    return distillation("mini-nemotron-h", rounds_of(quick))


def distillation(name: str, rounds: int) -> list[Measurement]:
    """Teacher's forward and the update with the whole vocabulary's KL, against a GRPO update."""
    rng = random.Random(0)
    lengths = spread_lengths(PROMPTS * SAMPLES, (16, 128))
    rows: Rows = []
    for _ in range(PROMPTS):
        prompt = ids(rng, 40)
        rows += [(prompt, ids(rng, lengths[len(rows) + k])) for k in range(SAMPLES)]
    examples = [
        example(prompt, answer, weight, rng.gauss(0, 1))
        for (prompt, answer), weight in zip(rows, per_sample_weights(lengths), strict=True)
    ]
    teacher = make_model(name).requires_grad_(False)
    objective: Objective = FullDistillation(1.0, 0.5, 2.0, [teacher.get_output_embeddings()])
    student, policy = trainer_of(make_model(name)), trainer_of(make_model(name))
    own, other = compare(
        partial(distil, student, teacher, examples, objective),
        lambda: policy.update(0, examples, PolicyGradient(1.0)),
        rounds,
    )
    tokens = sum(lengths)
    return [Measurement(f"MOPD step, {name}", tokens / own, UNIT, tokens / other, "our own GRPO update")]


def distil(
    trainer: Trainer, teacher: PreTrainedModel, examples: Sequence[Example], objective: Objective
) -> None:
    states = score_examples(teacher, examples, scored_hidden, micro_batch_tokens=MICRO_BATCH_TOKENS, pad_id=0)
    taught = [
        replace(
            one,
            columns={
                **one.columns, "teacher_hidden": hidden, "teacher": torch.zeros(len(hidden), dtype=torch.long)
            },
        )
        for one, hidden in zip(examples, states, strict=True)
    ]  # fmt: skip
    trainer.update(0, taught, objective)
