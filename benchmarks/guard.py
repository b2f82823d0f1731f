"""The guard on simulated cascades: how often it cries wolf, and how often it finds a fall of five points."""

from __future__ import annotations

from benchmarks.measure import Measurement
from kascade.guard.simulate import Setting, simulate

DROP = 0.05


def run(quick: bool) -> list[Measurement]:
    cascades = 20 if quick else 300
    unchanged = simulate(Setting(), cascades, seed=0)
    fallen = simulate(Setting(drop=DROP), cascades, seed=1)
    assert fallen.detected is not None
    of = f"of {cascades} cascades, %"
    return [
        Measurement("guard, false alarms when nothing changed", 100 * unchanged.alarmed, of),
        Measurement("guard, falls of 5 points found", 100 * fallen.detected, of),
        Measurement("guard, samples a task and benchmark", unchanged.samples, "samples"),
    ]
