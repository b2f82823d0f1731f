"""Speeds of graders in two checkouts, side by side: `python -m benchmarks.graders_beside OTHER [NAME ...]`.

Each checkout grades the same generated tasks (the reference, another's, nothing) in a process of its own, in
turns, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from scipy import stats

from kascade.environment_names import BUILTIN

HERE = Path(__file__).resolve().parents[1]
FURTHER = (
    *("bfcl", "single_step_tool_use_with_argument_comparison", "swerl_llm_judge", "ruler", "reasoning_gym"),
    *("tool_dialogues", "workplace_dialogues"),
)
TASKS, PAIRS = 60, 12
SHORTEST_ROUND = 0.08  # CPU seconds
WORKER = f"""
import sys
from kascade.clock import cpu_seconds
from kascade.environments import get_environment
from kascade.environments.base import generate_tasks
work = {{}}
for line in sys.stdin:
    name, calls = line.split()
    if name not in work:
        environment = get_environment(name)
        tasks = generate_tasks(environment, split="test", count={TASKS}, seed=0)
        own = [str(task.reference) for task in tasks]
        groups = [(task, [a, b, ""]) for task, a, b in zip(tasks, own, own[1:] + own[:1])]
        work[name] = lambda environment=environment, groups=groups: environment.grade_all(groups)
        work[name]()
    start = cpu_seconds()
    for _ in range(int(calls)):
        work[name]()
    print((cpu_seconds() - start) / int(calls), flush=True)
"""


class Side:
    """The process of one checkout."""

    def __init__(self, checkout: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, name: str, calls: int) -> float:
        """CPU seconds of one pass over all tasks, over so many passes."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(name, calls, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def beside(name: str, ours: Side, other: Side) -> str:
    """One row: answers per CPU second of both, and the ratio with its 95% interval over pairs of rounds."""
    slowest = max(side.seconds(name, 3) for side in (ours, other))
    calls = max(1, math.ceil(SHORTEST_ROUND / slowest))
    times = []
    for number in range(PAIRS):
        first, second = (ours, other) if number % 2 else (other, ours)
        found = {side: side.seconds(name, calls) for side in (first, second)}
        times.append((found[ours], found[other]))
    logs = [math.log(theirs / own) for own, theirs in times]
    mean = sum(logs) / PAIRS
    deviation = math.sqrt(sum((one - mean) ** 2 for one in logs) / (PAIRS - 1))
    half = float(stats.t.ppf(0.975, PAIRS - 1)) * deviation / math.sqrt(PAIRS)
    rates = [3 * TASKS / median(side) for side in zip(*times, strict=True)]
    low, high = math.exp(mean - half), math.exp(mean + half)
    return f"| {name} | {rates[0]:,.0f} | {rates[1]:,.0f} | {math.exp(mean):.2f} | {low:.2f} to {high:.2f} |"


def main(other: str, *names: str) -> None:
    sides = Side(HERE), Side(Path(other).resolve())
    print("| grader | ours, answers / CPU s | other | ratio | 95% |\n|---|---|---|---|---|")
    for name in names or (*BUILTIN, *FURTHER):
        print(beside(name, *sides), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
