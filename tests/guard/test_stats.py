"""The paired test against brute force, the binomial and its own claim of validity."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.errors import KascadeError
from kascade.guard.scores import Phase, Score
from kascade.guard.stats import UNITS, compare, difference_interval, sign_flip

unit_differences = st.lists(st.integers(-UNITS, UNITS), min_size=1, max_size=9)


def score(rewards: dict[str, list[float | None]], phase: Phase = "screen", checkpoint: str = "c") -> Score:
    return Score(
        benchmark="mcqa",
        domain="knowledge",
        checkpoint=checkpoint,
        phase=phase,
        round=0,
        temperature=1.0,
        rewards=rewards,
        mean_response_tokens=10,
        num_truncated=0,
    )


def brute_force(units: list[int]) -> tuple[float, float]:
    sums = np.array([np.dot(signs, np.abs(units)) for signs in itertools.product((-1, 1), repeat=len(units))])
    return float((sums <= sum(units)).mean()), float((sums >= sum(units)).mean())


@settings(max_examples=60, deadline=None)
@given(unit_differences)
def test_equals_all_sign_patterns_counted_out(units: list[int]) -> None:
    assert sign_flip(np.array(units) / UNITS) == pytest.approx(brute_force(units), rel=1e-6)


def test_with_one_sample_a_task_it_is_the_sign_test_of_discordant_pairs() -> None:
    from scipy.stats import binom

    differences = np.array([-1.0] * 30 + [1.0] * 10 + [0.0] * 360)
    assert sign_flip(differences)[0] == pytest.approx(binom.cdf(10, 40, 0.5), rel=1e-9)


def test_nothing_changed_says_nothing_and_few_equal_tasks_give_no_certainty() -> None:
    assert sign_flip(np.zeros(400)) == (1.0, 1.0)
    assert sign_flip(np.full(5, -0.25))[0] == pytest.approx(2**-5)
    assert sign_flip(np.full(60, -0.25))[0] == 1e-15


@pytest.mark.parametrize("samples", [1, 2, 16])
@pytest.mark.parametrize("chance", [0.02, 0.5, 0.97])
def test_p_is_valid_under_no_change(samples: int, chance: float) -> None:
    rng = np.random.default_rng(0)
    draws = rng.binomial(samples, chance, size=(2, 1500, 60)) / samples
    p = np.array([sign_flip(d)[0] for d in draws[1] - draws[0]])
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(p))


def test_tasks_without_a_grade_are_left_out_and_counted() -> None:
    before = score({"a": [1.0, None], "b": [None, None], "c": [1.0, 1.0]})
    after = score({"a": [0.0, 0.0], "b": [1.0, 1.0], "c": [None, None]})
    found = compare(before, after)
    assert found is not None
    assert (found.num_tasks, found.num_left_out) == (1, 2)
    assert (found.before, found.after, found.difference) == (1.0, 0.0, -1.0)
    assert (found.samples_before, found.samples_after) == (1.0, 2.0)
    assert compare(score({"a": [None]}), score({"a": [1.0]})) is None


def test_other_tasks_are_an_error() -> None:
    with pytest.raises(KascadeError, match="different tasks"):
        compare(score({"a": [1.0]}), score({"b": [1.0]}))


@pytest.mark.parametrize("samples", [2, 16])
def test_interval_covers_the_true_change(samples: int) -> None:
    rng = np.random.default_rng(1)
    chances = rng.beta(0.6, 0.4, size=200)
    draws = rng.binomial(samples, np.stack([chances, 0.95 * chances])[:, None], size=(2, 1000, 200)) / samples
    truth = -0.05 * chances.mean()
    found = [difference_interval(d, 1 / samples) for d in draws[1] - draws[0]]
    covered = np.mean([low <= truth <= high for low, high in found])
    assert 0.93 <= covered <= 0.985


def test_interval_is_never_of_zero_width() -> None:
    low, high = difference_interval(np.array([-0.5]), step=0.5)
    assert low < -0.5 < high
    low, high = difference_interval(np.zeros(400), step=0.5)
    assert -0.01 < low < 0 < high < 0.01
