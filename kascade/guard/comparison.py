"""Two models on one benchmark, paired task by task: difference, interval, p values, and what could be
seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kascade.errors import KascadeError
from kascade.guard.flips import Floats, pair_flip, sign_flip
from kascade.guard.ranges import between, part
from kascade.guard.rewards import SHOWN, Reward, TaskRewards

Standing = Literal["kept", "lost", "not_shown", "not_judged"]
WORDS: Mapping[Standing, str] = {
    "kept": "kept",
    "lost": "lost",
    "not_shown": "not shown",
    "not_judged": "cannot be judged",
}
# Defaults of what may be missing; those of a recipe are `guard.max_missing` and `guard.unequal_missing`.
MAX_MISSING = 0.02
UNEQUAL_MISSING = 0.001


@dataclass(frozen=True, slots=True)
class Comparison:
    """`after` against `before` on the tasks graded on both sides. All in reward.

    standard_error: of the difference, over tasks, never 0. degrees: of freedom of its Student intervals.
    answers_error: the part of it that more answers to these tasks make smaller, by the spread of pairs inside
    tasks; None where no task has two pairs. The rest is how differently the tasks themselves changed.
    interval: 95%, two-sided. p_fall, p_rise: one-sided, tasks as a sample (`flips.sign_flip`).
    p_within: one-sided, that these tasks fell by more than the margin asked for (`flips.pair_flip`).
    samples_before, samples_after: graded answers a task, mean. num_left_out: tasks without a grade on one
    side.
    missing_before, missing_after: shares of answers without a grade. p_unequal: two-sided and exact, that
    grades are missing as often on one side as on the other (`flips.pair_flip` on which answers lack one).
    bounds: the difference if every missing grade had gone against `after`, and if every one had gone for it.
    """

    before: float
    after: float
    standard_error: float
    answers_error: float | None
    degrees: int
    interval: tuple[float, float]
    p_fall: float
    p_rise: float
    p_within: float
    num_tasks: int
    num_left_out: int
    samples_before: float
    samples_after: float
    missing_before: float
    missing_after: float
    p_unequal: float
    bounds: tuple[float, float]

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def most_missing(self) -> float:
        return max(self.missing_before, self.missing_after)

    def limits(self, level: float) -> tuple[float, float]:
        """Lower and upper limit of the difference, in reward, each one-sided at 1 - level.

        Raises KascadeError for a level that is not between 0 and 1.
        """
        from scipy.special import stdtrit

        between("a level", level)
        half = float(stdtrit(self.degrees, 1 - level)) * self.standard_error
        middle = sum(self.interval) / 2
        return middle - half, middle + half

    def can_be_judged(self, max_missing: float, unequal_missing: float) -> bool:
        """Whether no more than `max_missing` of the grades are missing on a side, and not unequally many.

        What is missing could hide or invent a fall. unequal_missing: `p_unequal` up to which the shares are
        unequal; 0 asks for nothing. Raises KascadeError for numbers that are not from 0 to 1.
        """
        few = self.most_missing <= part("max_missing", max_missing)
        return few and self.p_unequal > part("unequal_missing", unequal_missing)

    def standing(
        self,
        margin: float,
        level: float = 0.05,
        max_missing: float = MAX_MISSING,
        unequal_missing: float = UNEQUAL_MISSING,
    ) -> Standing:
        """kept: the lower limit is above -margin. lost: not kept, and the upper one below 0. Else not shown.

        margin: in reward. level: one-sided, of each limit. Not judged: see `can_be_judged`. Raises
        KascadeError for a margin that is not from 0 to 1, and as `limits` and `can_be_judged` do.
        """
        part("a margin", margin)
        low, high = self.limits(level)
        if not self.can_be_judged(max_missing, unequal_missing):
            return "not_judged"
        return "kept" if low > -margin else "lost" if high < 0 else "not_shown"

    def p_lost(self, within_share: float) -> float:
        """p of both tests together, the level split between them (Bonferroni).

        within_share: the within-task test's part of the level; 0 leaves it out. Raises KascadeError for one
        that is not from 0 to 1.
        """
        part("within_share", within_share)
        within = self.p_within / within_share if within_share else 1.0
        over_tasks = self.p_fall / (1 - within_share) if within_share < 1 else 1.0
        return min(1.0, over_tasks, within)

    def visible_fall(self, level: float, chance: float = 0.95) -> float:
        """The fall that a comparison with this standard error calls with `chance` at one-sided `level`.

        Raises KascadeError for one of them that is not between 0 and 1.
        """
        from scipy.special import ndtri

        between("a level", level)
        between("a chance", chance)
        return float(ndtri(1 - level) + ndtri(chance)) * self.standard_error


def compare(before: TaskRewards, after: TaskRewards, *, within_margin: float = 0.01) -> Comparison | None:
    """The paired comparison; None when no task was graded on both sides.

    Answer i of a task is paired with answer i. within_margin: see `flips.pair_flip`.
    Raises KascadeError when the two are not of the same benchmark and the same tasks, and for a margin that
    is not from 0 to 1. `TaskRewards.with_tasks` makes the tasks the same: what was not there is missing.
    """
    check_same_tasks(before, after)
    part("within_margin", within_margin)
    means_before, means_after = before.task_means(), after.task_means()
    tasks = [task for task in before.rewards if task in means_before and task in means_after]
    if not tasks:
        return None
    x = np.array([means_before[task] for task in tasks])
    y = np.array([means_after[task] for task in tasks])
    samples = _samples(before.rewards, tasks), _samples(after.rewards, tasks)
    widened = _widened(y - x, step=1 / max(samples))
    p_fall, p_rise = sign_flip(y - x)
    pairs = _pairs(before, after)
    low_before, high_before = before.bounds()
    low_after, high_after = after.bounds()
    return Comparison(
        before=float(x.mean()),
        after=float(y.mean()),
        standard_error=float(widened.std(ddof=1) / np.sqrt(widened.size)),
        answers_error=_answers_error(pairs),
        degrees=widened.size - 1,
        interval=_interval(widened),
        p_fall=p_fall,
        p_rise=p_rise,
        p_within=pair_flip(np.concatenate(pairs), within_margin),
        num_tasks=len(tasks),
        num_left_out=len(before.rewards) - len(tasks),
        samples_before=samples[0],
        samples_after=samples[1],
        missing_before=before.missing,
        missing_after=after.missing,
        p_unequal=_p_unequal(before, after),
        bounds=(low_after - high_before, high_after - low_before),
    )


def check_same_tasks(first: TaskRewards, other: TaskRewards) -> None:
    """Raises KascadeError, with names, where two are not of the same benchmark and the same tasks."""
    if first.name != other.name:
        raise KascadeError(
            f"{first.model} has rewards of benchmark {first.name}, and {other.model} of {other.name}: "
            "only the same benchmark can be compared"
        )
    sides = ((first, other), (other, first))
    alone = [
        f"only {one.model} has {_some([task for task in one.rewards if task not in two.rewards])}"
        for one, two in sides
        if one.rewards.keys() - two.rewards.keys()
    ]
    if alone:
        raise KascadeError(
            f"benchmark {other.name}: the scores of {first.model} and {other.model} are of different tasks, "
            f"so they cannot be compared: {'; '.join(alone)}. Draw both again"
        )


def _some(tasks: Sequence[str]) -> str:
    more = f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else ""
    return f"{', '.join(map(str, tasks[:SHOWN]))}{more}"


def _samples(rewards: Mapping[str, Sequence[Reward]], tasks: Sequence[str]) -> float:
    return float(np.mean([sum(r is not None for r in rewards[task]) for task in tasks]))


def _pairs(before: TaskRewards, after: TaskRewards) -> list[Floats]:
    """Per task the differences of all pairs of answers that are graded on both sides, each [pairs]."""
    return [
        np.array(
            [
                new - old
                for old, new in zip(rewards, after.rewards[task], strict=False)
                if old is not None and new is not None
            ],
            dtype=np.float64,
        )
        for task, rewards in before.rewards.items()
    ]


def _p_unequal(before: TaskRewards, after: TaskRewards) -> float:
    """Two-sided p that an answer lacks its grade as often before as after.

    Exact where the grader loses each task's answers by the same chance on both sides, whatever those chances
    are: of the pairs with one grade, either side then has it with one half (McNemar 1947).
    """
    if not (before.missing or after.missing):
        return 1.0
    samples = min(before.num_asked, after.num_asked)
    lacking = [after.lacks(task, samples) - before.lacks(task, samples) for task in before.rewards]
    more = np.concatenate(lacking).astype(np.float64)
    return min(1.0, 2 * min(pair_flip(more), pair_flip(-more)))


def _answers_error(pairs: Sequence[Floats]) -> float | None:
    """Standard error of the mean difference of these very tasks, by the pairs of tasks that have two or
    more."""
    spreads = [found.var(ddof=1) / found.size for found in pairs if found.size > 1]
    graded = sum(found.size > 0 for found in pairs)
    return float(np.sqrt(np.mean(spreads) / graded)) if spreads else None


def _widened(differences: Floats, step: float) -> Floats:
    """Two tasks that differ by one sample up and one down (`step`, in reward) are added, as Bonett and Price
    do for paired proportions (2012, J. Educ. Behav. Stat. 37(4)): few or equal tasks then give no certainty.
    """
    return np.append(differences, (step, -step))


def _interval(widened: Floats) -> tuple[float, float]:
    from scipy.special import stdtrit

    half = stdtrit(widened.size - 1, 0.975) * widened.std(ddof=1) / np.sqrt(widened.size)
    return float(widened.mean() - half), float(widened.mean() + half)


def missing_grades(found: Comparison, before: str, after: str) -> str:
    """In words, how many grades are missing on each side, and how little is known because of that."""
    low, high = found.bounds
    first, then = f"{found.missing_before:.1%}", f"{found.missing_after:.1%}"
    shares = (
        f"{first} of the grades are missing {before} and {then} {after} (p {found.p_unequal:.2g} if alike)"
    )
    return f"{shares}. With them the difference could be anything from {low:+.3f} to {high:+.3f}."
