"""The curriculum on a planted distribution of pass rates."""

from __future__ import annotations

from collections import Counter
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.data.curriculum import CurriculumPool, apportion, summarise, target_mean
from kascade.recipe.schema import Curriculum
from kascade.task import Task

STEPS, COUNT = 30, 24
RULE = Curriculum(unsolved_odds=0.25)


def tasks_of(kind: str, count: int) -> tuple[Task, ...]:
    return tuple(Task(kind, "math", ({"role": "user", "content": f"{kind} {i}"},), {}) for i in range(count))


HARD, EASY = tasks_of("hard", 900), tasks_of("easy", 900)
# pass rates 0, 1/8 ... 1 as eight samples give them, all equally frequent
RATES = {task.id: (i % 9) / 8 for source in (HARD, EASY) for i, task in enumerate(source)}


def pool_of(rule: Curriculum = RULE, seed: int = 3) -> CurriculumPool:
    return CurriculumPool((HARD, EASY), (2.0, 1.0), RATES, rule, STEPS, seed)


def rates_of(pool: CurriculumPool, step: int) -> list[float]:
    return [RATES[task.id] for task in pool.draw(step, COUNT)]


def test_the_mean_pass_rate_of_a_batch_falls_as_the_target_does() -> None:
    pool = pool_of()
    for start in (0, 10, 20):
        seen = mean(rate for step in range(start, start + 10) for rate in rates_of(pool, step))
        wanted = mean(target_mean(RULE, step, STEPS) for step in range(start, start + 10))
        assert abs(seen - wanted) < 0.08
    early, late = (mean(rates_of(pool, step)) for step in (0, STEPS - 1))
    assert early > 0.6 and late < 0.5


def test_always_solved_tasks_are_left_out_and_unsolved_ones_come_back_now_and_then() -> None:
    pool = pool_of()
    drawn = [rate for step in range(STEPS) for rate in rates_of(pool, step)]
    assert max(drawn) < 1
    never = pool_of(Curriculum(unsolved_odds=0))
    assert 0 not in [rate for step in range(STEPS) for rate in rates_of(never, step)]
    often = pool_of(Curriculum(unsolved_odds=1, first_mean=0.05, last_mean=0.05))
    assert 0 in [rate for step in range(4) for rate in rates_of(often, step)]
    strict = pool_of(Curriculum(drop_from=0.75))
    assert max(rate for step in range(STEPS) for rate in rates_of(strict, step)) < 0.75


def test_every_batch_has_the_fixed_shares_of_the_sources() -> None:
    pool = pool_of()
    for step in range(STEPS):
        counts = Counter(task.environment for task in pool.draw(step, COUNT))
        assert (counts["hard"], counts["easy"]) == (16, 8)


def test_a_draw_depends_on_seed_and_step_only() -> None:
    first, second = pool_of(), pool_of()
    last = second.draw(STEPS - 1, COUNT)  # asked for first
    assert [first.draw(step, COUNT) for step in range(STEPS)] == [second.draw(s, COUNT) for s in range(STEPS)]
    assert first.draw(STEPS - 1, COUNT) == last
    assert pool_of(seed=4).draw(0, COUNT) != first.draw(0, COUNT)
    with pytest.raises(ValueError, match="every step draws 24"):
        first.draw(0, 8)


def test_no_task_repeats_before_all_have_been_drawn_and_the_fullest_bins_fill_up() -> None:
    """A target far from most tasks: the few near it go first, then the fullest bins give."""
    few = tasks_of("few", 30)
    rates = {task.id: 0.9 if i < 6 else 0.2 if i < 20 else 0.5 for i, task in enumerate(few)}
    rule = Curriculum(first_mean=0.95, last_mean=0.95, width=0.05)
    pool = CurriculumPool((few,), (1.0,), rates, rule, 5, 0)
    drawn = [task for step in range(5) for task in pool.draw(step, 6)]
    assert len({task.id for task in drawn}) == 30
    assert [rates[task.id] for task in drawn[:6]].count(0.9) == 5  # a sixth was due from the empty bin below
    assert Counter(rates[task.id] for task in drawn[6:12]) == {0.9: 1, 0.2: 4, 0.5: 1}  # 13 and 10 were left
    assert {task.id for task in pool.draw(5, 6)} <= {task.id for task in few}  # and on it goes


def test_unprofiled_tasks_stay_out_and_nothing_left_is_an_error() -> None:
    solved = dict.fromkeys((task.id for task in HARD), 1.0)
    with pytest.raises(ValueError, match="no task is left"):
        CurriculumPool((HARD,), (1.0,), solved, RULE, STEPS, 0)
    some = {task.id: 0.5 for task in HARD[:5]}
    pool = CurriculumPool((HARD,), (1.0,), some, RULE, STEPS, 0)
    assert {task.id for task in pool.draw(0, 10)} == set(some)
    summary = summarise(RATES, RULE)
    assert (summary.always, summary.never, summary.between) == (200, 200, 1400)


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=12), st.integers(0, 200))
def test_apportioned_numbers_sum_up_and_are_within_one_of_the_share(weights: list[float], count: int) -> None:
    parts = apportion(weights, count)
    assert sum(parts) == count
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - count * weight / sum(weights)) < 1 + 1e-9
