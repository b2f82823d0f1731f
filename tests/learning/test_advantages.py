"""Advantages and pairwise rewards against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kascade.learning.advantages import (
    Match,
    group_advantages,
    group_signal,
    length_term,
    match_rewards,
    pairs_to_compare,
    pairwise_rewards,
)
from kascade.recipe.schema import GRPO, Pairwise


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def mask(*values: int) -> np.ndarray:
    return np.array(values, dtype=bool)


def test_mean_baseline_divides_by_the_sample_deviation():
    found = group_advantages(floats(1, 0, 0, 0), mask(1, 1, 1, 1))
    np.testing.assert_allclose(found, [1.5, -0.5, -0.5, -0.5])  # mean 1/4, std 1/2


def test_leave_one_out_takes_the_mean_of_the_others():
    found = group_advantages(floats(1, 0, 0), mask(1, 1, 1), baseline="leave_one_out", normalize_std=False)
    np.testing.assert_allclose(found, [1.0, -0.5, -0.5])


def test_an_error_is_not_a_zero():
    found = group_advantages(floats(1, 0, 0), mask(1, 1, 0), normalize_std=False)
    np.testing.assert_allclose(found, [0.5, -0.5, 0.0])


@given(st.floats(-1e3, 1e3), st.integers(0, 8))
def test_equal_rewards_teach_nothing(reward: float, size: int):
    found = group_advantages(np.full(size, reward), np.ones(size, dtype=bool))
    assert not found.any()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=16))
def test_advantages_sum_to_zero(rewards: list[float]):
    found = group_advantages(np.array(rewards), np.ones(len(rewards), dtype=bool))
    assert abs(found.sum()) < 1e-6


def test_overlong_filter_masks_the_loss_but_keeps_the_reward_in_the_statistics():
    signal = group_signal(floats(1, 0, 0, 0), mask(1, 1, 1, 1), mask(1, 0, 0, 0), GRPO(overlong="filter"))
    assert signal.in_loss.tolist() == [False, True, True, True]
    np.testing.assert_allclose(signal.advantages[1:], -0.5)


def test_overlong_penalty_sets_the_reward_to_zero_and_keeps_the_rollout():
    signal = group_signal(floats(1, 1, 0, 0), mask(1, 1, 1, 1), mask(1, 0, 0, 0), GRPO(overlong="penalty"))
    assert signal.in_loss.all()
    np.testing.assert_allclose(signal.advantages, [-0.5, 1.5, -0.5, -0.5])


def test_dynamic_filtering_drops_groups_of_equal_rewards():
    rewards, graded, truncated = floats(1, 1), mask(1, 1), mask(0, 0)
    assert not group_signal(rewards, graded, truncated, GRPO()).usable
    kept = group_signal(rewards, graded, truncated, GRPO(dynamic_filtering=False))
    assert kept.usable
    assert not kept.advantages.any()


@pytest.mark.parametrize(("best", "usable"), [(0.5, False), (0.51, True)])
def test_groups_without_a_good_rollout_are_dropped(best: float, usable: bool):
    signal = group_signal(floats(best, 0), mask(1, 1), mask(0, 0), GRPO(drop_below_best=0.5))
    assert signal.usable is usable


def test_pairs_cover_every_answer_in_both_positions():
    assert pairs_to_compare(3, "circular") == [(0, 1), (1, 2), (2, 0)]
    assert sorted(pairs_to_compare(3, "all")) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert pairs_to_compare(1, "circular") == []


def test_ties_are_broken_by_the_ranking():
    matches = [Match(0, 1, 3.0, 3.0, ranking=2.0), Match(1, 2, 4.0, 2.0, ranking=1.0)]
    np.testing.assert_allclose(match_rewards(3, matches), [4.5, (1.5 + 4.0) / 2, 2.0])


@given(st.lists(st.integers(0, 500), min_size=1, max_size=12))
def test_the_length_term_sums_to_zero_and_prefers_the_short(lengths: list[int]):
    found = length_term(np.array(lengths, dtype=np.float64))
    assert abs(found.sum()) < 1e-9
    assert found[int(np.argmin(lengths))] == found.max()


def test_conciseness_rewards_the_shortest_only_among_the_best():
    rule = Pairwise(length_coefficient=0.5, conciseness_bonus=0.5, conciseness_percentile=0.8)
    think = floats(0, 0, 0)
    short_and_best = pairwise_rewards(floats(5, 3, 1), think, floats(10, 20, 30), rule)
    np.testing.assert_allclose(short_and_best, [5 + 0.5 * 0.5 + 0.5, 3, 1 - 0.5 * 0.5])
    short_and_bad = pairwise_rewards(floats(1, 3, 5), think, floats(10, 20, 30), rule)
    np.testing.assert_allclose(short_and_bad, [1 + 0.25, 3, 5 - 0.25])
