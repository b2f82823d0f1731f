"""What exams can see, by formula: sizes in the order of experience, and refusals before anything runs."""

from __future__ import annotations

import math

import pytest
from guard_fixture import recipe

from kascade.guard.power import ExamSize, Spread, chance_of_call, visible_fall, visible_falls, weak_exams
from kascade.recipe.guard import Guard

LEVEL = 0.01 * 0.8 / 72


def test_more_tasks_and_more_samples_see_smaller_falls() -> None:
    guard = Guard()
    seen = [visible_fall(ExamSize(tasks, 2, 32, LEVEL), guard).most for tasks in (64, 128, 200, 400, 1000)]
    assert seen == sorted(seen, reverse=True)
    few, many = (visible_fall(ExamSize(128, 2, samples, LEVEL), guard).most for samples in (8, 32))
    assert many < few
    assert visible_fall(ExamSize(400, 2, 32, LEVEL), guard).most < 0.055


def test_half_is_smaller_than_most_and_never_under_the_minimum() -> None:
    seen = visible_fall(ExamSize(1000, 8, 64, LEVEL), Guard(screen_level=0.25))
    assert 0.03 <= seen.half < seen.most
    assert seen.of_minimum <= 0.5  # the observed fall is cut at min_drop, so half of such falls are missed


def test_chance_rises_with_the_fall() -> None:
    exam, spread = ExamSize(200, 2, 16, LEVEL), Spread()
    chances = [chance_of_call(fall / 100, exam, Guard(), spread) for fall in range(0, 30, 3)]
    assert chances == sorted(chances)
    assert chances[0] < 1e-4
    assert chances[-1] > 0.99


def test_eight_tasks_are_refused_with_the_field_and_the_remedy() -> None:
    made = recipe()
    few = made.benchmarks[0].model_copy(update={"tasks": 8})
    weak = made.model_copy(update={"benchmarks": (few, *made.benchmarks[1:])})
    assert visible_falls(weak)[few.name].most > 0.2
    (fault,) = weak_exams(weak)
    assert fault.where.startswith("benchmarks.0.tasks")
    assert "8 tasks show only falls from" in fault.what
    assert "weak_exams: warn" in (fault.remedy or "")
    assert weak_exams(made) == []
    assert math.isinf(visible_fall(ExamSize(1, 1, 1, LEVEL), made.guard).half)


@pytest.mark.parametrize("tasks", [128, 400])
def test_a_larger_level_sees_more(tasks: int) -> None:
    strict, loose = (
        visible_fall(ExamSize(tasks, 2, 16, level), Guard()).most for level in (LEVEL, 10 * LEVEL)
    )
    assert loose < strict
