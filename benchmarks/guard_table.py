"""The table of the guard's figures: `python -m benchmarks.guard_table`, some minutes on one core.

Independent of the code it is about: nothing of kascade is imported. Shares come with 95% Clopper-Pearson
intervals. `--quick` takes a tenth of the repetitions. Names of parts (alarms, power, recoveries, ends,
losses) print only these. Prints Markdown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

from scipy.stats import beta

from benchmarks.guard_cascade import Setting, false_alarms, found_in_first_stage
from benchmarks.guard_recovery import Keep, called_lost, called_recovered, end_check, salami
from benchmarks.guard_rule import Rule
from benchmarks.guard_world import Drift

NONE, W100, W10 = Drift(), Drift("beta", 100.0), Drift("beta", 10.0)
DRIFTS = {
    "no drift": NONE,
    "symmetric .3": Drift("symmetric", 0.3),
    "symmetric 1": Drift("symmetric", 1.0),
    "Beta w = 100": W100,
    "Beta w = 10": W10,
    "skewed .5": Drift("skewed", 0.5),
    "skewed 1": Drift("skewed", 1.0),
    "correlated .8": Drift("symmetric", 0.5, shared=0.8),
}
RULE, MIDDLE, SMALL = Rule(), Rule(samples=16, looks=4), Rule(samples=8, looks=3)
# before the looks: screen at .1, 16 fresh samples at once, tasks alone, the level over all 24 verdicts
EARLIER = Rule(
    screen_level=0.1,
    samples=16,
    looks=1,
    margin=9.0,
    better_errors=0.0,
    futile_fall=1e-9,
    first_share=2 / 3,
)


def share(count: int, of: int) -> str:
    """A share with its 95% Clopper-Pearson interval, in percent."""
    low = beta.ppf(0.025, count, of - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, of - count) if count < of else 1.0
    return f"{100 * count / of:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def alarms(cascades: int) -> None:
    """False alarms and answers, where nothing falls on average."""
    print("Calls, % of cascades: these tasks fell by a point at most; by less than three; any call.")
    print("| tasks x samples | drift | a point at most | less than three | any | samples |")
    print("|-|-|-|-|-|-|")
    for tasks, rule in ((128, SMALL), (128, MIDDLE), (200, RULE), (400, RULE)):
        for name, drift in DRIFTS.items():
            found = false_alarms(rule, Setting(tasks, drift), cascades, seed=1)
            calls = (found.alarmed, found.small, found.called)
            cells = [*(share(one, cascades) for one in calls), f"{found.samples:.2f}"]
            print(f"| {tasks}x{rule.samples} | {name} | {' | '.join(cells)} |", flush=True)
    print("\nThe same without the test within tasks (`within_share: 0`): any call, %")
    for tasks, rule in ((128, SMALL), (200, RULE), (400, RULE)):
        for name in ("symmetric 1", "Beta w = 10", "skewed 1"):
            alone = replace(rule, within_share=0.0)
            found = false_alarms(alone, Setting(tasks, DRIFTS[name]), cascades, seed=1)
            print(f"{tasks}x{rule.samples}, {name}: {share(found.called, cascades)}", flush=True)
    for tasks in (200, 400):
        found = false_alarms(EARLIER, Setting(tasks), max(20, cascades // 4), seed=1)
        answers = found.samples * tasks * 9
        print(f"\nBefore, {tasks}x16: {found.samples:.2f} samples, {answers:.0f} answers per checkpoint")
    for shared in (0.0, 0.3, 0.65):
        found = false_alarms(RULE, Setting(400, NONE, shared), max(20, cascades // 4), seed=2)
        answers = found.samples * 400 * 9
        print(f"Now, 400x32, common random numbers {shared}: {found.samples:.2f}, {answers:.0f} answers")


def power(rows: int) -> None:
    """Falls called in the first stage, in which the drift is there, too."""
    print("\n| fall | tasks x samples | no drift | w = 100 | w = 10 |\n|-|-|-|-|-|")
    falls = (
        (0.03, "uniform"),
        (0.05, "uniform"),
        (0.08, "uniform"),
        (0.05, "whole tasks"),
        (0.10, "whole tasks"),
    )
    for fall, shape in falls:
        for tasks, rule in ((128, SMALL), (128, MIDDLE), (128, RULE), (200, RULE), (400, RULE)):
            found = [
                found_in_first_stage(rule, Setting(tasks, drift), fall, shape, rows=rows, seed=3)
                for drift in (NONE, W100, W10)
            ]
            cells = " | ".join(share(round(one * rows), rows) for one in found)
            print(f"| {100 * fall:g} {shape} | {tasks}x{rule.samples} | {cells} |", flush=True)


def recoveries(rows: int) -> None:
    """Losses of ten points, of which some is still missing: called recovered."""
    print(
        "\n| still missing | tasks, most samples | recovered, no drift % | w = 10 % | samples |\n|-|-|-|-|-|"
    )
    for missing in (0.0, 0.03, 0.05):
        for tasks, most in ((128, 32), (128, 64), (200, 64), (400, 64)):
            keep = Keep(sizes=tuple(2**i for i in range(1, most.bit_length())))
            found = [
                called_recovered(keep, Setting(tasks, drift), missing, rows=rows, seed=4)
                for drift in (NONE, W10)
            ]
            cells = " | ".join(share(round(one[0] * rows), rows) for one in found)
            print(f"| {100 * missing:g} | {tasks}, {most} | {cells} | {found[1][1]:.1f} |", flush=True)


def ends(cascades: int) -> None:
    """The end check of nine benchmarks, and one point lost in each stage."""
    print("\n| one below by | tasks | drift | all nine kept % | that one kept % | samples |\n|-|-|-|-|-|-|")
    for tasks in (128, 200, 400):
        for name in ("no drift", "Beta w = 100", "Beta w = 10"):
            for below in (0.0, 0.03):
                found = end_check(Keep(), Setting(tasks, DRIFTS[name]), below, cascades=cascades, seed=5)
                cells = [share(round(one * cascades), cascades) for one in found[:2]]
                print(
                    f"| {100 * below:g} | {tasks} | {name} | {' | '.join(cells)} | {found[2]:.1f} |",
                    flush=True,
                )
    rows = 9 * cascades
    for tasks, rule in ((128, SMALL), (200, RULE), (400, RULE)):
        called, slipped = salami(rule, Keep(), Setting(tasks), step=0.01, rows=rows, seed=6)
        print(
            f"\nOne point per stage, {tasks} tasks: called {called:.3f}, else kept at the end {slipped:.4f}",
            flush=True,
        )


def losses(cascades: int) -> None:
    """The word `lost` at the end, by the level of each comparison and by that of all."""
    print("\n| tasks | held against | drift | lower by | lost somewhere % | each lost % | samples |")
    print("|-|-|-|-|-|-|-|")
    cases = [(below, contenders) for below in (0.0, 0.05, 0.1) for contenders in (1, 4)]
    for tasks in (128, 400):
        for name in ("no drift", "Beta w = 100", "Beta w = 10"):
            for below, contenders in cases:
                found = [
                    called_lost(
                        Keep(claims=claims),
                        Setting(tasks, DRIFTS[name]),
                        below,
                        contenders=contenders,
                        cascades=cascades,
                        seed=7,
                    )
                    for claims in (1, 9 * contenders)
                ]
                somewhere = " → ".join(share(round(one[0] * cascades), cascades) for one in found)
                each = " → ".join(share(round(one[1] * 9 * cascades), 9 * cascades) for one in found)
                samples = " → ".join(f"{one[2]:.1f}" for one in found)
                row = f"{tasks} | {contenders} | {name} | {100 * below:g} | {somewhere} | {each} | {samples}"
                print(f"| {row} |", flush=True)


PARTS: dict[str, tuple[Callable[[int], None], int]] = {  # each with its repetitions
    "alarms": (alarms, 1000),
    "power": (power, 1800),
    "recoveries": (recoveries, 1800),
    "ends": (ends, 600),
    "losses": (losses, 400),
}


def main() -> None:
    """Print everything, or the parts that are named."""
    scale = 0.1 if "--quick" in sys.argv else 1.0
    start = time.process_time()
    for name in [name for name in PARTS if name in sys.argv] or PARTS:
        print_part, repetitions = PARTS[name]
        print_part(round(repetitions * scale))
    print(f"\n{time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()
