"""How much of a loss is back, on draws that were not used to find it.

The samples that found a loss are too low by selection: a share of the loss measured on them is too high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from kascade.guard.comparison import check_same_tasks
from kascade.guard.rewards import TaskRewards


@dataclass(frozen=True, slots=True)
class Share:
    """back: after - low, loss: before - low, means over tasks. interval: 95% of back / loss, None where
    open."""

    back: float
    loss: float
    interval: tuple[float, float] | None

    @property
    def value(self) -> float | None:
        """1 is all of it; None where the draws show no loss at all."""
        return self.back / self.loss if self.loss > 0 else None


def recovered_share(before: TaskRewards, low: TaskRewards, after: TaskRewards) -> Share | None:
    """The share of the loss from `before` to `low` that `after` has back; None without a commonly graded
    task. Raises KascadeError where they are not of the same benchmark and the same tasks.

    The interval is Fieller's (J. R. Stat. Soc. B 16, 1954), over tasks: a ratio of two noisy means.
    """
    for other in (low, after):
        check_same_tasks(before, other)
    means = [one.task_means() for one in (before, low, after)]
    tasks = [task for task in means[0] if all(task in one for one in means)]
    if not tasks:
        return None
    high, under, now = (np.array([one[task] for task in tasks]) for one in means)
    back, loss = now - under, high - under
    return Share(float(back.mean()), float(loss.mean()), _fieller(back, loss))


def total(shares: Sequence[Share]) -> float | None:
    """The share over several benchmarks together."""
    loss = sum(share.loss for share in shares)
    return sum(share.back for share in shares) / loss if loss > 0 else None


def _fieller(top: np.ndarray, bottom: np.ndarray) -> tuple[float, float] | None:
    count = len(top)
    if count < 2:
        return None
    (xx, xy), (_, yy) = np.cov(top, bottom) / count
    t2 = float(stdtrit(count - 1, 0.975)) ** 2
    x, y = float(top.mean()), float(bottom.mean())
    a, b, c = y * y - t2 * yy, x * y - t2 * xy, x * x - t2 * xx
    if a <= 0:
        return None
    half = float(np.sqrt(max(0.0, b * b - a * c)))
    return (b - half) / a, (b + half) / a
