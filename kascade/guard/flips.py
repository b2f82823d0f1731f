"""Exact tests by flipped signs: of the tasks' differences, and of pairs of answers inside the tasks.

Where nothing changed, a difference is as often d as -d. Given the sizes |d| every pattern of signs is then
equally likely, whatever the rewards look like: bounded, discrete, with many ties, from few tasks. A paired t
test fails there (equal differences on five tasks give it p = 0, while here p cannot fall under 2^-5).

`sign_flip` flips tasks: these are a sample, and the statement is about tasks like them. `pair_flip` flips
pairs of answers inside the tasks: the statement is about these tasks, and a fall in few of them is seen, too.
Swapping the two answers of a pair changes nothing where the model answers as before, also when both used the
same random numbers. With one right-or-wrong answer a pair it is McNemar's test.

Sources: Fisher, The Design of Experiments (1935), section 21; McNemar, Psychometrika 12 (1947); for scores of
language models Dror et al., ACL 2018, P18-1128, and Miller, arXiv 2411.00640 (tasks as a sample or fixed).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kascade.errors import KascadeError
from kascade.guard.ranges import part

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Differences are counted in 1/2880: exact for means of 1 to 6, 8, 9, 10, 12, 15, 16, 32 or 64 binary
# answers. Others are rounded first, which keeps the test exact for the rounded values. Where the sum of all
# sizes would take more than MOST steps, coarser units are used.
UNITS = (2880, 720, 144, 24)
MOST = 2**19
ROUNDING = 1e-9  # of differences of means
SMALLEST_P = 1e-15  # the transform's rounding error: smaller p are not resolved


def sign_flip(differences: Floats) -> tuple[float, float]:
    """One-sided p for a fall and for a rise of the mean of `differences` [tasks], each from -1 to 1.

    Raises KascadeError for others.
    """
    units, _ = _in_units(differences)
    if units.size == 0:
        return 1.0, 1.0
    probability = subset_sums(np.abs(units))
    observed = int(units[units > 0].sum())
    floor = max(0.5**units.size, SMALLEST_P)
    fall, rise = probability[: observed + 1].sum(), probability[observed:].sum()
    return float(np.clip(fall, floor, 1.0)), float(np.clip(rise, floor, 1.0))


def pair_flip(differences: Floats, margin: float = 0.0) -> float:
    """One-sided p that the mean of `differences` [pairs of answers] fell by more than `margin` of reward.

    The fall beyond the margin is held against the distribution of the sum with random signs. With margin 0
    that is exact; with one, the signs' spread stands for the answers' own, which is at most as large.
    Raises KascadeError for differences that are not from -1 to 1, and for a margin that is not from 0 to 1.
    """
    part("a margin", margin)
    units, per_reward = _in_units(differences)
    if units.size == 0:
        return 1.0
    probability = subset_sums(np.abs(units))
    allowed = margin * differences.size * per_reward / 2  # a pair flipped up moves the sum by twice its size
    reached = int(np.floor(units[units > 0].sum() + allowed + 1e-9))
    floor = max(0.5**units.size, SMALLEST_P)
    return float(np.clip(probability[: reached + 1].sum(), floor, 1.0))


def _in_units(differences: Floats) -> tuple[Ints, float]:
    """The differences that are not 0 as whole numbers without a common divisor, and how many make 1 of
    reward."""
    largest = float(np.abs(differences).max(initial=0.0))
    if not largest <= 1 + ROUNDING:
        raise KascadeError(f"differences of rewards are numbers from -1 to 1, not {largest!r}")
    if largest == 0.0:
        return np.zeros(0, dtype=np.int64), 1.0
    finer = 1.0 if largest * UNITS[0] >= 1 else 1 / largest  # all of them would be rounded to none
    for steps in UNITS:
        units = np.rint(differences * steps * finer).astype(np.int64)
        units = units[units != 0]
        divisor = int(np.gcd.reduce(units)) if units.size else 1
        if np.abs(units).sum() // divisor <= MOST:
            break
    return units // divisor, steps * finer / divisor


def subset_sums(sizes: Ints) -> Floats:
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
