"""On-policy GRPO: the loop of every stage that learns from rewards (IF, multi-domain, long-context, code,
SWE and, with another grader and a KL term, RLHF). [C2 §4.1.2]

[C2] Nemotron-Cascade 2 (arXiv 2603.19220), [LN] Llama-Nemotron (arXiv 2505.00949).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from kascade.learning.advantages import GroupSignal, group_signal
from kascade.learning.buffer import Batch
from kascade.learning.example import Example
from kascade.learning.group import Reference
from kascade.learning.losses import constant_weights, per_sample_weights, per_token_weights
from kascade.learning.objectives import PolicyGradient
from kascade.learning.scoring import ScoreLogprobs, score_examples
from kascade.recipe.schema import GradedStage
from kascade.rollout.answers import Grader, Group, answer, grade, grade_by_environment, sampling_params
from kascade.stages.draws import Draws
from kascade.stages.rollouts import limit_check, rollout_metrics, rollout_seed
from kascade.stages.teachers import frozen_start
from kascade.stages.training import StepMetrics, Training, merge
from kascade.task import OBEYED


@dataclass(frozen=True, slots=True)
class Drawn:
    """Groups drawn in one step: all of them, and the usable ones with what they teach."""

    groups: list[Group]
    usable: list[tuple[Group, GroupSignal]]


def train_grpo(
    training: Training[GradedStage],
    *,
    grader: Grader = grade_by_environment,
    observe: Callable[[Sequence[Group]], dict[str, float]] = rollout_metrics,
    reference: Reference | None = None,
) -> None:
    """Train the policy in place. With one update a rollout batch every ratio is 1; with more, the batch is in
    the training state, so that an interrupted stage continues with it, and ratios are clipped.

    With asynchronous workers the next batch is sampled meanwhile: by weights one update older, for which the
    loss is corrected.

    observe: the step's metrics from its groups. reference: whom the KL penalty keeps close to, where there is
    one; None: the stage's start, so the policy must hold it. Raises TrainingStopped when a limit of the
    recipe is passed.
    """
    part = training.stage
    if part.grpo.kl_coefficient > 0 and reference is None:
        rests = part.frozen_weights == "host"
        reference = frozen_start(training.policy, training.trainer, rests=rests)
    draws = Draws(partial(draw_batch, training, grader=grader), part, training.policy)
    loop = _Loop(training, observe, reference, draws)
    training.run_steps(loop.take_step)


@dataclass(frozen=True, slots=True)
class _Loop:
    """The steps of one training."""

    training: Training[GradedStage]
    observe: Callable[[Sequence[Group]], dict[str, float]]
    reference: Reference | None
    draws: Draws[Drawn]

    def take_step(self, step: int) -> StepMetrics:
        """Draw a batch, or find the one that is used again, and learn from it."""
        number = step // self.training.stage.grpo.updates_per_batch
        rollouts = self.training.rollouts
        held = Batch.from_tensors(rollouts) if rollouts else None
        if held is not None and held.number == number:
            return self._learn(step, held)
        with self.draws.of(number) as drawn:
            return self._learn(step, self._make_batch(number, drawn))

    def _make_batch(self, number: int, drawn: Drawn) -> Batch:
        training, part = self.training, self.training.stage
        seen = self.observe(drawn.groups) | {"usable_groups": float(len(drawn.usable))}
        if len(drawn.usable) < part.grpo.min_usable_groups:
            return Batch(number, [], seen)
        examples, policy = policy_gradient_examples(drawn.usable, part), training.policy
        with training.clock.section("teachers"):
            if self.reference is not None:
                examples = with_scores("reference_logprobs", self.reference, examples, part, policy.pad_id)
            if part.grpo.updates_per_batch > 1:
                own = training.make_trainer().scored
                examples = with_scores("old_logprobs", own, examples, part, policy.pad_id)
        return Batch(number, examples, seen)

    def _learn(self, step: int, batch: Batch) -> StepMetrics:
        training, rule = self.training, self.training.stage.grpo
        training.rollouts.clear()
        if (step + 1) % rule.updates_per_batch:  # kept in the state: a resumed stage learns from it again
            training.rollouts.update(batch.tensors())
        check = limit_check(step, numbers(batch.metrics), training.stage)
        if not batch.examples:
            check({})
            usable, needed = int(batch.metrics["usable_groups"]), rule.min_usable_groups
            too_few = f"{usable} usable groups, {needed} needed"
            what = too_few if usable < needed else "no advantage in any group"
            return merge(batch.metrics, {"note": f"update skipped: {what}"})
        with training.clock.section("training"):
            objective = policy_gradient(training.stage)
            learnt = training.make_trainer().update(step, batch.examples, objective, check=check)
        return merge(batch.metrics, learnt)


def policy_gradient(part: GradedStage) -> PolicyGradient:
    """The stage's objective; batches of asynchronous workers are one update old, which is corrected for."""
    rule, sampling = part.grpo, part.sampling
    if part.workers.asynchronous:
        rule = rule.model_copy(update={"correction": part.workers.correction})
    return PolicyGradient(sampling.temperature, rule, sampling.top_k, sampling.top_p)


