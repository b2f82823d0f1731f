"""What a recipe's benchmarks can see: the fall of each that the guard calls with 50% and with 95%, and the
chance that it calls the recipe's own minimum drop.

By formula, for a fall of all tasks alike in the first stage, where nothing was known before (in the last one
where answers are fixed: each accepted checkpoint makes p larger). The screen and
the last look of the confirmation are multiplied, as their samples are fresh; stopping early is left out. The
spread of answers is assumed, because nothing has been drawn yet: see `Spread`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist  # scipy would cost `kascade check` a third of a second

from kascade.errors import Fault
from kascade.guard.level import verdict_part
from kascade.guard.looks import look_sizes, shares
from kascade.guard.ranges import between, count, part
from kascade.recipe.guard import Guard
from kascade.recipe.schema import Benchmark, Recipe

NORMAL = NormalDist()
HALVINGS = 40  # of [0, 1]: far below any difference that counts


@dataclass(frozen=True, slots=True)
class Spread:
    """answers: variance of a binary answer inside its task, mean over tasks. tasks: sd of a task's true
    change.

    Measured on nine benchmarks of the quickstart: .045 to .168, and about .1. Raises KascadeError for a
    number out of range.
    """

    answers: float = 0.12
    tasks: float = 0.1

    def __post_init__(self) -> None:
        part("answers", self.answers)
        part("tasks", self.tasks)


@dataclass(frozen=True, slots=True)
class VisibleFall:
    """Falls, in reward, that are called with 50% and with 95%; infinite where none can be.

    tasks, samples: of the benchmark, and answers a task at most. asked: the fall that the recipe asks for
    (`Guard.asked_fall`); chance: that one of this size is called.
    """

    tasks: int
    samples: int
    half: float
    most: float
    asked: float
    chance: float

    def as_json(self) -> dict[str, float | None]:
        """The fields, with null in place of infinity."""
        return {name: one if math.isfinite(one) else None for name, one in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class ExamSize:
    """Sizes of one benchmark and the level of its test. screen, confirm: samples a task (the last look's).

    fixed: one answer a task, which both screen and confirm; there is no test within tasks. Raises
    KascadeError for a number out of range.
    """

    tasks: int
    screen: int
    confirm: int
    level: float
    fixed: bool = False

    def __post_init__(self) -> None:
        for name in ("tasks", "screen", "confirm"):
            count(name, getattr(self, name))
        between("level", self.level)


def visible_falls(recipe: Recipe, spread: Spread = Spread()) -> dict[str, VisibleFall]:
    """By benchmark, the falls that the guard can see in one stage of this recipe."""
    guard, stages = recipe.guard, len(recipe.stages)
    level = guard.family_level * verdict_part(guard, stages, 0) / len(recipe.benchmarks)
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

    chance = chance_of_call(guard.asked_fall, exam, guard, spread)
    return VisibleFall(exam.tasks, exam.confirm, falls(0.5), falls(0.95), guard.asked_fall, chance)


def _crossing(rising: Callable[[float], float], value: float) -> float:
    """Where a function that rises from 0 to 1 reaches `value`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return high


def chance_of_call(fall: float, exam: ExamSize, guard: Guard, spread: Spread) -> float:
    """The chance that a true fall of this size is screened and then called lost.

    Raises KascadeError for a fall that is not from 0 to 1.
    """
    part("fall", fall)
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
    """An error for benchmarks that call a fall of `Guard.asked_fall` with less than `visible_chance`.

    Those of which the same is true share one.
    """
    alike: dict[tuple[str, str], dict[int, str]] = {}
    for index, (name, seen) in enumerate(visible_falls(recipe).items()):
        if seen.chance < recipe.guard.visible_chance:
            said = _few(seen, recipe.guard), _remedy(recipe.benchmarks[index], recipe.guard)
            alike.setdefault(said, {})[index] = name
    return [
        Fault(
            f"benchmarks.{','.join(map(str, names))}.tasks ({', '.join(names.values())})", what, remedy=remedy
        )
        for (what, remedy), names in alike.items()
    ]


def _remedy(benchmark: Benchmark, guard: Guard) -> str:
    more = "" if benchmark.is_fixed else "raise guard.confirm_samples, "
    other = "say which fall they must show as guard.visible_fall"
    if guard.weak_exams == "warn":
        return f"ask more tasks, {more}or {other}"
    return f"ask more tasks, {more}{other}, or say `guard: {{weak_exams: warn}}`"


def _few(seen: VisibleFall, guard: Guard) -> str:
    number = f"{seen.tasks} task{'s' * (seen.tasks != 1)}"
    asked = f"of {_asked(seen, guard)} with {seen.chance:.0%}; guard.visible_chance asks for"
    if not math.isfinite(seen.most):
        return f"{number} cannot show a fall of any size with 95%, and one {asked} {guard.visible_chance:.0%}"
    shown = f"show only falls from {_points(seen.most)} on with 95%"
    return f"{number} {shown}, and one {asked} {guard.visible_chance:.0%}"


def _asked(seen: VisibleFall, guard: Guard) -> str:
    return f"{_points(seen.asked)} (guard.{'min_drop' if guard.visible_fall is None else 'visible_fall'})"


def describe(name: str, seen: VisibleFall, guard: Guard) -> str:
    """One sentence on what a benchmark can show."""
    if not math.isfinite(seen.half):
        return f"{name}: no fall can be shown with so few tasks"
    most = f"one of {_points(seen.most)} with 95%" if math.isfinite(seen.most) else "none with 95%"
    asked = f"one of {_asked(seen, guard)} with {seen.chance:.0%}"
    return f"{name}: a fall of {_points(seen.half)} is found with a chance of 50%, {most}, {asked}"


def sight_table(falls: Mapping[str, VisibleFall], guard: Guard) -> list[str]:
    """One line per benchmark with the falls that it can show, under a head; for people."""
    name = "min_drop" if guard.visible_fall is None else "visible_fall"
    width = max(len("benchmark"), *map(len, falls))
    head = f"{'benchmark':{width}}  tasks x samples  found with 50%  with 95%  chance of guard.{name}"
    lines = [f"{'':{width}}  falls in one stage that are called lost, in points", head]
    for benchmark, seen in falls.items():
        size = f"{seen.tasks} x {seen.samples}"
        half, most = _number(seen.half), _number(seen.most)
        asked = f"{100 * seen.asked:.1f}: {seen.chance:.0%}"
        lines.append(f"{benchmark:{width}}  {size:>15}  {half:>14}  {most:>8}  {asked}")
    return lines


def _number(fall: float) -> str:
    return f"{100 * fall:.1f}" if math.isfinite(fall) else "none"


def _points(fall: float) -> str:
    return f"{100 * fall:.1f} points"
