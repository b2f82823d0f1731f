"""On-policy GRPO: the loop of every stage that learns from rewards (IF, multi-domain, long-context, code,
SWE and, with another grader and a KL term, RLHF). [C2 §4.1.2]

[C2] Nemotron-Cascade 2 (arXiv 2603.19220).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import PreTrainedModel

from kascade.learning.advantages import GroupSignal, group_signal
from kascade.learning.buffer import Batch
from kascade.learning.losses import constant_weights, per_sample_weights, per_token_weights
from kascade.learning.objectives import PolicyGradient
from kascade.learning.scoring import score_examples
from kascade.learning.trainer import Example, Trainer
from kascade.models.logprobs import token_logprobs
from kascade.recipe.schema import RLHFStage, RLStage
from kascade.stages.draws import Draws
from kascade.stages.job import Job, Policy, StepMetrics, TaskSource, merge, stage_trainer
from kascade.stages.rollouts import (
    Grader,
    Group,
    answer,
    grade,
    grade_by_environment,
    limit_check,
    rollout_metrics,
    rollout_seed,
    sampling_params,
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Groups drawn in one step: all of them, and the usable ones with what they teach."""

    groups: list[Group]
    usable: list[tuple[Group, GroupSignal]]


def train_grpo(
    policy: Policy,
    tasks: TaskSource,
    part: RLStage | RLHFStage,
    job: Job,
    *,
    grader: Grader = grade_by_environment,
    observe: Callable[[Sequence[Group]], dict[str, float]] = rollout_metrics,
    reference: PreTrainedModel | None = None,
    trainer: Trainer | None = None,
) -> None:
    """Train the policy in place. With one update a rollout batch every ratio is 1; with more, the batch is in
    the training state, so that an interrupted stage goes on with it, and ratios are clipped.

    With asynchronous workers the next batch is sampled meanwhile: by weights one update older, for which the
    loss is corrected. trainer: None: one of this process.

    observe: the step's metrics from its groups. reference: whom the KL penalty keeps close to; needed where
    grpo.kl_coefficient > 0. Raises TrainingStopped when a limit of the recipe is passed.
    """
    if part.grpo.kl_coefficient > 0 and reference is None:
        raise ValueError("a KL coefficient needs a reference model")
    trainer = trainer or stage_trainer(policy, part)
    rule, sampling, uses = part.grpo, part.sampling, part.grpo.updates_per_batch
    if part.workers.asynchronous:
        rule = rule.model_copy(update={"correction": part.workers.correction})
    objective = PolicyGradient(sampling.temperature, rule, sampling.top_k, sampling.top_p)
    draws = Draws(partial(draw_batch, policy, tasks, part, job, grader=grader), part)

    def make_batch(number: int, drawn: Drawn) -> Batch:
        seen = observe(drawn.groups) | {"usable_groups": float(len(drawn.usable))}
        if len(drawn.usable) < part.grpo.min_usable_groups:
            return Batch(number, [], seen)
        examples = policy_gradient_examples(drawn.usable, part)
        with job.clock.section("teachers"):
            if reference is not None:
                examples = with_scores("reference_logprobs", reference, examples, part, policy.pad_id)
            if uses > 1:
                examples = with_scores("old_logprobs", policy.model, examples, part, policy.pad_id)
        return Batch(number, examples, seen)

    def take_step(step: int) -> StepMetrics:
        number = step // uses
        held = Batch.from_tensors(job.rollouts) if job.rollouts else None
        if held is not None and held.number == number:
            return learn(step, held)
        with draws.of(number) as drawn:
            return learn(step, make_batch(number, drawn))

    def learn(step: int, batch: Batch) -> StepMetrics:
        job.rollouts.clear()
        if (step + 1) % uses:
            job.rollouts.update(batch.tensors())
        check = limit_check(step, numbers(batch.metrics), part)
        if not batch.examples:
            check({})
            usable, needed = int(batch.metrics["usable_groups"]), part.grpo.min_usable_groups
            what = (
                f"{usable} usable groups, {needed} needed" if usable < needed else "no advantage in any group"
            )
            return merge(batch.metrics, {"note": f"update skipped: {what}"})
        with job.clock.section("training"):
            learnt = trainer.update(step, batch.examples, objective, check=check)
        return merge(batch.metrics, learnt)

    job.run_steps(policy, trainer, part, take_step)


