"""Direct preference optimisation: the chosen answer up, the rejected one down, seen from the stage's start.

[DPO] Rafailov et al., arXiv 2305.18290. [T3] Tülu 3, arXiv 2411.15124 (length normalisation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from kascade.learning import losses
from kascade.learning.example import Columns, Example, Terms
from kascade.learning.group import Reference
from kascade.learning.limits import check_limits
from kascade.learning.scoring import score_examples
from kascade.models.logprobs import TokenBatch, token_logprobs
from kascade.recipe.dpo import DPOStage
from kascade.stages.teachers import frozen_start
from kascade.stages.training import StepMetrics, Training, merge
from kascade.task import Task, preference_pair


@dataclass(frozen=True, slots=True)
class Margins:
    """Of pairs [P]: the implicit rewards beta log(pi / reference) of both answers, and the loss."""

    chosen: Tensor
    rejected: Tensor

    @property
    def margin(self) -> Tensor:
        return self.chosen - self.rejected

    @property
    def loss(self) -> Tensor:
        """Mean -log sigmoid(margin) over pairs. [DPO Eq. 7]"""
        return -functional.logsigmoid(self.margin).mean()

    def metrics(self) -> dict[str, float]:
        """Curves of a step: the loss, the rewards, and how often the chosen answer has the higher one."""
        return {
            "loss": float(self.loss),
            "chosen_reward": float(self.chosen.mean()),
            "rejected_reward": float(self.rejected.mean()),
            "margin": float(self.margin.mean()),
            "accuracy": float((self.margin > 0).float().mean()),
        }


@dataclass(frozen=True, slots=True)
class PairGradient:
    """DPO as a weighted sum of log-probabilities, whose gradient is that of the loss. [DPO §4, gradient]

    The loss ties both answers of a pair together, but micro-batches may cut between them. Its gradient does
    not: d loss / d log pi of a token is -+ beta sigmoid(-margin) / P, which is a number once the margins are
    known. They are measured before the update, so that a batch is cut as any other.
    """

    def __call__(self, model: PreTrainedModel, batch: TokenBatch, columns: Columns) -> Terms:
        scores = token_logprobs(model, batch)
        loss = losses.policy_gradient_loss(scores.logprobs, columns["advantages"], columns["weights"])
        return Terms(loss, {"entropy": scores.entropy})


def train_dpo(training: Training[DPOStage], reference: Reference | None = None) -> None:
    """Train the policy in place on the preference pairs of its tasks. reference: None: the stage's start.

    Pairs that a task does not have, or that are too long, are left out and counted. Raises TrainingStopped
    when a limit of the recipe is passed.
    """
    part, policy = training.stage, training.policy
    reference = reference or frozen_start(policy, rests=part.frozen_weights == "host")

    def take_step(step: int) -> StepMetrics:
        drawn = training.tasks.draw(step, part.pairs_per_step)
        examples, counts = pair_examples(training, drawn)
        if not examples:
            return merge(counts, {"note": "update skipped: no preference pair to learn from"})
        with training.clock.section("teachers"):
            against = answer_scores(reference, examples, training)
            own = answer_scores(policy.model, examples, training)
        margins = pair_margins(own, against, part.beta)
        with training.clock.section("training"):
            check = partial(check_limits, step, limits=part.limits)
            pairs = weighted(examples, margins, part)
            learnt = training.make_trainer().update(step, pairs, PairGradient(), check)
        return merge(counts, learnt, margins.metrics())

    training.run_steps(take_step)


def pair_examples(
    training: Training[DPOStage], tasks: Sequence[Task]
) -> tuple[list[Example], dict[str, float]]:
    """Two examples a pair, the chosen answer first; and how many tasks gave none."""
    chat, longest = training.policy.chat, training.stage.max_tokens
    examples: list[Example] = []
    counts = {"no_pair": 0.0, "too_long": 0.0}
    for task in tasks:
        pair, prompt = preference_pair(task), chat.prompt_ids(task)
        answers = [chat.completion_ids(task, text) for text in pair or ()]
        if not answers:
            counts["no_pair"] += 1
        elif max(map(len, answers)) + len(prompt) > longest:
            counts["too_long"] += 1
        else:
            examples += [
                Example([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))
                for answer in answers
            ]
    return examples, counts


def answer_scores(model: Reference, examples: Sequence[Example], training: Training[DPOStage]) -> Tensor:
    """Log-probability of each example's answer under a model [2P], per token where the stage says so."""
    values = score_examples(
        model,
        examples,
        lambda model, batch: token_logprobs(model, batch).logprobs,
        micro_batch_tokens=training.stage.micro_batch_tokens,
        pad_id=training.policy.pad_id,
    )
    normalized = training.stage.length_normalized
    return torch.stack([value.mean() if normalized else value.sum() for value in values])


def pair_margins(own: Tensor, against: Tensor, beta: float) -> Margins:
    """Margins from scores [2P] of the policy and of its reference, chosen and rejected in turn."""
    rewards = beta * (own - against)
    return Margins(rewards[0::2], rewards[1::2])


def weighted(examples: Sequence[Example], margins: Margins, part: DPOStage) -> list[Example]:
    """The examples with `advantages` (how fast the loss falls with a log-probability) and `weights`."""
    slopes = part.beta * torch.sigmoid(-margins.margin)
    signed = torch.stack((slopes, -slopes), dim=1).flatten()
    found = []
    for example, slope in zip(examples, signed, strict=True):
        length = sum(example.scored)
        weight = 1.0 / len(margins.chosen) / (length if part.length_normalized else 1)
        columns = {"advantages": slope.repeat(length), "weights": torch.full((length,), weight)}
        found.append(replace(example, columns=columns))
    return found
