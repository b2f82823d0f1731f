"""On-policy GRPO: the loop of every stage that learns from rewards (IF, multi-domain, long-context, code,
SWE and, with another grader and a KL term, RLHF). [C2 §4.1.2]

[C2] Nemotron-Cascade 2 (arXiv 2603.19220).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import PreTrainedModel

from kascade.learning.advantages import GroupSignal, group_signal
from kascade.learning.losses import per_token_weights
from kascade.learning.objectives import PolicyGradient
from kascade.learning.scoring import score_examples
from kascade.learning.trainer import Example, Trainer
from kascade.models.logprobs import token_logprobs
from kascade.recipe.schema import RLHFStage, RLStage
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
class Batch:
    """Groups drawn in one step: all of them, and the usable ones with what they teach."""

    drawn: list[Group]
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
    """Train the policy in place: one update a rollout batch, so that every ratio is 1.

    With asynchronous workers the next batch is sampled meanwhile: by weights one update older, for which the
    loss is corrected. trainer: None: one of this process.

    observe: the step's metrics from its groups. reference: whom the KL penalty keeps close to; needed where
    grpo.kl_coefficient > 0. Raises TrainingStopped when a limit of the recipe is passed.
    """
    if part.grpo.kl_coefficient > 0 and reference is None:
        raise ValueError("a KL coefficient needs a reference model")
    trainer = trainer or stage_trainer(policy, part)
    ahead = isinstance(part, RLStage) and part.workers.asynchronous
    correction = part.workers.correction if isinstance(part, RLStage) and ahead else None
    objective = PolicyGradient(part.sampling.temperature, part.grpo.kl_coefficient, correction)
    draws = Draws(partial(draw_batch, policy, tasks, part, job, grader=grader), part, ahead=ahead)

    def take_step(step: int) -> StepMetrics:
        with draws.of(step) as batch:
            return learn(step, batch)

    def learn(step: int, batch: Batch) -> StepMetrics:
        seen = observe(batch.drawn) | {"usable_groups": float(len(batch.usable))}
        if len(batch.usable) < part.grpo.min_usable_groups:
            limit_check(step, seen, part)({})
            note = f"update skipped: {len(batch.usable)} usable groups, {part.grpo.min_usable_groups} needed"
            return merge(seen, {"note": note})
        examples = policy_gradient_examples(batch.usable)
        if reference is not None:
            with job.clock.section("teachers"):
                examples = with_reference(reference, examples, part, policy.pad_id)
        with job.clock.section("training"):
            learnt = trainer.update(
                step,
                examples,
                objective,
                check=limit_check(step, seen, part),
            )
        return merge(seen, learnt)

    job.run_steps(policy, trainer, steps=part.steps, save_every=part.save_every, take_step=take_step)


class Draws:
    """The batches of the steps; with `ahead`, the next one is drawn while the present one is learnt.

    Not across a saved state, so that a run that was interrupted draws what it would have drawn.
    """

    def __init__(self, draw: Callable[..., Batch], part: RLStage | RLHFStage, *, ahead: bool) -> None:
        self._draw, self._part, self._ahead = draw, part, ahead
        self._waiting: tuple[int, Future[Batch]] | None = None

    @contextmanager
    def of(self, step: int) -> Iterator[Batch]:
        """The batch of a step, to learn within the block; when it is left, the next one is drawn, too."""
        kept, self._waiting = self._waiting, None
        batch = kept[1].result() if kept and kept[0] == step else self._draw(step=step)
        following = step + 1
        if not self._ahead or following >= self._part.steps or following % self._part.save_every == 0:
            yield batch
            return
        with ThreadPoolExecutor(1) as thread:  # leaving it waits: weights change between batches only
            self._waiting = (following, thread.submit(self._draw, step=following))
            yield batch


def draw_batch(
    policy: Policy, tasks: TaskSource, part: RLStage | RLHFStage, job: Job, *, step: int, grader: Grader
) -> Batch:
    """Sample and grade a step's prompts; draw further batches while filtering leaves too few groups.

    [C2 §4.2; DAPO §3.2, arXiv 2503.14476]: at most grpo.max_generation_batches, until prompts_per_step
    groups are usable; what is more than that is left out.
    """
    batch = Batch([], [])
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
            batch.drawn.append(group)
            if signal.usable and len(batch.usable) < part.prompts_per_step:
                batch.usable.append((group, signal))
        if len(batch.usable) == part.prompts_per_step:
            break
    return batch


def policy_gradient_examples(usable: Sequence[tuple[Group, GroupSignal]]) -> list[Example]:
    """Rollouts that enter the loss, with advantages and the token-level weights of the batch."""
    chosen = [
        (group.answered.prompt_ids, sample, float(signal.advantages[row]))
        for group, signal in usable
        for row, sample in enumerate(group.answered.samples)
        if signal.in_loss[row]
    ]
    weights = per_token_weights([len(sample.logprobs) for _, sample, _ in chosen])
    return [
        Example(
            token_ids=[*prompt_ids, *sample.token_ids],
            scored=[False] * len(prompt_ids) + sample.scored,
            columns={
                "weights": torch.full((len(sample.logprobs),), weight),
                "advantages": torch.full((len(sample.logprobs),), advantage),
                "sampler_logprobs": torch.tensor(sample.logprobs),
            },
            routing=sample.routing,
        )
        for (prompt_ids, sample, advantage), weight in zip(chosen, weights, strict=True)
    ]


def with_reference(
    reference: PreTrainedModel, examples: Sequence[Example], part: RLStage | RLHFStage, pad_id: int
) -> list[Example]:
    """The examples with the reference's log-probabilities of their scored tokens."""
    scores = score_examples(
        reference,
        examples,
        lambda model, batch: token_logprobs(model, batch, temperature=part.sampling.temperature).logprobs,
        micro_batch_tokens=part.micro_batch_tokens,
        pad_id=pad_id,
    )
    return [
        replace(example, columns={**example.columns, "reference_logprobs": values})
        for example, values in zip(examples, scores, strict=True)
    ]
