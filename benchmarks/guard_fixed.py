"""Benchmarks whose answers do not change, under the guard: `python -m benchmarks.guard_fixed`.

Log-likelihoods and greedy answers give one result per task, and none can be drawn afresh. The screen's
results then decide, and they have also chosen the baseline. Whole cascades are simulated: each stage decides
some tasks anew, by the same chances, so that nothing falls over tasks like these. Nothing of kascade is
imported. Prints Markdown with 95% Clopper-Pearson intervals.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.guard_rule import Rule, flip_tail, holm, shown_better, suspicious
from benchmarks.guard_table import share
from benchmarks.guard_world import FITS, Floats, Ints, tasks

RULE = Rule()
LOOSE = Rule(family_level=0.25)  # 20% over the stages: a level that a simulation can resolve


@dataclass(frozen=True, slots=True)
class World:
    """num_tasks: of each benchmark. anew: share of tasks that a stage decides anew. parts: a result is the
    share of so many parts that are right; 1: right or wrong. counted: whether p counts once per accepted
    checkpoint, among which these results chose the baseline.
    """

    num_tasks: int
    anew: float
    parts: int = 1
    counted: bool = True


def decided(rng: np.random.Generator, chances: Floats, world: World) -> Ints:
    """Results of a first checkpoint, [R, T]: parts that are right."""
    return np.asarray(rng.binomial(world.parts, chances), dtype=np.int64)


def decided_anew(rng: np.random.Generator, now: Ints, chances: Floats, world: World) -> Ints:
    """Results after one more stage that lost nothing on average."""
    return np.where(rng.random(now.shape) < world.anew, decided(rng, chances, world), now)


def tested(before: Ints, after: Ints, choices: int, rule: Rule, world: World) -> tuple[Floats, Floats]:
    """p, [R], of one look over tasks alone, and the mean fall; p is 1 where the screen finds nothing."""
    lost, won = np.maximum(before - after, 0), np.maximum(after - before, 0)
    p = np.ones(len(before))
    rows = np.flatnonzero(suspicious(lost, won, rule))
    p[rows] = np.minimum(1.0, flip_tail((after - before)[rows]) * (choices if world.counted else 1))
    return p, (before - after).mean(axis=1) / world.parts


def alarmed(rule: Rule, world: World, cascades: int, seed: int, batch: int = 250) -> int:
    """Cascades of nine fixed benchmarks with a loss called in any stage."""
    rng, found = np.random.default_rng(seed), 0
    for start in range(0, cascades, batch):
        count = min(batch, cascades - start)
        chances = tasks(rng, count * len(FITS), world.num_tasks)
        now = decided(rng, chances, world)
        best, any_call = now.copy(), np.zeros(count, dtype=bool)
        for stage in range(rule.stages):
            now = decided_anew(rng, now, chances, world)
            p, fall = tested(best, now, stage + 1, rule, world)
            called = holm(p.reshape(-1, len(FITS)), rule.verdict_level)
            any_call |= (called & (fall.reshape(called.shape) >= rule.min_drop - 1e-9)).any(axis=1)
            better = shown_better(now - best, rule)
            best[better] = now[better]
        found += int(any_call.sum())
    return found


def called(rule: Rule, world: World, fall: float, *, choices: int, rows: int, seed: int) -> int:
    """Benchmarks whose fall is called by one verdict, which holds `choices` accepted checkpoints.

    Besides what the stage decides anew, so many right results are lost that the mean falls by `fall`. A
    benchmark is held to the level of the smallest p of its family.
    """
    rng = np.random.default_rng(seed)
    chances = tasks(rng, rows, world.num_tasks)
    before = decided(rng, chances, world)
    after = decided_anew(rng, before, chances, world)
    lost = np.minimum(1.0, fall * world.parts / np.maximum(after.mean(axis=1, keepdims=True), 1e-9))
    after = after - rng.binomial(after, lost)
    p, drop = tested(before, after, choices, rule, world)
    return int(((p <= rule.verdict_level / rule.benchmarks) & (drop >= rule.min_drop - 1e-9)).sum())


def alarms(cascades: int) -> None:
    """False alarms at the guard's level, and at one that can be told from 0."""
    print("| tasks | decided anew | results | at 1% | at 25% | at 25%, each p counted once |\n|-|-|-|-|-|-|")
    for num_tasks in (128, 400, 1000):
        for anew, parts in ((0.1, 1), (0.3, 1), (1.0, 1), (0.3, 4)):
            world = World(num_tasks, anew, parts)
            once = replace(world, counted=False)
            found = [
                share(alarmed(rule, one, cascades, seed=1), cascades)
                for rule, one in ((RULE, world), (LOOSE, world), (LOOSE, once))
            ]
            kind = "right or wrong" if parts == 1 else f"of {parts} parts"
            print(f"| {num_tasks} | {anew:.0%} | {kind} | {' | '.join(found)} |", flush=True)


def power(rows: int) -> None:
    """Falls that the last of eight stages is called for."""
    print("\n| fall, points | tasks | 10% decided anew | 30% decided anew |\n|-|-|-|-|")
    for fall in (0.03, 0.05, 0.08, 0.12):
        for num_tasks in (128, 400, 1000):
            found = [
                share(
                    called(RULE, World(num_tasks, anew), fall, choices=RULE.stages, rows=rows, seed=2), rows
                )
                for anew in (0.1, 0.3)
            ]
            print(f"| {100 * fall:g} | {num_tasks} | {' | '.join(found)} |", flush=True)


def main() -> None:
    """Print everything. `--quick` takes a tenth of the repetitions."""
    scale = 0.1 if "--quick" in sys.argv else 1.0
    start = time.process_time()
    alarms(round(1000 * scale))
    power(round(1800 * scale))
    print(f"\n{time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()
