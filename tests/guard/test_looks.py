"""Answers in looks: sizes, parts of the level, and what each look decides."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kascade.errors import KascadeError
from kascade.guard.comparison import compare
from kascade.guard.looks import (
    Chances,
    FallRule,
    KeepRule,
    chances_at_last,
    look_for_fall,
    look_for_keeping,
    look_sizes,
    shares,
)
from kascade.guard.rewards import TaskRewards
from kascade.guard.share import recovered_share

LOOKS = look_sizes(2, 32)
FALL = FallRule(
    looks=LOOKS,
    level=1e-4,
    min_drop=0.03,
    within_share=0.5,
    within_margin=0.01,
    futile_fall=0.05,
    futile_level=0.005,
    max_missing=0.02,
)


def drawn(rng: np.random.Generator, chances: np.ndarray, samples: int) -> TaskRewards:
    rows = (rng.random((chances.size, samples)) < chances[:, None]).astype(float).tolist()
    return TaskRewards("b", "m", {str(i): row for i, row in enumerate(rows)})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.1, 1.5])
def test_numbers_out_of_range_are_refused_by_every_rule(wrong: float) -> None:
    for field in fields(FallRule):
        if field.name not in {"looks", "choices"}:
            with pytest.raises(KascadeError, match=field.name):
                replace(FALL, **{field.name: wrong})
    keep = KeepRule(LOOKS, 0.03, 0.05, 0.005, 0.02)
    for field in fields(KeepRule):
        if field.name != "looks":
            with pytest.raises(KascadeError, match=field.name):
                replace(keep, **{field.name: wrong})


def test_looks_that_do_not_grow_from_one_on_are_refused() -> None:
    for looks in ((), (0, 2), (4, 2), (2, 2), (2, 4.5), (math.nan,)):
        for make in (lambda looks=looks: replace(FALL, looks=looks), lambda looks=looks: shares(looks)):
            with pytest.raises(KascadeError, match="look"):
                make()
    for first, most in ((0, 2), (2, 0), (2, -4), (2, 2.5)):
        with pytest.raises(KascadeError, match="whole number from 1 on"):
            look_sizes(first, most)  # type: ignore[arg-type]
    with pytest.raises(KascadeError, match="choices"):
        replace(FALL, choices=0)
    with pytest.raises(KascadeError, match="samples"):
        drawn(np.random.default_rng(0), np.array([0.5]), 4).first(0)


def test_a_share_of_another_benchmark_or_of_other_tasks_is_refused() -> None:
    one, other = (TaskRewards(name, "m", {"a": [1.0], "b": [0.0]}) for name in ("math", "code"))
    with pytest.raises(KascadeError, match="only the same benchmark"):
        recovered_share(one, other, one)
    with pytest.raises(KascadeError, match="different tasks"):
        recovered_share(one, one, TaskRewards("math", "m", {"a": [1.0]}))


@pytest.mark.parametrize("keeping", [False, True])
def test_a_look_with_grades_missing_on_one_side_alone_decides_nothing(keeping: bool) -> None:
    """1.5% of the answers after, which are under the 2%, and none before."""
    rng = np.random.default_rng(7)
    chances = rng.beta(2, 1, 400)
    before, whole = drawn(rng, chances, 4), drawn(rng, chances, 4)
    holes = {
        task: [None, *rewards[1:]] if int(task) < 24 else rewards for task, rewards in whole.rewards.items()
    }
    after = TaskRewards("b", "m", holes)
    look = look_for_keeping if keeping else look_for_fall
    rule = KeepRule((4,), 0.05, 0.05, 0.005, 0.02) if keeping else replace(FALL, looks=(4,))
    assert look(before, after, rule).standing == "not_judged"  # type: ignore[operator]
    assert look(before, after, replace(rule, unequal_missing=0.0)).standing != "not_judged"  # type: ignore[operator]


@given(st.integers(1, 8), st.integers(1, 200))
def test_looks_double_and_end_where_they_must(first: int, most: int) -> None:
    looks = look_sizes(first, most)
    assert looks[-1] == most
    assert all(later == 2 * earlier for earlier, later in pairwise(looks))
    assert looks[0] >= first or looks == (most,)
    assert sum(shares(looks).values()) == pytest.approx(1)


def test_nothing_changed_ends_early_and_a_large_fall_too() -> None:
    rng = np.random.default_rng(0)
    chances = rng.beta(2, 1, 1000)
    before = drawn(rng, chances, 32)
    same = look_for_fall(before, drawn(rng, chances, 32), FALL)
    assert (same.standing, same.more) == ("not_shown", None)
    assert same.size <= 4
    lower = look_for_fall(before, drawn(rng, chances * 0.6, 32), FALL)
    assert (lower.standing, lower.size) == ("lost", 2)


def test_more_answers_are_asked_for_while_nothing_is_decided() -> None:
    rng = np.random.default_rng(1)
    chances = rng.beta(2, 1, 60)
    before, after = drawn(rng, chances, 2), drawn(rng, chances * 0.93, 2)
    found = look_for_fall(before, after, FALL)
    assert (found.standing, found.size, found.more) == ("not_shown", 2, 4)
    nothing = look_for_fall(drawn(rng, chances, 1), drawn(rng, chances, 1), FALL)
    assert (nothing.size, nothing.more) == (0, 2)


def test_a_larger_pool_is_used_as_far_as_the_candidate_has_drawn() -> None:
    rng = np.random.default_rng(2)
    chances = rng.beta(2, 1, 400)
    pool, after = drawn(rng, chances, 32), drawn(rng, chances, 2)
    found = look_for_fall(pool, after, FALL)
    assert found.comparison is not None
    assert found.comparison.samples_before == 2


@pytest.mark.parametrize(("missing", "most"), [(0.03, 0.05)])
@pytest.mark.parametrize("tasks", [128, 400])
def test_what_is_still_missing_is_rarely_kept(missing: float, most: float, tasks: int) -> None:
    """Three points or more missing are kept in at most 5%, over all looks."""
    rng = np.random.default_rng(3)
    rule, kept, runs = KeepRule(look_sizes(4, 16), 0.03, 0.05, 0.005, 0.02), 0, 60
    for _ in range(runs):
        chances = rng.beta(2, 1.2, tasks)
        lower = chances * (1 - missing / chances.mean())
        found = look_for_keeping(drawn(rng, chances, 16), drawn(rng, lower, 16), rule)
        assert found.more is None
        kept += found.standing == "kept"
    assert kept / runs <= most + 2.5 * np.sqrt(most * (1 - most) / runs)


def test_nothing_missing_is_kept_at_the_flagships_size() -> None:
    rng = np.random.default_rng(4)
    rule, kept = KeepRule(look_sizes(2, 64), 0.03, 0.05, 0.005, 0.02), 0
    for _ in range(30):
        chances = rng.beta(2, 1.2, 400)
        inside = np.clip(chances, 0.01, 0.99)
        moved = rng.beta(inside * 10, (1 - inside) * 10)
        kept += look_for_keeping(drawn(rng, chances, 64), drawn(rng, moved, 64), rule).standing == "kept"
    assert kept / 30 >= 0.9


def moved(rng: np.random.Generator, chances: np.ndarray, strength: float) -> np.ndarray:
    """Chances whose tasks drift, with mean zero."""
    inside = np.clip(chances, 0.01, 0.99)
    return rng.beta(inside * strength, (1 - inside) * strength)


def test_what_more_answers_cannot_show_ends_early() -> None:
    """128 tasks that moved much by themselves: the error stays, so 64 answers are not drawn."""
    sizes = {}
    for futile in (0.0, 0.005):
        rule, found = KeepRule(look_sizes(2, 64), 0.03, 0.05, futile, 0.02), []
        for seed in range(20):
            own = np.random.default_rng(seed)
            chances = own.beta(2, 1.2, 128)
            after = moved(own, chances * (1 - 0.06 / chances.mean()), 8)
            found.append(look_for_keeping(drawn(own, chances, 64), drawn(own, after, 64), rule))
        assert all(one.standing != "kept" for one in found)
        sizes[futile] = float(np.mean([one.size for one in found]))
    assert sizes[0.005] < 0.75 * sizes[0.0]


def test_giving_up_early_rarely_costs_what_was_kept() -> None:
    """Nothing is lost and tasks drift: with and without futility the same are kept, but for a few."""
    rules = [KeepRule(look_sizes(2, 32), 0.03, 0.05, futile, 0.02) for futile in (0.0, 0.005)]
    kept = np.zeros(2)
    for seed in range(40):
        own = np.random.default_rng(seed)
        chances = own.beta(2, 1.2, 128)
        before, after = drawn(own, chances, 32), drawn(own, moved(own, chances, 30), 32)
        kept += [look_for_keeping(before, after, rule).standing == "kept" for rule in rules]
    assert kept[0] >= kept[1] >= kept[0] - 2
    assert kept[0] > 15


def test_the_last_look_is_foretold() -> None:
    """Of falls of any size that are foretold as kept with 20 to 80%, about that many are kept at the last
    look."""
    rule, foretold, kept = KeepRule(look_sizes(2, 32), 0.03, 0.05, 0.005, 0.02), [], []
    for seed in range(150):
        own = np.random.default_rng(seed)
        chances = own.beta(2, 1.2, 128)
        after = moved(own, chances * own.uniform(0.9, 1.05), 60)
        rewards = drawn(own, chances, 32), drawn(own, np.minimum(after, 1), 32)
        early, late = compare(*(one.first(8) for one in rewards)), compare(*rewards)
        assert early is not None
        assert late is not None
        chance = chances_at_last(early, 8, rule).kept
        if 0.2 < chance < 0.8:
            foretold.append(chance)
            kept.append(late.standing(0.03, 0.05 * shares(rule.looks)[32]) == "kept")
    assert len(kept) > 20
    assert np.mean(kept) == pytest.approx(np.mean(foretold), abs=3 * np.sqrt(0.25 / len(kept)))


def test_one_answer_a_task_foretells_nothing() -> None:
    rng = np.random.default_rng(7)
    chances = rng.beta(2, 1, 60)
    found = compare(drawn(rng, chances, 1), drawn(rng, chances, 1))
    assert found is not None
    assert found.answers_error is None
    assert chances_at_last(found, 1, KeepRule((1, 2), 0.03, 0.05, 0.005, 0.02)) == Chances(1.0, 1.0)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_the_recovered_share_is_unbiased_and_its_interval_covers(share: float) -> None:
    """At 128 tasks and 8 answers, on draws that did not find the loss of ten points."""
    rng = np.random.default_rng(5)
    values, covered, runs = [], 0, 200
    for _ in range(runs):
        chances = rng.beta(2, 1.2, 128)
        low = chances * (1 - 0.10 / chances.mean())
        back = low + share * (chances - low)
        found = recovered_share(*(drawn(rng, one, 8) for one in (chances, low, back)))
        assert found is not None
        values.append((found.back, found.loss))
        covered += found.interval is None or found.interval[0] <= share <= found.interval[1]
    back_mean, loss_mean = np.mean(values, axis=0)
    assert back_mean / loss_mean == pytest.approx(share, abs=0.04)
    assert covered / runs >= 0.91


@pytest.mark.parametrize("share", [0.1, 0.99, 1.0])
def test_looks_decide_nothing_while_grades_are_missing(share: float) -> None:
    rng = np.random.default_rng(8)
    chances = rng.beta(2, 1, 200)
    before = drawn(rng, chances, 32)
    holes = {
        task: [None if rng.random() < share else reward for reward in rewards]
        for task, rewards in drawn(rng, chances * 0.5, 32).rewards.items()
    }
    after = TaskRewards("b", "m", holes)
    rule = KeepRule(LOOKS, 0.03, 0.05, 0.005, 0.02)
    for found in (look_for_fall(before, after, FALL), look_for_keeping(before, after, rule)):
        assert (found.standing, found.more) == ("not_judged", None)


def test_the_candidate_that_is_its_parent_is_kept_and_never_lost() -> None:
    rng = np.random.default_rng(9)
    one = drawn(rng, rng.beta(2, 1, 200), 32)
    rule = KeepRule(LOOKS, 0.03, 0.05, 0.005, 0.02)
    kept, fall = look_for_keeping(one, one, rule), look_for_fall(one, one, FALL)
    assert kept.standing == "kept"
    assert (fall.standing, fall.p) == ("not_shown", 1.0)
