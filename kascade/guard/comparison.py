"""Two models on one benchmark, paired task by task: difference, interval, p values, and what could be
seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kascade.errors import KascadeError
from kascade.guard.flips import Floats, pair_flip, sign_flip
from kascade.guard.rewards import Reward, TaskRewards

Standing = Literal["kept", "lost", "not_shown", "not_judged"]
WORDS: Mapping[Standing, str] = {
    "kept": "kept",
    "lost": "lost",
    "not_shown": "not shown",
    "not_judged": "cannot be judged",
}


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
    missing_before, missing_after: shares of answers without a grade.
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

        if not 0 < level < 1:
            raise KascadeError(f"a level is between 0 and 1, not {level}")
        half = float(stdtrit(self.degrees, 1 - level)) * self.standard_error
        middle = sum(self.interval) / 2
        return middle - half, middle + half

    def standing(self, margin: float, level: float = 0.05, max_missing: float = 0.02) -> Standing:
        """kept: the lower limit is above -margin. lost: not kept, and the upper one below 0. Else not shown.

        margin: in reward. level: one-sided, of each limit. More than max_missing of the grades missing on one
        side: not judged, because what is missing could hide or invent a fall. Raises KascadeError for a
        margin below 0, and as `limits` does.
        """
        if margin < 0:
            raise KascadeError(f"a margin is a fall of 0 or more that still counts as kept, not {margin}")
        low, high = self.limits(level)
        if self.most_missing > max_missing:
            return "not_judged"
        return "kept" if low > -margin else "lost" if high < 0 else "not_shown"

    def p_lost(self, within_share: float) -> float:
        """p of both tests together, the level split between them (Bonferroni).

        within_share: the within-task test's part of the level; 0 leaves it out.
        """
        within = self.p_within / within_share if within_share else 1.0
        over_tasks = self.p_fall / (1 - within_share) if within_share < 1 else 1.0
        return min(1.0, over_tasks, within)

    def visible_fall(self, level: float, chance: float = 0.95) -> float:
        """The fall that a comparison with this standard error calls with `chance` at one-sided `level`."""
        from scipy.special import ndtri

        return float(ndtri(1 - level) + ndtri(chance)) * self.standard_error


def compare(before: TaskRewards, after: TaskRewards, *, within_margin: float = 0.01) -> Comparison | None:
    """The paired comparison; None when no task was graded on both sides.

    Answer i of a task is paired with answer i. within_margin: see `flips.pair_flip`.
    Raises KascadeError when the two are not of the same benchmark and the same tasks.
    """
    if before.name != after.name:
        raise KascadeError(
            f"{before.model} has rewards of benchmark {before.name}, and {after.model} of {after.name}: "
            "only the same benchmark can be compared"
        )
    if before.rewards.keys() != after.rewards.keys():
        raise KascadeError(
            f"benchmark {after.name}: the scores of {before.model} and {after.model} are of different tasks, "
            "so they cannot be compared; draw both again"
        )
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
        bounds=(low_after - high_before, high_after - low_before),
    )


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
    shares = f"{first} of the grades are missing {before} and {then} {after}"
    return f"{shares}. With them the difference could be anything from {low:+.3f} to {high:+.3f}."
