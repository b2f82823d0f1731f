"""Whole cascades under the guard's rule, many at once: false alarms, answers drawn, falls found. No kascade
here."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.guard_rule import Rule, combined, fall_and_error, futile, holm, shown_better, suspicious
from benchmarks.guard_world import FITS, Drift, Floats, Ints, drifted, lowered, paired, tasks

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Setting:
    """A cascade: tasks a benchmark, drift of every stage, and how much of the random numbers is shared."""

    tasks: int
    drift: Drift = field(default_factory=Drift)
    shared: float = 0.0


@dataclass(slots=True)
class Pool:
    """Confirming answers of a baseline, drawn when first needed and kept: right ones by look, [R, T,
    looks]."""

    right: Ints
    drawn: Ints  # [R], looks drawn

    @classmethod
    def empty(cls, rows: int, num_tasks: int, looks: int) -> Pool:
        return cls(np.zeros((rows, num_tasks, looks), dtype=np.int8), np.zeros(rows, dtype=np.int64))

    def answers(self, rng: np.random.Generator, rows: Ints, look: int, chances: Floats, size: int) -> Ints:
        """Right answers of look `look` for these rows, drawn now where they were not yet."""
        new = rows[self.drawn[rows] <= look]
        self.right[new, :, look] = rng.binomial(size, chances[new])
        self.drawn[new] = look + 1
        return self.right[rows, :, look].astype(np.int64)


def against_pool(
    rng: np.random.Generator, right: Ints, size: int, chances: tuple[Floats, Floats], shared: float
) -> tuple[Ints, Ints]:
    """Pairs that a candidate loses and wins against `right` of `size` kept answers of each task.

    chances: before and after, [R, T].
    """
    before, after = chances
    if_right = shared * np.minimum(1, after / np.maximum(before, 1e-12)) + (1 - shared) * after
    gained = np.maximum(after - before, 0) / np.maximum(1 - before, 1e-12)
    if_wrong = shared * gained + (1 - shared) * after
    lost = rng.binomial(right, np.clip(1 - if_right, 0, 1))
    return lost, rng.binomial(size - right, np.clip(if_wrong, 0, 1))


@dataclass(slots=True)
class Cascades:
    """C cascades of nine benchmarks each; row c * 9 + b is benchmark b of cascade c."""

    rng: np.random.Generator
    rule: Rule
    setting: Setting
    count: int
    current: Floats = field(init=False)
    best: Floats = field(init=False)
    best_screen: Ints = field(init=False)
    pool: Pool = field(init=False)
    answers: float = 0.0

    def __post_init__(self) -> None:
        rows = self.count * len(FITS)
        self.current = tasks(self.rng, rows, self.setting.tasks)
        self.best = self.current.copy()
        self.best_screen = self.rng.binomial(self.rule.screen_samples, self.current)
        self.pool = Pool.empty(rows, self.setting.tasks, self.rule.looks)

    def stage(self, fall: float = 0.0, shape: str = "proportional") -> Bools:
        """One stage: drift, a fall of every benchmark where asked, a verdict. Returns what was lost, [C,
        B]."""
        if fall:
            self.current = lowered(self.rng, self.current, fall, shape)
        self.current = drifted(self.rng, self.current, self.setting.drift)
        size = self.rule.screen_samples
        chances = (self.best, self.current)
        lost, won = against_pool(self.rng, self.best_screen, size, chances, self.setting.shared)
        screened = self.best_screen - lost + won
        called = self._confirm(np.flatnonzero(suspicious(lost, won, self.rule)))
        fell = (self.best - self.current).mean(axis=1).reshape(-1, len(FITS))
        self.answers += size * self.setting.tasks * len(self.current)
        better = shown_better(won - lost, self.rule)
        self.best[better], self.best_screen[better] = self.current[better], screened[better]
        self.pool.drawn[better] = 0
        return called, fell

    def _confirm(self, rows: Ints) -> Bools:
        rule, shape = self.rule, self.current.shape
        p, drop = np.ones(shape[0]), np.zeros(shape[0])
        lost, won = np.zeros(shape, dtype=np.int16), np.zeros(shape, dtype=np.int16)
        have = 0
        for look, (size, share) in enumerate(zip(rule.sizes, rule.shares, strict=True)):
            self._draw(rows, look, size - have, lost, won)
            have = size
            mine_lost, mine_won = lost[rows].astype(np.int64), won[rows].astype(np.int64)
            p[rows] = np.minimum(p[rows], combined(mine_lost, mine_won, size, rule) / share)
            drop[rows], error = fall_and_error(mine_lost, mine_won, size)
            found = (p[rows] <= rule.verdict_level / rule.benchmarks) & (drop[rows] >= rule.min_drop - 1e-9)
            rows = rows[~found & ~futile(drop[rows], error, rule)]
        tested = holm(p.reshape(-1, len(FITS)), rule.verdict_level)
        return np.asarray(tested & (drop.reshape(-1, len(FITS)) >= rule.min_drop - 1e-9))

    def _draw(self, rows: Ints, look: int, size: int, lost: Ints, won: Ints) -> None:
        fresh = int((self.pool.drawn[rows] <= look).sum())
        right = self.pool.answers(self.rng, rows, look, self.best, size)
        chances = self.best[rows], self.current[rows]
        more_lost, more_won = against_pool(self.rng, right, size, chances, self.setting.shared)
        lost[rows] += more_lost.astype(np.int16)
        won[rows] += more_won.astype(np.int16)
        self.answers += size * self.setting.tasks * (len(rows) + fresh)


@dataclass(frozen=True, slots=True)
class Alarms:
    """Cascades with a call, though nothing falls on average over tasks like these.

    cascades: how many were tried. alarmed: with a call on tasks whose mean chance truly fell by no more than
    the margin of the within-task test. small: with one on tasks that truly fell by less than `min_drop`.
    called: with any call. samples: answers per task, benchmark and stage.
    """

    cascades: int
    alarmed: int
    small: int
    called: int
    samples: float


def false_alarms(rule: Rule, setting: Setting, cascades: int, seed: int, batch: int = 250) -> Alarms:
    """Cascades in which nothing falls on average."""
    rng = np.random.default_rng(seed)
    counts, answers = np.zeros(3, dtype=np.int64), 0.0
    for start in range(0, cascades, batch):
        many = Cascades(rng, rule, setting, min(batch, cascades - start))
        found = np.zeros((3, many.count), dtype=bool)
        for _ in range(rule.stages):
            called, fell = many.stage()
            kinds = called & (fell <= rule.margin), called & (fell < rule.min_drop), called
            found |= np.stack([kind.any(axis=1) for kind in kinds])
        counts += found.sum(axis=1)
        answers += many.answers
    per_stage = cascades * rule.stages * len(FITS) * setting.tasks
    alarmed, small, any_call = map(int, counts)
    return Alarms(cascades, alarmed, small, any_call, answers / per_stage)


def found_in_first_stage(
    rule: Rule, setting: Setting, fall: float, shape: str, *, rows: int, seed: int
) -> float:
    """The share of benchmarks whose fall in the first stage is called; drift moves the stage that falls, too.

    A benchmark alone is held to the level of the smallest p of its family (Bonferroni), as in the worst case.
    """
    rng = np.random.default_rng(seed)
    before = tasks(rng, rows, setting.tasks)
    after = drifted(rng, lowered(rng, before, fall, shape), setting.drift)
    screened = paired(rng, before, after, rule.screen_samples, setting.shared)
    left = np.flatnonzero(suspicious(*screened, rule))
    lost, won = np.zeros(before.shape, dtype=np.int64), np.zeros(before.shape, dtype=np.int64)
    p, called, have = np.ones(rows), np.zeros(rows, dtype=bool), 0
    for size, share in zip(rule.sizes, rule.shares, strict=True):
        more = paired(rng, before[left], after[left], size - have, setting.shared)
        lost[left] += more[0]
        won[left] += more[1]
        have = size
        p[left] = np.minimum(p[left], combined(lost[left], won[left], size, rule) / share)
        drop, error = fall_and_error(lost[left], won[left], size)
        hit = (p[left] <= rule.verdict_level / rule.benchmarks) & (drop >= rule.min_drop - 1e-9)
        called[left] |= hit
        left = left[~hit & ~futile(drop, error, rule)]
    return float(called.mean())
