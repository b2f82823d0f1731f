"""What a recipe's benchmarks can see: the fall of each that the guard calls with 50% and with 95%.

By formula, for a fall of all tasks alike in the first stage, where nothing was known before (in the last one
where answers are fixed: each accepted checkpoint makes p larger). The screen and
the last look of the confirmation are multiplied, as their samples are fresh; stopping early is left out. The
spread of answers is assumed, because nothing has been drawn yet: see `Spread`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist  # scipy would cost `kascade check` a third of a second

from kascade.errors import Fault
from kascade.guard.looks import look_sizes, shares
from kascade.recipe.guard import Guard
from kascade.recipe.schema import Benchmark, Recipe

NORMAL = NormalDist()
HALVINGS = 40  # of [0, 1]: far below any difference that counts


@dataclass(frozen=True, slots=True)
class Spread:
    """answers: variance of a binary answer inside its task, mean over tasks. tasks: sd of a task's true
    change.

    Measured on nine benchmarks of the quickstart: .045 to .168, and about .1.
    """

    answers: float = 0.12
    tasks: float = 0.1


@dataclass(frozen=True, slots=True)
class VisibleFall:
    """Falls, in reward, that are called with 50% and with 95%; infinite where none can be.

    of_minimum: chance that a fall of the recipe's own `min_drop` is called.
    """

    half: float
    most: float
    of_minimum: float


@dataclass(frozen=True, slots=True)
class ExamSize:
    """Sizes of one benchmark and the level of its test. screen, confirm: samples a task (the last look's).

    fixed: one answer a task, which both screen and confirm; there is no test within tasks.
    """

    tasks: int
    screen: int
    confirm: int
    level: float
    fixed: bool = False


def visible_falls(recipe: Recipe, spread: Spread = Spread()) -> dict[str, VisibleFall]:
    """By benchmark, the falls that the guard can see in one stage of this recipe."""
    guard = recipe.guard
    level = guard.family_level * guard.first_share / len(recipe.stages) / len(recipe.benchmarks)
    stages = len(recipe.stages)
    return {
        one.name: visible_fall(_exam(one, guard, level, stages), guard, spread) for one in recipe.benchmarks
    }


def _exam(one: Benchmark, guard: Guard, level: float, stages: int) -> ExamSize:
    if one.is_fixed:  # as in the last stage: p counts once per accepted checkpoint
        return ExamSize(one.tasks, 1, 1, level / stages, fixed=True)
    return ExamSize(one.tasks, one.samples or guard.screen_samples, guard.confirm_samples, level)


def visible_fall(exam: ExamSize, guard: Guard, spread: Spread = Spread()) -> VisibleFall:
    """The falls that one benchmark can show."""

    def falls(chance: float) -> float:
        if chance_of_call(1.0, exam, guard, spread) <= chance:
            return math.inf
        return _crossing(lambda fall: chance_of_call(fall, exam, guard, spread), chance)

    return VisibleFall(falls(0.5), falls(0.95), chance_of_call(guard.min_drop, exam, guard, spread))


def _crossing(rising: Callable[[float], float], value: float) -> float:
    """Where a function that rises from 0 to 1 reaches `value`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return high


def chance_of_call(fall: float, exam: ExamSize, guard: Guard, spread: Spread) -> float:
    """The chance that a true fall of this size is screened and then called lost."""
    looks = (1,) if exam.fixed else look_sizes(guard.first_look, exam.confirm)
    level = exam.level * shares(looks)[exam.confirm]
    within_share = 0.0 if exam.fixed else guard.within_share
    inside = 2 * spread.answers / exam.confirm
    error = math.sqrt((inside + spread.tasks**2) / exam.tasks)
    needed = [math.inf]
    over_tasks, within = level * (1 - within_share), level * within_share
    if 0.5**exam.tasks <= over_tasks:  # the fall itself widens the flipped signs' spread
        flipped = math.sqrt((inside + spread.tasks**2 + fall**2) / exam.tasks)
        needed.append(-NORMAL.inv_cdf(over_tasks) * flipped)
    if within and -math.log2(within) <= exam.tasks * exam.confirm * 2 * spread.answers:
        needed.append(guard.within_margin + -NORMAL.inv_cdf(within) * math.sqrt(inside / exam.tasks))
    called = NORMAL.cdf((fall - max(min(needed), guard.min_drop)) / error)
    if exam.fixed:  # what is called is suspicious, too: both look at the same answers
        return called
    screened = math.sqrt((2 * spread.answers / exam.screen + spread.tasks**2) / exam.tasks)
    return called * NORMAL.cdf(fall / screened + NORMAL.inv_cdf(guard.screen_level))


def weak_exams(recipe: Recipe) -> list[Fault]:
    """One error per benchmark that cannot show a fall of `guard.visible_fall` with 95%."""
    wanted = recipe.guard.visible_fall
    return [
        Fault(
            f"benchmarks.{index}.tasks ({name})",
            f"{_few(recipe.benchmarks[index].tasks, seen)}, guard.visible_fall asks for {_points(wanted)}",
            remedy=_remedy(recipe.benchmarks[index]),
        )
        for index, (name, seen) in enumerate(visible_falls(recipe).items())
        if seen.most > wanted
    ]


def _remedy(benchmark: Benchmark) -> str:
    more = "" if benchmark.is_fixed else "raise guard.confirm_samples, or "
    return f"ask more tasks, or {more}say `guard: {{weak_exams: warn}}`"


def _few(tasks: int, seen: VisibleFall) -> str:
    number = f"{tasks} task{'s' * (tasks != 1)}"
    if not math.isfinite(seen.most):
        return f"{number} cannot show a fall of any size with 95%"
    return f"{number} show only falls from {_points(seen.most)} on with 95%"


def describe(name: str, seen: VisibleFall) -> str:
    """One sentence on what a benchmark can show."""
    if not math.isfinite(seen.half):
        return f"{name}: no fall can be shown with so few tasks"
    most = f"one of {_points(seen.most)} with 95%" if math.isfinite(seen.most) else "none with 95%"
    return f"{name}: a fall of {_points(seen.half)} is found with a chance of 50%, {most}"


def _points(fall: float) -> str:
    return f"{100 * fall:.1f} points"
