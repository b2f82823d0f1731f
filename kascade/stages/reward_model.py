"""A learned judge: scalar reward model, Bradley-Terry on preference pairs of the policy's own answers.

[C1] Nemotron-Cascade (arXiv 2512.13607), §4.2. A judge that agrees too little with held-out preferences is
refused: in small settings policies hacked such judges instead of improving.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kascade.data.chat import ChatFormat
from kascade.data.packing import micro_batches
from kascade.errors import TrainingStopped
from kascade.learning.losses import bradley_terry_loss
from kascade.learning.masters import Masters
from kascade.learning.optimizer import build_optimizer, learning_rate, trained_parameters
from kascade.models.activations import use_activations
from kascade.models.logprobs import TokenBatch, scored_hidden
from kascade.recipe.schema import PreferenceJudge, RLHFStage
from kascade.rollout.answers import Answered, answer, sampling_params
from kascade.stages.training import Training
from kascade.task import Task, final_answer, preference_pair, visible_answer

log = logging.getLogger(__name__)
Compare = Callable[[Task, str, str], tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one task, the better one first."""

    task: Task
    chosen: str
    rejected: str


class RewardModel(nn.Module):
    """The policy's start with a linear head on the last token's hidden state.

    micro_batch_tokens: padded tokens that it computes at once, when it learns as when it judges.
    """

    def __init__(self, backbone: PreTrainedModel, pad_id: int, micro_batch_tokens: int) -> None:
        super().__init__()
        self.backbone, self.pad_id, self.micro_batch_tokens = backbone, pad_id, micro_batch_tokens
        self.head = nn.Linear(backbone.config.hidden_size, 1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Rewards [B] of token sequences."""
        # A scored token shows the hidden state before it: one more token behind the last shows the last's.
        scored = [[False] * len(ids) + [True] for ids in sequences]
        batch = TokenBatch.collate([[*ids, self.pad_id] for ids in sequences], scored, self.pad_id)
        hidden = scored_hidden(self.backbone, batch.to(self.backbone.device))
        rewards: Tensor = self.head(hidden.float()).squeeze(-1)
        return rewards

    @torch.no_grad()
    def score(self, chat: ChatFormat, task: Task, answers: Sequence[str]) -> list[float]:
        """Rewards of answers to one task; only what follows the thinking is judged. [C1 §4.2]"""
        sequences = [_sequence(chat, task, visible_answer(task, text)) for text in answers]
        rewards: dict[int, float] = {}
        for rows in micro_batches(list(map(len, sequences)), self.micro_batch_tokens):
            rewards.update(zip(rows, self([sequences[row] for row in rows]).tolist(), strict=True))
        return [rewards[row] for row in range(len(answers))]


def _sequence(chat: ChatFormat, task: Task, text: str) -> list[int]:
    return [*chat.prompt_ids(task), *chat.completion_ids(task, final_answer(text))]


def train_reward_model(training: Training[RLHFStage], compare: Compare) -> RewardModel:
    """A reward model trained on `judge.pairs` pairs sampled from the policy and judged by `compare`.

    Raises TrainingStopped when its agreement with the held-out pairs is below `judge.min_agreement`.
    """
    rule, policy = training.stage.judge, training.policy
    pairs = sample_preferences(training, compare)
    held_out = round(rule.holdout * len(pairs))
    with training.clock.section("training"):
        torch.manual_seed(training.draw_seed("reward-model") % 2**32)
        backbone = policy.whole_copy()
        use_activations(backbone, training.stage.activations)
        model = RewardModel(backbone, policy.pad_id, training.stage.micro_batch_tokens)
        _fit(model, policy.chat, pairs[held_out:], rule)
        agreement = measure_agreement(model, policy.chat, pairs[:held_out])
    log.info("reward model: agreement %.3f on %d held-out pairs", agreement, held_out)
    if not agreement >= rule.min_agreement:
        raise TrainingStopped(
            f"the reward model agrees with {agreement:.2f} of {held_out} held-out preferences, below "
            f"judge.min_agreement {rule.min_agreement}; a policy would learn its errors. To do: raise "
            "judge.pairs or judge.epochs, or set judge.kind to rule"
        )
    return model


def sample_preferences(training: Training[RLHFStage], compare: Compare) -> list[Preference]:
    """`judge.pairs` preferences in order: a row's own pair (`chosen`, `rejected`), else two answers sampled.

    Sampled answers are put in order by `compare`; ties are left out.
    """
    part = training.stage
    drawn = training.tasks.draw(0, part.judge.pairs)
    given = {index: pair for index, task in enumerate(drawn) if (pair := given_preference(task))}
    answered = answer(
        training.policy,
        [task for index, task in enumerate(drawn) if index not in given],
        sampling_params(part.sampling),
        num_samples=2,
        seed_of=lambda task: training.draw_seed("preference", task.id),
        clock=training.clock,
    )
    sampled = iter(answered)
    pairs = [given.get(index) or _judged(next(sampled), compare) for index in range(len(drawn))]
    return [pair for pair in pairs if pair is not None]


def given_preference(task: Task) -> Preference | None:
    """The preference pair of the task's row; None when it has none."""
    pair = preference_pair(task)
    return None if pair is None else Preference(task, *pair)


def _judged(one: Answered, compare: Compare) -> Preference | None:
    """Two sampled answers in order of preference; None for a tie."""
    first, second = one.answers
    ranking = compare(one.task, first, second)[2]
    if ranking == 3.5:
        return None
    return Preference(one.task, first, second) if ranking < 3.5 else Preference(one.task, second, first)


def _fit(model: RewardModel, chat: ChatFormat, pairs: Sequence[Preference], rule: PreferenceJudge) -> None:
    masters = Masters(model)
    optimizer = build_optimizer(model, rule.optimizer, masters)
    batches = [
        pairs[start : start + rule.batch_size] for start in range(0, len(pairs), rule.batch_size)
    ] * rule.epochs
    for step, batch in enumerate(batches):
        with masters.collecting():
            for part in _cut(model, chat, batch):
                chosen, rejected = (model(sequences) for sequences in zip(*part, strict=True))
                loss = bradley_terry_loss(chosen, rejected) * len(part) / len(batch)
                loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained_parameters(model, masters), rule.optimizer.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(rule.optimizer, step, len(batches))
        optimizer.step()
        masters.round_into_model()
        optimizer.zero_grad(set_to_none=True)
    model.requires_grad_(False)


def _cut(
    model: RewardModel, chat: ChatFormat, pairs: Sequence[Preference]
) -> Iterator[list[tuple[list[int], list[int]]]]:
    """The pairs as token ids, in micro-batches. Both answers of a pair are computed in the same one."""
    tokens = [
        (_sequence(chat, pair.task, pair.chosen), _sequence(chat, pair.task, pair.rejected)) for pair in pairs
    ]
    longest = [max(len(chosen), len(rejected)) for chosen, rejected in tokens]
    for rows in micro_batches(longest, max(1, model.micro_batch_tokens // 2)):
        yield [tokens[row] for row in rows]


def measure_agreement(model: RewardModel, chat: ChatFormat, pairs: Sequence[Preference]) -> float:
    """Share of pairs in which the preferred answer has the higher reward; NaN without pairs."""
    right = [
        chosen > rejected
        for pair in pairs
        for chosen, rejected in [model.score(chat, pair.task, [pair.chosen, pair.rejected])]
    ]
    return sum(right) / len(right) if right else float("nan")
