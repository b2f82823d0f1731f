"""The paired test against brute force, the binomial and its own claim of validity."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.errors import KascadeError
from kascade.guard.comparison import MAX_MISSING, UNEQUAL_MISSING, Comparison, compare
from kascade.guard.flips import UNITS, pair_flip, sign_flip
from kascade.guard.rewards import TaskRewards
from kascade.recipe.guard import Guard

NAN = math.nan
STEPS = UNITS[0]
unit_differences = st.lists(st.integers(-STEPS, STEPS), min_size=1, max_size=9)


def score(rewards: dict[str, list[float | None]]) -> TaskRewards:
    return TaskRewards("mcqa", "c", rewards)


def compared(before: np.ndarray, after: np.ndarray) -> Comparison:
    """Rewards [tasks, samples] of two models."""
    pair = [score({str(i): [float(r) for r in row] for i, row in enumerate(one)}) for one in (before, after)]
    found = compare(*pair)
    assert found is not None
    return found


def brute_force(units: list[int]) -> tuple[float, float]:
    sums = np.array([np.dot(signs, np.abs(units)) for signs in itertools.product((-1, 1), repeat=len(units))])
    return float((sums <= sum(units)).mean()), float((sums >= sum(units)).mean())


@settings(max_examples=60, deadline=None)
@given(unit_differences)
def test_equals_all_sign_patterns_counted_out(units: list[int]) -> None:
    assert sign_flip(np.array(units) / STEPS) == pytest.approx(brute_force(units), rel=1e-6)


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


def test_other_tasks_are_an_error_that_names_them() -> None:
    with pytest.raises(KascadeError, match=r"different tasks.*: only c has a; only c has b"):
        compare(score({"a": [1.0]}), score({"b": [1.0]}))
    many = {str(i): [1.0] for i in range(9)}
    with pytest.raises(KascadeError, match="only c has 1, 2, 3, 4, 5 and 3 more"):
        compare(score(many), score({"0": [1.0]}))
    with pytest.raises(KascadeError, match="no mapping"):
        TaskRewards("b", "m", [[1.0]])  # type: ignore[arg-type]


def half(tasks: int, chance: float = 0.5) -> dict[str, list[float | None]]:
    """Rewards of tasks with eight answers each."""
    rng = np.random.default_rng(tasks)
    return {str(i): [float(one < chance) for one in rng.random(8)] for i in range(tasks)}


def test_what_is_absent_counts_as_what_says_that_no_grade_was_given() -> None:
    """A task that is not there, one without answers, one with fewer, and null grades: all the same."""
    whole = half(300)
    lost = list(whole)[:30]
    null: dict[str, list[float | None]] = {
        task: [None] * 8 if task in lost else r for task, r in whole.items()
    }
    empty = {task: [] if task in lost else rewards for task, rewards in whole.items()}
    gone = {task: rewards for task, rewards in whole.items() if task not in lost}
    expected = compare(score(whole), score(null))
    assert expected is not None
    assert (expected.missing_after, expected.num_left_out) == (0.1, 30)
    assert expected.standing(0.03) == "not_judged"
    before = score(whole)
    assert compare(before, score(empty)) == expected
    assert compare(before, score(gone).with_tasks(before)) == expected
    assert score(gone).with_tasks(before).missing == 0.1
    fewer = score({task: rewards[:4] if task in lost else rewards for task, rewards in whole.items()})
    assert fewer.missing == 0.05
    low, high = fewer.bounds()
    assert high - low == pytest.approx(0.05)
    assert score({}).missing == 1.0 and score({"a": []}).missing == 1.0


def test_grades_missing_on_one_side_alone_are_not_judged_though_few() -> None:
    """1.9% of the candidate's grades are missing, under the 2%, and none before: 46 of 2400 answers."""
    whole = half(300)
    holes = {
        task: [None if int(task) < 46 and not i else r for i, r in enumerate(rewards)]
        for task, rewards in whole.items()
    }
    one_sided, alike = compare(score(whole), score(holes)), compare(score(holes), score(holes))
    assert one_sided is not None and alike is not None
    assert one_sided.missing_after < 0.02
    assert one_sided.p_unequal == pytest.approx(2 * 0.5**46, abs=1e-14)
    assert one_sided.standing(0.03) == "not_judged"
    assert one_sided.standing(0.03, unequal_missing=0.0) == "kept"
    assert (alike.p_unequal, alike.standing(0.03)) == (1.0, "kept")