def numbers(metrics: Mapping[str, float | str]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not isinstance(value, str)}


def draw_batch(
    policy: Policy, tasks: TaskSource, part: RLStage | RLHFStage, job: Job, *, step: int, grader: Grader
) -> Drawn:
    """Sample and grade a step's prompts; draw further batches while filtering leaves too few groups.

    [C2 §4.2; DAPO §3.2, arXiv 2503.14476]: at most grpo.max_generation_batches, until prompts_per_step
    groups are usable; what is more than that is left out.
    """
    batch = Drawn([], [])
    for extra in range(part.grpo.max_generation_batches):
        number = step * part.grpo.max_generation_batches + extra
        answered = answer(
            policy,
            tasks.draw(number, part.prompts_per_step),
            sampling_params(part.sampling),
            num_samples=part.rollouts_per_prompt,
            seed_of=partial(rollout_seed, job, number),
            clock=job.clock,
        )
        for group in grade(answered, grader, job.clock):
            signal = group_signal(group.rewards, group.graded, group.truncated, part.grpo)
            batch.groups.append(group)
            if signal.usable and len(batch.usable) < part.prompts_per_step:
                batch.usable.append((group, signal))
        if len(batch.usable) == part.prompts_per_step:
            break
    return batch


def policy_gradient_examples(
    usable: Sequence[tuple[Group, GroupSignal]], part: RLStage | RLHFStage
) -> list[Example]:
    """Rollouts that enter the loss, with advantages and weights under the stage's aggregation.

    Those whose advantage is 0 count in the weights, but are not computed where nothing else acts on them.
    """
    chosen = [
        (group.answered.prompt_ids, sample, float(signal.advantages[row]))
        for group, signal in usable
        for row, sample in enumerate(group.answered.samples)
        if signal.in_loss[row]
    ]
    lengths = [len(sample.logprobs) for _, sample, _ in chosen]
    weights = batch_weights(lengths, part)
    return [
        Example(
            token_ids=[*prompt_ids, *sample.token_ids],
            scored=[False] * len(prompt_ids) + sample.scored,
            columns={
                "weights": torch.full((length,), weight),
                "advantages": torch.full((length,), advantage),
                "sampler_logprobs": torch.tensor(sample.logprobs),
                "sequence": torch.full((length,), row),
            },
            routing=sample.routing,
        )
        for row, ((prompt_ids, sample, advantage), length, weight) in enumerate(
            zip(chosen, lengths, weights, strict=True)
        )
        if advantage != 0 or part.grpo.kl_coefficient > 0
    ]


def batch_weights(lengths: Sequence[int], part: RLStage | RLHFStage) -> list[float]:
    """Weight of a token in each rollout of the batch, as grpo.aggregation says."""
    if part.grpo.aggregation == "constant":
        return constant_weights(lengths, part.sampling.max_new_tokens)
    return (per_sample_weights if part.grpo.aggregation == "sample" else per_token_weights)(lengths)


def with_scores(
    column: str,
    model: PreTrainedModel,
    examples: Sequence[Example],
    part: RLStage | RLHFStage,
    pad_id: int,
) -> list[Example]:
    """The examples with another model's log-probabilities of their scored tokens, as `column`."""
    sampling = part.sampling
    scores = score_examples(
        model,
        examples,
        lambda model, batch: (
            token_logprobs(
                model, batch, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p
            ).logprobs
        ),
        micro_batch_tokens=part.micro_batch_tokens,
        pad_id=pad_id,
    )
    return [
        replace(example, columns={**example.columns, column: values})
        for example, values in zip(examples, scores, strict=True)
    ]
