"""What the same random numbers save, by benchmark and by length of the answers.

`python -m benchmarks.guard_shared RUN ...` reads the kept answers of finished runs' end checks. The share is
the variance of paired differences inside the tasks, over what it would be with random numbers of their own: 1
saves nothing. Intervals (95%) resample tasks. Prints Markdown.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kascade.exams.answers import TaskAnswers, joined, read_answers

FEWEST = 8  # answers per task: fewer show no spread
LENGTHS = ((0, 8), (8, 16), (16, 32), (32, 48), (48, 10_000))  # tokens
RESAMPLED = 500


@dataclass(frozen=True, slots=True)
class Pair:
    """One task answered by two checkpoints. paired, apart: variances of a difference of two answers."""

    benchmark: str
    task: str
    tokens: float
    same_text: float
    paired: float
    apart: float


def pairs(run: Path) -> Iterator[Pair]:
    """The final checkpoint against each that the end check held it against."""
    (retention,) = sorted((run / "retention").glob("*.json"))[:1]
    final = json.loads(retention.read_text(encoding="utf-8"))["checkpoint"].split("@sha256:")[1]
    for path in sorted((run / "answers").glob(f"{final[:16]}/*.shared-end-0.jsonl")):
        own = joined(read_answers(path))
        for other in sorted((run / "answers").glob(f"*/{path.name}")):
            if other != path:
                before = joined(read_answers(other))
                for key in sorted(own.keys() & before.keys()):
                    yield from _pair(path.name.split(".")[0], before[key], own[key])


def _pair(benchmark: str, before: TaskAnswers, after: TaskAnswers) -> Iterator[Pair]:
    count = min(len(before.answers), len(after.answers))
    old, new = before.rewards[:count], after.rewards[:count]
    if count < FEWEST or None in old or None in new:
        return
    x, y = np.array(old, dtype=np.float64), np.array(new, dtype=np.float64)
    yield Pair(
        benchmark=benchmark,
        task=before.task_id,
        tokens=float(np.mean((*before.num_tokens[:count], *after.num_tokens[:count]))),
        same_text=float(np.mean([a == b for a, b in zip(before.answers, after.answers, strict=False)])),
        paired=float((y - x).var(ddof=1)),
        apart=float(x.var(ddof=1) + y.var(ddof=1)),
    )


def share(found: list[Pair], rng: np.random.Generator) -> tuple[float, float, float]:
    """The share with its interval; tasks are resampled, each with all its pairs."""
    by_task: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in found:
        sums = by_task[one.benchmark, one.task]
        sums[0] += one.paired
        sums[1] += one.apart
    sums_ = np.array(list(by_task.values()))
    drawn = sums_[rng.integers(0, len(sums_), (RESAMPLED, len(sums_)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / np.maximum(drawn[:, 1], 1e-12), (0.025, 0.975))
    total = sums_.sum(axis=0)
    return float(total[0] / total[1]), float(low), float(high)


def main(runs: list[str]) -> None:
    """Print the shares of all runs together."""
    found = [pair for run in runs for pair in pairs(Path(run))]
    rng = np.random.default_rng(0)
    print("| benchmark | tokens | tasks x pairs | same text | share [95%] |\n|-|-|-|-|-|")
    for benchmark in ("all", *sorted({one.benchmark for one in found})):
        for low, high in ((0, LENGTHS[-1][1]), *LENGTHS):
            row = [one for one in found if benchmark in {"all", one.benchmark} and low <= one.tokens < high]
            if len({one.task for one in row if one.apart}) < FEWEST:
                continue
            value, least, most = share(row, rng)
            same = np.mean([one.same_text for one in row])
            tokens = np.mean([one.tokens for one in row])
            label = "all" if (low, high) == (0, LENGTHS[-1][1]) else f"{low} to {high}"
            print(
                f"| {benchmark} | {label}: {tokens:.0f} | {len(row)} | {same:.2f} | "
                f"{value:.2f} [{least:.2f}, {most:.2f}] |"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
