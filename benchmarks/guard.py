"""The guard's rule on simulated cascades: false alarms, falls of five points found, answers. By code of its
own."""

from __future__ import annotations

from benchmarks.guard_cascade import Setting, false_alarms, found_in_first_stage
from benchmarks.guard_rule import Rule
from benchmarks.guard_world import Drift
from benchmarks.measure import Measurement

TASKS = 400


def run(quick: bool) -> list[Measurement]:
    cascades, falls = (20, 180) if quick else (500, 1800)
    unchanged = false_alarms(Rule(), Setting(TASKS), cascades, seed=0)
    drifting = Setting(TASKS, Drift("beta", 10.0))
    found = found_in_first_stage(Rule(), drifting, 0.05, "uniform", rows=falls, seed=1)
    of = f"of {cascades} cascades, %"
    return [
        Measurement("guard, false alarms when nothing changed", 100 * unchanged.alarmed / cascades, of),
        Measurement("guard, falls of 5 points found in the first stage", 100 * found, f"of {falls}, %"),
        Measurement("guard, samples per task and benchmark", unchanged.samples, "samples"),
    ]
