"""Screening, Holm's step-down, and the split of the error over the cascade."""

from __future__ import annotations

import pytest
from guard_fixture import recipe

from kascade.guard.level import verdict_level
from kascade.guard.rule import goal_benchmarks, holm


def test_error_is_split_over_all_verdicts_the_recipe_allows() -> None:
    made = recipe(family_level=0.09)
    first = [verdict_level(made, stage.name) for stage in made.stages]
    recoveries = [verdict_level(made, stage.name, round_) for stage in made.stages for round_ in (1, 2)]
    assert first == pytest.approx([0.8 * 0.09 / 3] * 3)
    assert sum(first + recoveries) == pytest.approx(0.09)
    alone = recipe(family_level=0.09, recovery={"rounds": 0})
    assert verdict_level(alone, "sft") == pytest.approx(0.03)


def test_goals_are_the_stages_domains_or_those_it_names() -> None:
    made = recipe()
    assert goal_benchmarks(made, made.stages[1]) == {"ifeval"}
    named = made.stages[1].model_copy(update={"goals": ("arith",)})
    assert goal_benchmarks(made, named) == {"arith"}


def test_holm_loosens_step_by_step_and_stops_at_the_first_failure() -> None:
    tests = holm({"a": (0.001, 0.2), "b": (0.004, 0.2), "c": (0.004, 0.2), "d": (0.9, 0.0)}, 4, 0.012, 0.03)
    assert [tests[name].level for name in "abcd"] == pytest.approx([0.003, 0.004, 0.006, 0.012])
    assert [tests[name].regressed for name in "abcd"] == [True, True, True, False]
    blocked = holm({"a": (0.004, 0.2), "b": (0.005, 0.2)}, 4, 0.012, 0.03)
    assert not blocked["a"].significant
    assert not blocked["b"].significant


def test_a_certain_but_small_fall_is_tolerated() -> None:
    found = holm({"a": (1e-9, 0.029), "b": (1e-9, 0.03)}, 2, 0.01, 0.03)
    assert (found["a"].significant, found["a"].regressed) == (True, False)
    assert found["b"].regressed


def test_exactly_the_smallest_drop_counts() -> None:
    found = holm({"a": (1e-9, 0.14375 - 0.11375)}, 1, 0.01, 0.03)
    assert 0.14375 - 0.11375 < 0.03
    assert found["a"].regressed
