"""From rewards to advantages: pure functions over one prompt's group of rollouts.

Sources: [C2] Nemotron-Cascade 2 (arXiv 2603.19220), [N3] Nemotron 3 Nano (arXiv 2512.20848),
[DAPO] arXiv 2503.14476. Shapes: G rollouts of one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kascade.recipe.schema import GRPO, Pairwise
from kascade.rollout.types import Floats, Mask

ROUNDING = 1e-9  # rewards closer than this are equal: sums of floats differ in their last bits


@dataclass(frozen=True, slots=True)
class GroupSignal:
    """What a group teaches. advantages [G]; in_loss [G]: which rollouts enter the loss; usable: any does."""

    advantages: Floats
    in_loss: Mask

    @property
    def usable(self) -> bool:
        return bool(self.in_loss.any())


def all_equal(rewards: Floats) -> bool:
    """Whether a group's rewards carry no preference."""
    return rewards.size == 0 or float(np.ptp(rewards)) <= ROUNDING


def group_advantages(
    rewards: Floats,
    graded: Mask,
    *,
    baseline: Literal["mean", "leave_one_out"] = "mean",
    normalize_std: bool = True,
) -> Floats:
    """Advantages [G] of one group: (r_i - baseline_i) / std. [C2 §4.1.2 Eq. 1]

    Rollouts that were not graded have no part in the statistics and advantage 0. `leave_one_out`
    takes the mean of the other rollouts (RLOO, arXiv 2402.14740). std is the sample standard deviation
    over the group (n - 1, as NeMo-RL). Equal rewards, or fewer than two, give zeros.
    """
    # Errors of a grader say nothing of the policy: they count neither in the mean nor in the deviation.
    advantages = np.zeros_like(rewards)
    known = rewards[graded]
    if known.size < 2 or all_equal(known):
        return advantages
    centred = known - known.mean()
    if baseline == "leave_one_out":
        # r_i - mean of the others = (r_i - mean of all) n / (n - 1).
        centred *= known.size / (known.size - 1)
    advantages[graded] = centred / known.std(ddof=1) if normalize_std else centred
    return advantages


def group_signal(rewards: Floats, graded: Mask, truncated: Mask, rule: GRPO) -> GroupSignal:
    """Advantages and loss mask of one group under a recipe's rules. All arguments [G].

    overlong "penalty": a truncated rollout has reward 0 [C2 §4.2]; "filter": it leaves the loss, but
    its reward stays in the group's statistics [DAPO §3.4; NeMo-RL]. Dynamic filtering drops groups
    whose rewards are all equal [C2 §4.2]; `drop_below_best` those without one reward above it [C2 §4.8].
    """
    if rule.overlong == "penalty":
        rewards = np.where(truncated, 0.0, rewards)
    advantages = group_advantages(rewards, graded, baseline=rule.baseline, normalize_std=rule.normalize_std)
    # A filtered rollout stays in `graded`: DAPO takes it from the loss only, not from the baseline.
    in_loss = graded & ~truncated if rule.overlong == "filter" else graded.copy()
    known = rewards[graded]
    filtered = rule.dynamic_filtering and all_equal(known)
    too_low = rule.drop_below_best is not None and (known.size == 0 or known.max() <= rule.drop_below_best)
    if filtered or too_low:
        in_loss[:] = False
    return GroupSignal(advantages, in_loss)


@dataclass(frozen=True, slots=True)
class Match:
    """One judged pair: scores in [1, 5], ranking in [1, 6] where 1 means the first is far better."""

    first: int
    second: int
    first_score: float
    second_score: float
    ranking: float


def pairs_to_compare(size: int, scheme: Literal["all", "circular"]) -> list[tuple[int, int]]:
    """Ordered pairs of a group, so that every answer is judged in both positions.

    "all": each against each, both ways [C2 §4.5]; "circular": each against the next [N3 §3.3].
    """
    if scheme == "circular":
        return [(i, (i + 1) % size) for i in range(size)] if size > 1 else []
    return [(i, j) for i in range(size) for j in range(size) if i != j]


def match_rewards(size: int, comparisons: Sequence[Match]) -> Floats:
    """Mean score [G] of each answer over its matches; ties are broken by the ranking. [N3 §3.3]

    For equal scores: s_1 += 3.5 - s_r and s_2 += s_r - 3.5. An answer without a match has NaN.
    """
    totals, matches = np.zeros(size), np.zeros(size)
    for pair in comparisons:
        tie_break = 3.5 - pair.ranking if pair.first_score == pair.second_score else 0.0
        totals[pair.first] += pair.first_score + tie_break
        totals[pair.second] += pair.second_score - tie_break
        matches[[pair.first, pair.second]] += 1
    return np.asarray(np.divide(totals, matches, out=np.full(size, np.nan), where=matches > 0))


def length_term(lengths: Floats) -> Floats:
    """Zero-mean preference [G] for short answers: 1 - (l - min) / (max - min), less its mean. [N3 §3.3]"""
    spread = np.ptp(lengths)
    if spread == 0:
        return np.zeros_like(lengths)
    weights = 1.0 - (lengths - lengths.min()) / spread
    return np.asarray(weights - weights.mean())


def pairwise_rewards(base: Floats, think_lengths: Floats, answer_lengths: Floats, rule: Pairwise) -> Floats:
    """Rewards [G] from match rewards: plus length terms and conciseness bonuses. [N3 §3.3]

    The thinking and the answer each have their own term; a bonus goes to the shortest (the first of
    them) if its base reward reaches the percentile, and none where all are equally long.
    """
    rewards = base.copy()
    # All terms are of `base`: the order of the two bonuses must not matter.
    threshold = np.quantile(base, rule.conciseness_percentile)
    for lengths in (think_lengths, answer_lengths):
        rewards += rule.length_coefficient * length_term(lengths)
        shortest = int(lengths.argmin())
        if np.ptp(lengths) > 0 and base[shortest] >= threshold:
            rewards[shortest] += rule.conciseness_bonus
    return rewards