@pytest.mark.parametrize(("lacking", "judged"), [(10, True), (11, False)])
def test_so_many_missing_grades_more_are_beyond_chance(lacking: int, judged: bool) -> None:
    """Of n pairs with one grade, all on one side, p is 2 / 2^n: 1 / 512 of ten, and 1 / 1024 of eleven."""
    whole = half(300)
    holes = {
        task: [None if int(task) < lacking and not i else r for i, r in enumerate(rewards)]
        for task, rewards in whole.items()
    }
    found = compare(score(whole), score(holes))
    assert found is not None
    assert found.p_unequal == pytest.approx(2 * 0.5**lacking)
    assert found.can_be_judged(0.02, 0.001) == judged


def test_the_library_and_recipes_allow_as_much_to_be_missing() -> None:
    assert (Guard().max_missing, Guard().unequal_missing) == (MAX_MISSING, UNEQUAL_MISSING)


def test_p_of_unequal_missing_grades_is_the_exact_binomial() -> None:
    from scipy.stats import binomtest

    whole = half(60)
    rng = np.random.default_rng(0)
    sides = [
        {task: [None if rng.random() < share else r for r in rewards] for task, rewards in whole.items()}
        for share in (0.03, 0.08)
    ]
    found = compare(*map(score, sides))
    assert found is not None
    pairs = [
        (x is None, y is None) for task in whole for x, y in zip(sides[0][task], sides[1][task], strict=True)
    ]
    first, second = pairs.count((True, False)), pairs.count((False, True))
    assert found.p_unequal == pytest.approx(binomtest(first, first + second).pvalue, rel=1e-6)


def test_graders_that_fail_alike_are_judged_in_all_but_the_share_of_the_level() -> None:
    """Both sides lose 1.5% of their grades by chance; tasks differ in how often."""
    rng = np.random.default_rng(1)
    chances = rng.beta(0.05, 3.3, size=200)
    whole = half(200)
    p = []
    for _ in range(300):
        sides = [
            {
                task: [None if rng.random() < chances[i] else r for r in rewards]
                for i, (task, rewards) in enumerate(whole.items())
            }
            for _ in range(2)
        ]
        found = compare(*map(score, sides))
        assert found is not None
        p.append(found.p_unequal)
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p) <= level) <= level + 3 * np.sqrt(level * (1 - level) / len(p))


@pytest.mark.parametrize("samples", [2, 16])
def test_interval_covers_the_true_change(samples: int) -> None:
    rng = np.random.default_rng(1)
    chances = rng.beta(0.6, 0.4, size=200)
    truth = -0.05 * chances.mean()
    covered = 0
    for _ in range(150):
        before, after = (rng.random((200, samples)) < c[:, None] for c in (chances, 0.95 * chances))
        low, high = compared(before, after).interval
        covered += low <= truth <= high
    assert 0.89 <= covered / 150 <= 1


def test_interval_is_never_of_zero_width() -> None:
    low, high = compared(np.array([[1.0, 1.0]]), np.array([[0.5, 0.5]])).interval
    assert low < -0.5 < high
    low, high = compared(np.ones((400, 2)), np.ones((400, 2))).interval
    assert -0.01 < low < 0 < high < 0.01


def big_integers(units: list[int], reached: Fraction) -> Fraction:
    """P(sum with random signs <= reached), counted in whole numbers: no floats, no transform."""
    ways = {0: 1}
    for size in map(abs, units):
        moved: dict[int, int] = {}
        for total, count in ways.items():
            for new in (total + size, total - size):
                moved[new] = moved.get(new, 0) + count
        ways = moved
    return Fraction(sum(count for total, count in ways.items() if total <= reached), 2 ** len(units))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-1, 1]), min_size=1, max_size=400), st.integers(0, 30))
