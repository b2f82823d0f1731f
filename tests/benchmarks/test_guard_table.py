"""The guard's table at small sizes: the code of its own keeps the promises of docs/guard-figures.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.guard_cascade import Setting, false_alarms, found_in_first_stage
from benchmarks.guard_fixed import LOOSE, RULE, World, alarmed, called
from benchmarks.guard_recovery import Keep, called_lost, called_recovered, end_check, salami
from benchmarks.guard_rule import Rule
from benchmarks.guard_world import Drift

W10 = Drift("beta", 10.0)
FILES = ("guard_world", "guard_rule", "guard_cascade", "guard_recovery", "guard_table", "guard_fixed")


def test_the_table_imports_nothing_of_the_code_it_is_about() -> None:
    names = ", ".join(f"benchmarks.{name}" for name in FILES)
    code = f"import sys, {names}; print([m for m in sys.modules if m.split('.')[0] == 'kascade'])"
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_nothing_is_called_and_half_the_answers_are_enough() -> None:
    found = false_alarms(Rule(), Setting(400), 25, seed=1)
    assert (found.alarmed, found.small, found.called) == (0, 0, 0)
    assert found.samples < 8.1 / 2  # what the rule before took, as the table measures it


def test_with_drift_only_tasks_that_truly_fell_are_called() -> None:
    """The three readings of a false alarm: a call on tasks that fell by a point at most, by less than three,
    any call. Strong drift moves these tasks, and not tasks like them."""
    found = false_alarms(Rule(), Setting(200, W10), 40, seed=1)
    assert found.alarmed == 0
    assert found.alarmed <= found.small < found.called


def test_falls_are_found_with_drift_in_their_stage() -> None:
    for tasks, least in ((400, 0.95), (200, 0.80)):
        found = found_in_first_stage(Rule(), Setting(tasks, W10), 0.05, "uniform", rows=270, seed=2)
        assert found >= least - 2.5 * (least * (1 - least) / 270) ** 0.5
    whole = found_in_first_stage(Rule(), Setting(128), 0.10, "whole tasks", rows=270, seed=2)
    assert whole >= 0.95


def test_half_a_loss_is_not_recovered_and_small_ones_end_as_not_kept() -> None:
    assert called_recovered(Keep(), Setting(128, W10), 0.05, rows=270, seed=3)[0] <= 0.02
    assert end_check(Keep(), Setting(400), 0.0, cascades=15, seed=3)[0] >= 0.9
    assert salami(Rule(), Keep(), Setting(200), step=0.01, rows=45, seed=3)[1] == 0.0


def test_what_nothing_lost_is_rarely_called_lost_and_what_is_lost_is_called() -> None:
    """Nine benchmarks against four checkpoints each, under strong drift."""
    keep, where = Keep(claims=9 * 4), Setting(128, W10)
    false = called_lost(keep, where, 0.0, contenders=4, cascades=60, seed=3)[0]
    assert false <= 0.05 + 2.5 * (0.05 * 0.95 / 60) ** 0.5
    assert called_lost(Keep(), where, 0.0, contenders=4, cascades=60, seed=3)[0] > 0.2, "not divided"
    assert called_lost(keep, where, 0.1, contenders=4, cascades=20, seed=3)[1] >= 0.95


def test_fixed_answers_keep_the_level_and_show_falls() -> None:
    """At a level of 20% over the stages the alarms of 100 cascades are within what chance allows."""
    assert alarmed(RULE, World(400, 0.3), 50, seed=3) == 0
    assert alarmed(LOOSE, World(400, 0.3), 100, seed=3) <= 20 + 2.5 * 4
    assert called(RULE, World(1000, 0.1), 0.08, choices=8, rows=90, seed=3) >= 85