def numbers(metrics: Mapping[str, float | str]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not isinstance(value, str)}


def draw_batch(training: Training[GradedStage], *, step: int, grader: Grader) -> Drawn:
    """Sample and grade a step's prompts; draw further batches while filtering leaves too few groups.

    [C2 §4.2; DAPO §3.2, arXiv 2503.14476]: at most grpo.max_generation_batches, until prompts_per_step
    groups are usable; what is more than that is left out.
    """
    batch, part = Drawn([], []), training.stage
    for extra in range(part.grpo.max_generation_batches):
        number = step * part.grpo.max_generation_batches + extra
        answered = answer(
            training.policy,
            training.tasks.draw(number, part.prompts_per_step),
            sampling_params(part.sampling),
            num_samples=part.rollouts_per_prompt,
            seed_of=partial(rollout_seed, training, number),
            clock=training.clock,
        )
        graded = grade(answered, grader, training.clock)
        for group in map(obedient, graded) if part.grpo.obey_switch else graded:
            signal = group_signal(group.rewards, group.graded, group.truncated, part.grpo)
            batch.groups.append(group)
            if signal.usable and len(batch.usable) < part.prompts_per_step:
                batch.usable.append((group, signal))
        if len(batch.usable) == part.prompts_per_step:
            break
    return batch


def obedient(group: Group) -> Group:
    """The group with reward 0 for answers that do not think as their prompt asks. [LN §5.1]"""
    grades = [
        replace(one, reward=0.0) if one.error is None and one.components.get(OBEYED) == 0 else one
        for one in group.grades
    ]
    return Group(group.answered, tuple(grades))


def policy_gradient_examples(usable: Sequence[tuple[Group, GroupSignal]], part: GradedStage) -> list[Example]:
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


def batch_weights(lengths: Sequence[int], part: GradedStage) -> list[float]:
    """Weight of a token in each rollout of the batch, as grpo.aggregation says."""
    if part.grpo.aggregation == "constant":
        return constant_weights(lengths, part.sampling.max_new_tokens)
    return (per_sample_weights if part.grpo.aggregation == "sample" else per_token_weights)(lengths)


def with_scores(
    column: str,
    model: Reference,
    examples: Sequence[Example],
    part: GradedStage,
    pad_id: int,
) -> list[Example]:
    """The examples with another model's log-probabilities of their scored tokens, as `column`."""
    sampling = part.sampling
    scores = score_examples(
        model,
        examples,
        ScoreLogprobs(sampling.temperature, sampling.top_k, sampling.top_p),
        micro_batch_tokens=part.micro_batch_tokens,
        pad_id=pad_id,
    )
    return [
        replace(example, columns={**example.columns, column: values})
        for example, values in zip(examples, scores, strict=True)
    ]