def test_pairs_of_right_or_wrong_answers_equal_big_integers(signs: list[int], points: int) -> None:
    """With a margin the fall beyond it is held against the same distribution."""
    reached = sum(signs) + Fraction(points, 1000) * len(signs)
    expected = big_integers(signs, reached)
    found = pair_flip(np.array(signs, dtype=float), points / 1000)
    assert found == pytest.approx(float(expected), rel=2e-5, abs=1e-13)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-16, 16).filter(bool), min_size=1, max_size=120))
def test_tasks_equal_big_integers(units: list[int]) -> None:
    expected = big_integers(units, Fraction(sum(units)))
    assert sign_flip(np.array(units) / 16)[0] == pytest.approx(float(expected), rel=2e-5, abs=1e-13)


def test_a_loss_in_few_tasks_is_seen_within_them_and_not_over_them() -> None:
    """14 of 128 solved tasks lost for certain: 10.9 points, of which the tasks' signs show only 2^-14."""
    before, after = np.ones((128, 16)), np.ones((128, 16))
    after[:14] = 0
    found = compared(before, after)
    assert found.p_fall == pytest.approx(2**-14)
    assert found.p_within < 1e-12
    assert found.p_lost(0.5) < 1e-11
    assert found.p_lost(0.0) == pytest.approx(2**-14)


def test_equal_answers_show_nothing() -> None:
    rng = np.random.default_rng(0)
    same = (rng.random((60, 4)) < 0.5).astype(float)
    found = compared(same, same)
    assert (found.difference, found.p_fall, found.p_within) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize("shared", [0.0, 0.6])
def test_within_tasks_the_test_is_valid_also_with_common_random_numbers(shared: float) -> None:
    rng = np.random.default_rng(3)
    chances = rng.beta(0.8, 0.6, size=(60, 1))
    p = []
    for _ in range(1500):
        first = rng.random((60, 4))
        second = np.where(rng.random((60, 4)) < shared, first, rng.random((60, 4)))
        difference = (second < chances).astype(float) - (first < chances)
        p.append(pair_flip(difference.ravel()))
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p) <= level) <= level + 3 * np.sqrt(level * (1 - level) / len(p))


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), -0.1, 1.5])
def test_rewards_that_are_no_shares_are_refused(reward: float) -> None:
    with pytest.raises(KascadeError, match="finite and in"):
        score({"a": [1.0, reward]})


def test_rewards_of_any_fineness_are_compared_in_time() -> None:
    rng = np.random.default_rng(2)
    found = compared(rng.random((400, 32)), rng.random((400, 32)))
    assert 0 < found.p_within <= 1
    assert 0 < found.p_fall < 1


def test_missing_grades_have_worst_cases() -> None:
    found = compare(score({"a": [1.0, None], "b": [1.0, 1.0]}), score({"a": [None, 1.0], "b": [1.0, 0.0]}))
    assert found is not None
    assert (found.missing_before, found.missing_after) == (0.25, 0.25)
    assert found.bounds == (0.5 - 1.0, 0.75 - 0.75)


def test_standings_have_one_meaning_each() -> None:
    rng = np.random.default_rng(4)
    chances = rng.beta(2, 1, size=(400, 1))
    before = rng.random((400, 32)) < chances
    for loss, word in ((0.0, "kept"), (0.2, "lost")):
        after = rng.random((400, 32)) < chances * (1 - loss)
        assert compared(before, after).standing(0.03) == word
    few = compared(before[:12, :2], rng.random((12, 2)) < chances[:12])
    assert few.standing(0.03) == "not_shown"
    assert few.visible_fall(0.01, 0.95) > few.visible_fall(0.01, 0.5) > 0


@pytest.mark.parametrize("fall", [1 / 2000, 1 / 20_000, 1e-7])
def test_the_smallest_falls_on_every_task_are_seen(fall: float) -> None:
    found = compare(
        TaskRewards("b", "before", {str(i): [0.5] for i in range(40)}),
        TaskRewards("b", "after", {str(i): [0.5 - fall] for i in range(40)}),
    )
    assert found is not None
    assert (found.p_fall, found.p_rise) == (pytest.approx(2.0**-40), 1.0)


