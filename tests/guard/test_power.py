"""What exams can see, by formula: sizes in the order of experience, and refusals before anything runs."""

from __future__ import annotations

import math

import pytest
from guard_fixture import recipe

from kascade.errors import KascadeError
from kascade.guard.power import (
    ExamSize,
    Spread,
    chance_of_call,
    sight_table,
    visible_fall,
    visible_falls,
    weak_exams,
)
from kascade.recipe.guard import Guard
from kascade.recipe.load import load_recipe
from kascade.recipe.schema import Recipe

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
    assert seen.asked == Guard().min_drop
    assert seen.chance <= 0.5  # the observed fall is cut at min_drop, so half of such falls are missed


def test_300_tasks_are_enough_for_the_minimum_drop_and_200_are_not() -> None:
    """What `guard.visible_chance` says of itself."""
    chances = [visible_fall(ExamSize(tasks, 2, 32, LEVEL), Guard()).chance for tasks in (128, 200, 300, 400)]
    assert chances[0] < chances[1] < Guard().visible_chance < chances[2] < chances[3] <= 0.5


def test_chance_rises_with_the_fall() -> None:
    exam, spread = ExamSize(200, 2, 16, LEVEL), Spread()
    chances = [chance_of_call(fall / 100, exam, Guard(), spread) for fall in range(0, 30, 3)]
    assert chances == sorted(chances)
    assert chances[0] < 1e-4
    assert chances[-1] > 0.99


def sized(tasks: int, **guard: object) -> Recipe:
    """The recipe with its first benchmark of so many tasks, and 400 of the others."""
    made = recipe(**guard)
    first, *others = (one.model_copy(update={"tasks": 400}) for one in made.benchmarks)
    return made.model_copy(update={"benchmarks": (first.model_copy(update={"tasks": tasks}), *others)})


def test_eight_tasks_are_refused_with_the_field_and_the_remedy() -> None:
    weak = sized(8)
    name = weak.benchmarks[0].name
    assert visible_falls(weak)[name].most > 0.2
    (fault,) = weak_exams(weak)
    assert fault.where == f"benchmarks.0.tasks ({name})"
    assert "8 tasks show only falls from" in fault.what
    assert "of 3.0 points (guard.min_drop) with 1%; guard.visible_chance asks for 25%" in fault.what
    assert "weak_exams: warn" in (fault.remedy or "")
    said = weak.model_copy(update={"guard": weak.guard.model_copy(update={"weak_exams": "warn"})})
    assert [one.remedy for one in weak_exams(said)] == [
        "ask more tasks, raise guard.confirm_samples, or say which fall they must show as guard.visible_fall"
    ]
    assert weak_exams(sized(400)) == []
    assert math.isinf(visible_fall(ExamSize(1, 1, 1, LEVEL), weak.guard).half)


def test_the_recipes_own_minimum_drop_decides() -> None:
    """128 tasks see a fall of ten points and not one of three, whatever else they see."""
    assert visible_falls(sized(128))["mcqa"].most < 0.1
    (fault,) = weak_exams(sized(128))
    assert "128 tasks" in fault.what
    assert weak_exams(sized(128, min_drop=0.1)) == []
    assert weak_exams(sized(128, visible_fall=0.1)) == []
    (fault,) = weak_exams(sized(64, visible_fall=0.04))
    assert "of 4.0 points (guard.visible_fall)" in fault.what
    assert weak_exams(sized(128, visible_chance=0.01)) == []


def test_benchmarks_of_which_the_same_is_true_share_one_error() -> None:
    made = recipe()
    few = made.model_copy(
        update={"benchmarks": tuple(one.model_copy(update={"tasks": 8}) for one in made.benchmarks)}
    )
    (fault,) = weak_exams(few)
    assert fault.where == f"benchmarks.0,1,2.tasks ({', '.join(one.name for one in made.benchmarks)})"


def test_the_table_has_a_line_per_benchmark_with_both_falls() -> None:
    made = sized(8)
    falls = visible_falls(made)
    table = sight_table(falls, made.guard)[2:]
    assert len(table) == len(made.benchmarks)
    for line, (name, seen) in zip(table, falls.items(), strict=True):
        most = f"{100 * seen.most:.1f}" if math.isfinite(seen.most) else "none"
        tasks, samples = str(seen.tasks), str(seen.samples)
        half, asked, chance = f"{100 * seen.half:.1f}", "3.0:", f"{seen.chance:.0%}"
        assert line.split() == [name, tasks, "x", samples, half, most, asked, chance]
    alone = visible_fall(ExamSize(1, 1, 1, LEVEL), made.guard)
    assert sight_table({"one": alone}, made.guard)[-1].split()[4:6] == ["none", "none"]
    assert alone.as_json()["half"] is None


def test_without_recoveries_a_stage_has_the_whole_level() -> None:
    """What `visible_falls` computes with is what the verdict of the stage is held to."""
    some, none = (visible_falls(sized(128, recovery={"rounds": rounds}))["mcqa"] for rounds in (2, 0))
    assert none.most < some.most


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.1, 1.5])
def test_numbers_out_of_range_are_refused(wrong: float) -> None:
    with pytest.raises(KascadeError, match="fall is a number"):
        chance_of_call(wrong, ExamSize(200, 2, 16, LEVEL), Guard(), Spread())
    with pytest.raises(KascadeError, match="level is a number"):
        ExamSize(200, 2, 16, wrong)
    for field in ("answers", "tasks"):
        with pytest.raises(KascadeError, match=field):
            Spread(**{field: wrong})
    with pytest.raises(KascadeError, match="tasks is a whole number"):
        ExamSize(0, 2, 16, LEVEL)


@pytest.mark.parametrize("preset", ["nemotron-3-multi-env", "nemotron-cascade-1-14b", "nemotron-cascade-2"])
def test_large_presets_see_their_minimum_drop(preset: str) -> None:
    made = load_recipe(preset)
    assert made.guard.weak_exams == "refuse"
    assert weak_exams(made) == []


@pytest.mark.parametrize("preset", ["quickstart", "quickstart-short", "sft-dpo", "specialists"])
def test_miniature_presets_say_that_they_do_not(preset: str) -> None:
    made = load_recipe(preset)
    assert made.guard.weak_exams == "warn"
    assert weak_exams(made)


@pytest.mark.parametrize("tasks", [128, 400])
def test_a_larger_level_sees_more(tasks: int) -> None:
    strict, loose = (
        visible_fall(ExamSize(tasks, 2, 16, level), Guard()).most for level in (LEVEL, 10 * LEVEL)
    )
    assert loose < strict
