"""The guard's rule, written anew for its table: exact tails, looks, futility, Holm. Imports nothing of
kascade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from benchmarks.guard_world import Floats, Ints


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule for confirming. samples: at the last look; looks: each has twice the samples of the one
    before. within_share: the part of the level for the test within tasks."""

    screen_samples: int = 2
    screen_level: float = 0.25
    samples: int = 32
    looks: int = 5
    margin: float = 0.01
    within_share: float = 0.5
    min_drop: float = 0.03
    better_errors: float = 1.28
    futile_fall: float = 0.05
    futile_level: float = 0.005
    family_level: float = 0.01
    first_share: float = 0.8
    stages: int = 8
    benchmarks: int = 9

    @property
    def verdict_level(self) -> float:
        return self.family_level * self.first_share / self.stages

    @property
    def sizes(self) -> list[int]:
        return [max(1, self.samples >> (self.looks - 1 - look)) for look in range(self.looks)]

    @property
    def shares(self) -> Floats:
        sizes = np.array(self.sizes, dtype=float)
        return np.asarray(sizes / sizes.sum())


def flip_tail(differences: Ints, margin_units: float = 0.0) -> Floats:
    """P(the sum with random signs is at most the observed), [R] of [R, T], by saddlepoint (Lugannani, Rice
    1980).

    Continuity correction: half of the lattice's step, which is 2 where sums of the row have one parity.
    """
    sizes = np.abs(differences).astype(float)
    fall = -differences.sum(axis=1).astype(float) - margin_units
    spread = np.sqrt((sizes**2).sum(axis=1))
    z = np.where(spread > 0, fall / np.maximum(spread, 1e-12), 0)
    found = np.where(spread > 0, ndtr(-z), 1.0)
    for row in np.flatnonzero(z > 2.0):
        found[row] = _saddlepoint(sizes[row][sizes[row] > 0], fall[row])
    return found


def _saddlepoint(sizes: Floats, fall: float) -> float:
    """P(sum of +-size >= fall) on the lattice of step 2 * gcd."""
    step = 2 * float(np.gcd.reduce(sizes.astype(np.int64)))
    if fall >= sizes.sum() - 1e-9:
        return float(0.5 ** len(sizes)) if fall <= sizes.sum() + 1e-9 else 0.0
    at = fall - step / 2  # continuity correction
    tilt = at / (sizes**2).sum()
    for _ in range(50):
        mean = sizes * np.tanh(tilt * sizes)
        curve = (sizes**2 / np.cosh(tilt * sizes) ** 2).sum()
        change = (mean.sum() - at) / curve
        tilt = tilt - np.clip(change, -0.5 * abs(tilt) - 1e-9, 0.5 * abs(tilt) + 1e-9)
        if abs(change) < 1e-10 * abs(tilt):
            break
    cumulant = np.logaddexp(tilt * sizes, -tilt * sizes).sum() - len(sizes) * np.log(2)
    w = np.sqrt(max(2 * (tilt * at - cumulant), 1e-300))
    u = 2 * np.sinh(tilt * step / 2) / step * np.sqrt((sizes**2 / np.cosh(tilt * sizes) ** 2).sum())
    return float(ndtr(-w) + np.exp(-w * w / 2) / np.sqrt(2 * np.pi) * (1 / u - 1 / w))


def within_tail(lost: Ints, won: Ints, samples: int, margin: float) -> Floats:
    """P(as few wins among the differing pairs as observed, had `margin` of all pairs not fallen), [R]."""
    pairs = lost.shape[1] * samples
    n, wins = (lost + won).sum(axis=1), won.sum(axis=1)
    # n - 2 wins - margin * pairs is the fall beyond the margin; +-1 signs: wins* <= wins + margin * pairs / 2
    return np.asarray(np.where(n > 0, binom.cdf(np.floor(wins + margin * pairs / 2 + 1e-9), n, 0.5), 1.0))


def fall_and_error(lost: Ints, won: Ints, samples: int) -> tuple[Floats, Floats]:
    """The mean fall over tasks and its standard error over tasks, [R]."""
    falls = (lost - won) / samples
    return falls.mean(axis=1), falls.std(axis=1, ddof=1) / np.sqrt(falls.shape[1])


def combined(lost: Ints, won: Ints, samples: int, rule: Rule) -> Floats:
    """The smaller p of the two tests, each by its part of the level (Bonferroni), [R]."""
    found = flip_tail(won - lost) / (1 - rule.within_share)
    if rule.within_share:
        found = np.minimum(found, within_tail(lost, won, samples, rule.margin) / rule.within_share)
    return np.asarray(np.minimum(1.0, found))


def suspicious(lost: Ints, won: Ints, rule: Rule) -> np.ndarray:
    """Whether the screen looks like a fall, [R]: normal tail of the sign-flip."""
    differences = won - lost
    spread = np.sqrt((differences.astype(float) ** 2).sum(axis=1))
    z = -differences.sum(axis=1) / np.maximum(spread, 1e-12)
    return np.asarray((spread > 0) & (ndtr(-z) <= rule.screen_level))


def shown_better(rises: Ints, rule: Rule) -> np.ndarray:
    """Whether the candidate becomes the next baseline, [R]: the screen's mean rose by `better_errors`
    errors."""
    spread = np.sqrt((rises.astype(float) ** 2).sum(axis=1))
    total = rises.sum(axis=1)
    return np.asarray((total > 0) & (total >= rule.better_errors * spread))


def futile(fall: Floats, error: Floats, rule: Rule) -> np.ndarray:
    """Whether a fall of `futile_fall` is refuted, [R]: nothing more is drawn then."""
    return np.asarray(fall + ndtri(1 - rule.futile_level) * np.maximum(error, 1e-9) < rule.futile_fall)


def holm(p: Floats, level: float) -> np.ndarray:
    """Holm's step-down test of each row of [C, B]; those not tested have p = 1."""
    order = np.argsort(p, axis=1)
    bounds = level / (p.shape[1] - np.arange(p.shape[1]))
    passed = np.logical_and.accumulate(np.take_along_axis(p, order, axis=1) <= bounds, axis=1)
    found = np.zeros(p.shape, dtype=bool)
    np.put_along_axis(found, order, passed, axis=1)
    return found