@pytest.mark.parametrize("rewards", [["1"], [1 + 1j], 1.0, "right", [[1.0]], b"\x00\x01", bytearray(b"\x01")])
def test_rewards_that_are_no_numbers_are_refused(rewards: object) -> None:
    with pytest.raises(KascadeError, match="finite and in \\[0, 1\\]"):
        TaskRewards("b", "m", {"a": rewards})  # type: ignore[dict-item]


def test_rewards_of_numpy_and_truth_values_are_numbers() -> None:
    rows = {"a": np.array([True, False]), "b": [True, False], "c": np.array([0.25, 0.75], dtype=np.float32)}
    assert TaskRewards("b", "m", rows).task_means() == {"a": 0.5, "b": 0.5, "c": 0.5}  # type: ignore[arg-type]


def test_two_benchmarks_levels_and_margins_out_of_range_are_errors() -> None:
    one = TaskRewards("math", "m", {"a": [1.0], "b": [0.0]})
    with pytest.raises(KascadeError, match="only the same benchmark"):
        compare(one, TaskRewards("code", "m", one.rewards))
    found = compare(one, one)
    assert found is not None
    for level in (0.0, 1.0, NAN, math.inf, 1.5):
        with pytest.raises(KascadeError, match="between 0 and 1"):
            found.limits(level)
        with pytest.raises(KascadeError, match="between 0 and 1"):
            found.visible_fall(level)
        with pytest.raises(KascadeError, match="between 0 and 1"):
            found.visible_fall(0.01, level)
    for wrong in (-0.03, NAN, math.inf, 1.5):
        with pytest.raises(KascadeError, match="a margin is a number from 0 to 1"):
            found.standing(wrong)
        with pytest.raises(KascadeError, match="within_margin is a number from 0 to 1"):
            compare(one, one, within_margin=wrong)
        with pytest.raises(KascadeError, match="max_missing is a number from 0 to 1"):
            found.standing(0.03, max_missing=wrong)
        with pytest.raises(KascadeError, match="unequal_missing is a number from 0 to 1"):
            found.standing(0.03, unequal_missing=wrong)
        with pytest.raises(KascadeError, match="within_share is a number from 0 to 1"):
            found.p_lost(wrong)
        with pytest.raises(KascadeError, match="a margin is a number from 0 to 1"):
            pair_flip(np.array([0.5]), wrong)


@pytest.mark.parametrize("wrong", [NAN, math.inf, -1.5])
def test_differences_that_are_none_of_rewards_are_refused(wrong: float) -> None:
    for test in (sign_flip, pair_flip):
        with pytest.raises(KascadeError, match="from -1 to 1"):
            test(np.array([0.5, wrong]))


@pytest.mark.parametrize("share", [0.1, 0.99])
def test_a_comparison_with_many_missing_grades_is_not_judged(share: float) -> None:
    rng = np.random.default_rng(0)
    whole = {str(i): [float(rng.random() < 0.6) for _ in range(4)] for i in range(300)}
    holes = {task: [None if rng.random() < share else r for r in row] for task, row in whole.items()}
    found = compare(TaskRewards("b", "m", whole), TaskRewards("b", "n", holes))
    assert found is not None
    assert found.standing(0.03) == "not_judged"
    assert found.standing(0.03, max_missing=1.0) == "not_judged"
    assert found.standing(0.03, max_missing=1.0, unequal_missing=0.0) != "not_judged"


@pytest.mark.parametrize(("before", "after"), [(1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("tasks", [1, 2, 200])
def test_all_right_and_all_wrong_have_finite_numbers(before: float, after: float, tasks: int) -> None:
    """One task never gives certainty, and two hundred do."""
    one, other = ({str(i): [chance] * 4 for i in range(tasks)} for chance in (before, after))
    found = compare(TaskRewards("b", "m", one), TaskRewards("b", "n", other))
    assert found is not None
    assert all(math.isfinite(number) for number in (*found.interval, found.p_fall, found.p_within))
    assert found.standard_error > 0
    if tasks == 1:
        assert found.standing(0.03) == "not_shown"
    if tasks == 200:
        assert found.standing(0.03) == ("lost" if after < before else "kept")
