"""Multi-domain on-policy distillation: the student answers, each domain's teacher scores. [C2 §4.4]

[C2] Nemotron-Cascade 2 (arXiv 2603.19220).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from kascade.errors import Fault, UserError
from kascade.learning.example import Example, Objective
from kascade.learning.group import GroupHead, Scored
from kascade.learning.losses import per_sample_weights
from kascade.learning.objectives import FullDistillation, SampledDistillation
from kascade.learning.scoring import ScoreHidden, ScoreLogprobs, score_examples
from kascade.recipe.schema import MOPDStage
from kascade.rollout.answers import Answered, answer, sampling_params
from kascade.stages.draws import Draws
from kascade.stages.gaps import leading_domains
from kascade.stages.rollouts import limit_check, rollout_seed
from kascade.stages.tasks import training_pool
from kascade.stages.training import StepMetrics, Teachers, Training, merge
from kascade.task import switch_of, switch_shares


def train_mopd(training: Training[MOPDStage]) -> None:
    """Train the policy in place towards its teachers, one update a rollout batch; no reward, no baseline.

    Domains whose teacher leads by too little are left out. With asynchronous workers batches are one update
    older, which the importance range corrects. Raises UserError for a domain without a teacher,
    TrainingStopped when a limit of the recipe is passed.
    """
    part = training.stage
    data = leading_domains(training)
    if not data:
        training.skip(f"no update: no teacher leads by min_teacher_gap {part.min_teacher_gap}")
        return
    if data != part.data:
        training.tasks = training_pool(data, training.seed, training.name)
    objective = make_objective(part, distinct(training.teachers))
    draws = Draws(partial(draw_answers, training), part, training.policy)

    def take_step(step: int) -> StepMetrics:
        with draws.of(step) as answered:
            return learn(step, answered)

    def learn(step: int, answered: Sequence[Answered]) -> StepMetrics:
        with training.clock.section("teachers"):
            examples = taught_examples(answered, training.teachers, part, training.policy.pad_id)
        seen = response_metrics(answered)
        with training.clock.section("training"):
            check = limit_check(step, seen, part, whole_distributions=True)
            learnt = training.make_trainer().update(step, examples, objective, check=check)
        return merge(seen, learnt)

    training.run_steps(take_step)


def draw_answers(training: Training[MOPDStage], *, step: int) -> list[Answered]:
    """The policy's answers to a step's prompts."""
    part = training.stage
    return answer(
        training.policy,
        training.tasks.draw(step, part.prompts_per_step),
        sampling_params(part.sampling),
        num_samples=part.rollouts_per_prompt,
        seed_of=partial(rollout_seed, training, step),
        clock=training.clock,
    )


def distinct(teachers: Teachers) -> list[Scored]:
    """Each teacher once, in order of first use."""
    return list({id(model): model for model in teachers.values()}.values())


def make_objective(part: MOPDStage, models: Sequence[Scored]) -> Objective:
    rule, temperature = part.importance, part.sampling.temperature
    if not part.full_vocabulary:
        return SampledDistillation(temperature, rule.low, rule.high)
    heads: list[nn.Module | GroupHead] = [model.get_output_embeddings() for model in models]
    return FullDistillation(temperature, rule.low, rule.high, heads)


def response_metrics(answered: Sequence[Answered]) -> dict[str, float]:
    samples = [sample for one in answered for sample in one.samples]
    return {
        "response_tokens": sum(len(sample.logprobs) for sample in samples) / len(samples),
        "truncated": sum(sample.finish_reason == "length" for sample in samples) / len(samples),
        **switch_shares([does for one in answered for does in switch_of(one.task, one.answers)]),
    }


def taught_examples(
    answered: Sequence[Answered], teachers: Teachers, part: MOPDStage, pad_id: int
) -> list[Example]:
    """One example a rollout with its teacher's scores; mean over tokens, then over answers. [C2 Eq. 4]"""
    rollouts = [(one, sample) for one in answered for sample in one.samples]
    weights = per_sample_weights([len(sample.logprobs) for _, sample in rollouts])
    examples = [
        Example(
            token_ids=[*one.prompt_ids, *sample.token_ids],
            scored=[False] * len(one.prompt_ids) + sample.scored,
            columns={
                "weights": torch.full((len(sample.logprobs),), weight),
                "sampler_logprobs": torch.tensor(sample.logprobs),
            },
            routing=sample.routing,
        )
        for (one, sample), weight in zip(rollouts, weights, strict=True)
    ]
    models = distinct(teachers)
    index = {id(model): number for number, model in enumerate(models)}
    chosen = [index[id(teacher_of(one, teachers))] for one, _ in rollouts]
    for number, model in enumerate(models):
        rows = [row for row, teacher in enumerate(chosen) if teacher == number]
        for row, columns in zip(
            rows, _teach(model, number, [examples[r] for r in rows], part, pad_id), strict=True
        ):
            examples[row] = replace(examples[row], columns={**examples[row].columns, **columns})
    return examples


def teacher_of(answered: Answered, teachers: Teachers) -> Scored:
    domain = answered.task.domain
    if domain not in teachers:
        raise UserError(Fault("stage data", f"domain {domain!r} has no teacher", ", ".join(teachers)))
    return teachers[domain]


def _teach(
    model: Scored, number: int, examples: Sequence[Example], part: MOPDStage, pad_id: int
) -> list[dict[str, Tensor]]:
    """The teacher's columns of each example."""

    score = ScoreHidden() if part.full_vocabulary else ScoreLogprobs(part.sampling.temperature)
    values = score_examples(model, examples, score, micro_batch_tokens=part.micro_batch_tokens, pad_id=pad_id)
    if part.full_vocabulary:
        return [{"teacher_hidden": v, "teacher": torch.full((len(v),), number)} for v in values]
    return [{"teacher_logprobs": v} for v in values]
