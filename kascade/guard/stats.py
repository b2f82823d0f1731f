"""Paired comparison of two scores of one benchmark, task by task.

The test is Fisher's sign-flip (paired randomisation) test of the mean difference, computed exactly. Where
nothing changed, a task's difference is as often d as -d, so given the sizes |d| every pattern of signs is
equally likely, whatever the rewards look like. That holds for rewards that are bounded and discrete, for
many ties, and for few tasks, where a paired t test fails (equal differences on five tasks give it p = 0;
here p cannot fall under 2^-5). With many tasks both agree, also when differences are not symmetric but of
mean zero.

Sources: Fisher, The Design of Experiments (1935), §21; for NLP scores Dror et al., ACL 2018, P18-1128.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kascade.errors import KascadeError
from kascade.guard.scores import Score

Floats = NDArray[np.float64]

# Differences are counted in 1/720: exact for 1 to 6, 8, 9, 10, 12, 15 or 16 binary samples a task. Others
# are rounded first, which keeps the test exact for the rounded values.
UNITS = 720
SMALLEST_P = 1e-15  # the transform's rounding error: smaller p are not resolved


@dataclass(frozen=True, slots=True)
class Comparison:
    """after against before on the tasks graded on both sides; means, differences and interval in reward.

    interval: 95%, of the mean difference. p_fall, p_rise: one-sided.
    samples_before, samples_after: graded samples a task, mean. num_left_out: tasks not graded on both sides.
    """

    before: float
    after: float
    interval: tuple[float, float]
    p_fall: float
    p_rise: float
    num_tasks: int
    num_left_out: int
    samples_before: float
    samples_after: float

    @property
    def difference(self) -> float:
        return self.after - self.before


def compare(before: Score, after: Score) -> Comparison | None:
    """The paired comparison; None when no task was graded on both sides.

    Raises KascadeError when the two scores are not of the same tasks.
    """
    if before.rewards.keys() != after.rewards.keys():
        raise KascadeError(
            f"benchmark {after.benchmark}: the scores of {before.checkpoint[:12]} and "
            f"{after.checkpoint[:12]} are of different tasks, so they cannot be compared; draw both again"
        )
    means_before, means_after = before.task_means(), after.task_means()
    tasks = [task for task in before.rewards if task in means_before and task in means_after]
    if not tasks:
        return None
    x = np.array([means_before[task] for task in tasks])
    y = np.array([means_after[task] for task in tasks])
    samples_before, samples_after = _samples(before, tasks), _samples(after, tasks)
    p_fall, p_rise = sign_flip(y - x)
    return Comparison(
        before=float(x.mean()),
        after=float(y.mean()),
        interval=difference_interval(y - x, step=1 / max(samples_before, samples_after)),
        p_fall=p_fall,
        p_rise=p_rise,
        num_tasks=len(tasks),
        num_left_out=len(before.rewards) - len(tasks),
        samples_before=samples_before,
        samples_after=samples_after,
    )


def _samples(score: Score, tasks: Sequence[str]) -> float:
    return float(np.mean([sum(r is not None for r in score.rewards[task]) for task in tasks]))


def sign_flip(differences: Floats) -> tuple[float, float]:
    """One-sided p for a fall and for a rise of the mean of `differences` [tasks].

    A sum with random signs is low exactly when few of the sizes |d| got a plus, so the tails of
    `sum of sizes with a plus`, a sum of independent fair choices, are all that is needed.
    """
    units = np.rint(differences * UNITS).astype(np.int64)
    units = units[units != 0]
    if units.size == 0:
        return 1.0, 1.0
    units //= np.gcd.reduce(units)
    observed = int(units[units > 0].sum())
    probability = _subset_sums(np.abs(units))
    floor = max(0.5**units.size, SMALLEST_P)
    fall, rise = probability[: observed + 1].sum(), probability[observed:].sum()
    return float(np.clip(fall, floor, 1.0)), float(np.clip(rise, floor, 1.0))


def _subset_sums(sizes: NDArray[np.int64]) -> Floats:
    """Distribution of the sum of a random subset of `sizes`, [sum(sizes) + 1], by characteristic function.

    Each size a contributes (1 + exp(-i w a)) / 2 = exp(-i w a / 2) cos(w a / 2) at w = 2 pi j / length.
    """
    total = int(sizes.sum())
    length = total + 1
    frequencies = np.arange(length // 2 + 1)
    cosine = np.cos(np.pi * np.arange(2 * length) / length)
    transform = np.exp(-1j * np.pi * frequencies * (total / length))
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        transform *= cosine[frequencies * size % (2 * length)] ** count
    return np.fft.irfft(transform, length)


def difference_interval(differences: Floats, step: float) -> tuple[float, float]:
    """95% Student interval of the mean of `differences` [tasks], never of zero width.

    Two tasks that differ by one sample up and one down (`step`, in reward) are added, as Bonett and Price do
    for paired proportions (2012, J. Educ. Behav. Stat. 37(4)), so that few or equal tasks give no certainty.
    """
    from scipy.special import stdtrit

    widened = np.append(differences, (step, -step))
    half = stdtrit(widened.size - 1, 0.975) * widened.std(ddof=1) / np.sqrt(widened.size)
    mean = widened.mean()
    return float(mean - half), float(mean + half)
