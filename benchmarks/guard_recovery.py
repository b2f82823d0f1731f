"""Recoveries, the end check and small losses under the guard's rule, by formula-free simulation. No kascade
here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import t as student

from benchmarks.guard_cascade import Bools, Setting
from benchmarks.guard_rule import Rule, combined, fall_and_error, futile, suspicious
from benchmarks.guard_world import FITS, Floats, Ints, drifted, lowered, paired, tasks


@dataclass(frozen=True, slots=True)
class Keep:
    """Non-inferiority in looks: kept where the lower limit of the difference lies above -margin.

    futile: given up where the last look would show kept, and lost, with less than this chance. claims:
    comparisons over which the level of `lost` is divided.
    """

    margin: float = 0.03
    level: float = 0.05
    sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    futile: float = 0.005
    claims: int = 1

    def quantile(self, size: int, num_tasks: int, claims: int = 1) -> float:
        """Errors between the difference and a limit at this look."""
        return float(student.ppf(1 - self.level / claims * size / sum(self.sizes), num_tasks - 1))


def kept_and_lost(
    rng: np.random.Generator, keep: Keep, before: Floats, after: Floats, shared: float
) -> tuple[Bools, Bools, float]:
    """Which rows are kept, which are lost, and the samples per task that it took, mean."""
    rows, num_tasks = before.shape
    lost_pairs, won_pairs = np.zeros(before.shape, dtype=np.int64), np.zeros(before.shape, dtype=np.int64)
    kept, lost = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    left, have, used = np.arange(rows), 0, 0
    for size in keep.sizes:
        more = paired(rng, before[left], after[left], size - have, shared)
        lost_pairs[left] += more[0]
        won_pairs[left] += more[1]
        used += len(left) * (size - have)
        have = size
        fall, error = fall_and_error(lost_pairs[left], won_pairs[left], size)
        error = np.maximum(error, np.sqrt(2) / size / num_tasks)  # two tasks that differ by one answer
        half = keep.quantile(size, num_tasks, keep.claims) * error
        kept[left] = fall + keep.quantile(size, num_tasks) * error < keep.margin
        hope = foretold(keep, lost_pairs[left], won_pairs[left], size)
        last = size == keep.sizes[-1]
        beyond = fall - half > (0.0 if last else keep.margin)
        lost[left] = ~kept[left] & (beyond | (hope.no_kept & (fall - half > 0)))
        left = left[~kept[left] & ~lost[left] & ~(hope.no_kept & hope.no_lost)]
        if not len(left):
            break
    return kept, lost, used / rows


@dataclass(frozen=True, slots=True)
class Hope:
    """Which rows the last look would hardly show as kept, and which as lost."""

    no_kept: Bools
    no_lost: Bools


def foretold(keep: Keep, lost: Ints, won: Ints, size: int) -> Hope:
    """By the spread of pairs inside the tasks: the tasks stay the same, and their answers become more."""
    num_tasks, most = lost.shape[1], keep.sizes[-1]
    if size < 2 or size == most:
        return Hope(np.zeros(len(lost), dtype=bool), np.zeros(len(lost), dtype=bool))
    falls = (lost - won) / size
    inside = ((lost + won) / size - falls**2) / (size - 1)  # of each task's mean
    now = inside.mean(axis=1) / num_tasks
    then = now * size / most
    between = np.maximum(falls.var(axis=1, ddof=1) / num_tasks - now, 0.0)
    error = np.sqrt(between + then)
    half, half_lost = (keep.quantile(most, num_tasks, claims) * error for claims in (1, keep.claims))
    moves, fall = np.sqrt(np.maximum(now - then, 1e-18)), falls.mean(axis=1)
    kept, gone = ndtr((keep.margin - fall - half) / moves), ndtr((fall - half_lost) / moves)
    return Hope(np.asarray(kept < keep.futile), np.asarray(gone < keep.futile))


def called_recovered(
    keep: Keep, setting: Setting, missing: float, *, rows: int, seed: int, loss: float = 0.10
) -> tuple[float, float]:
    """Of losses of `loss` with `missing` still gone, the share called recovered; and samples per task."""
    rng = np.random.default_rng(seed)
    before = tasks(rng, rows, setting.tasks)
    start = before if not missing else lowered(rng, before, min(missing, loss), "proportional")
    kept, _, used = kept_and_lost(rng, keep, before, drifted(rng, start, setting.drift), setting.shared)
    return float(kept.mean()), used


def end_check(
    keep: Keep, setting: Setting, below: float, *, cascades: int, seed: int
) -> tuple[float, float, float]:
    """All nine kept, where one benchmark truly is `below` its best; that one kept; samples per task."""
    rng = np.random.default_rng(seed)
    before = tasks(rng, cascades * len(FITS), setting.tasks)
    after = before.copy()
    fallen = np.arange(cascades) * len(FITS) + np.arange(cascades) % len(FITS)
    if below:
        after[fallen] = lowered(rng, before[fallen], below, "proportional")
    kept, _, used = kept_and_lost(rng, keep, before, drifted(rng, after, setting.drift), setting.shared)
    return float(kept.reshape(-1, len(FITS)).all(axis=1).mean()), float(kept[fallen].mean()), used


def called_lost(
    keep: Keep, setting: Setting, below: float, *, contenders: int, cascades: int, seed: int
) -> tuple[float, float, float]:
    """Cascades whose end is called lost somewhere; benchmarks that are; samples per task of a comparison.

    The end is held against so many checkpoints, each a stage after the other, in the order of their screens,
    until one comparison does not show it to be kept. It is truly `below` all of them on every benchmark.
    """
    rng = np.random.default_rng(seed)
    line = [tasks(rng, cascades * len(FITS), setting.tasks)]
    while len(line) < contenders:
        line.append(drifted(rng, line[-1], setting.drift))
    end = line[-1] if not below else lowered(rng, line[-1], below, "proportional")
    end = drifted(rng, end, setting.drift)
    order = np.argsort([-rng.binomial(2, one).mean(axis=1) for one in line], axis=0)
    left, found, used = np.arange(len(end)), np.zeros(len(end), dtype=bool), []
    for place in range(contenders):
        before = np.stack(line)[order[place][left], left]
        kept, lost, samples = kept_and_lost(rng, keep, before, end[left], setting.shared)
        found[left] |= lost
        used += [samples] * len(left)
        left = left[kept]
        if not len(left):
            break
    return float(found.reshape(-1, len(FITS)).any(axis=1).mean()), float(found.mean()), float(np.mean(used))


def salami(
    rule: Rule, keep: Keep, setting: Setting, *, step: float, rows: int, seed: int
) -> tuple[float, float]:
    """`step` is lost in each stage. The share called in a stage, and the share that ends neither called nor
    flagged: kept in the end check against the first checkpoint, which was the best.
    """
    rng = np.random.default_rng(seed)
    best = tasks(rng, rows, setting.tasks)
    current, called = best, np.zeros(rows, dtype=bool)
    for _ in range(rule.stages):
        current = drifted(rng, lowered(rng, current, step, "proportional"), setting.drift)
        left = np.flatnonzero(~called)
        screened = paired(rng, best[left], current[left], rule.screen_samples, setting.shared)
        called[left] |= _confirmed(rng, rule, best[left], current[left], suspicious(*screened, rule))
    kept, _, _ = kept_and_lost(rng, keep, best, current, setting.shared)
    return float(called.mean()), float((kept & ~called).mean())


def _confirmed(rng: np.random.Generator, rule: Rule, before: Floats, after: Floats, screened: Bools) -> Bools:
    left = np.flatnonzero(screened)
    lost, won = np.zeros(before.shape, dtype=np.int64), np.zeros(before.shape, dtype=np.int64)
    p, called, have = np.ones(len(before)), np.zeros(len(before), dtype=bool), 0
    for size, share in zip(rule.sizes, rule.shares, strict=True):
        more = paired(rng, before[left], after[left], size - have)
        lost[left] += more[0]
        won[left] += more[1]
        have = size
        p[left] = np.minimum(p[left], combined(lost[left], won[left], size, rule) / share)
        drop, error = fall_and_error(lost[left], won[left], size)
        hit = (p[left] <= rule.verdict_level / rule.benchmarks) & (drop >= rule.min_drop - 1e-9)
        called[left] |= hit
        left = left[~hit & ~futile(drop, error, rule)]
    return called
