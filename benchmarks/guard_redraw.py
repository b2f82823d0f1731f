"""Does every `kept` of a run's end check hold? `python -m benchmarks.guard_redraw RUN ...`

Each comparison that was called kept is drawn again, on fresh answers, with four times the samples per task.
`--fresh-tasks` takes as many samples on four times the tasks, all of them new. The end check's file says what
to compare. Nothing of kascade.guard is imported: the difference, its error over tasks and its limits are
computed here. Prints Markdown. Drawn rewards are kept in `--keep`, so that an interrupted run goes on.

Exit code 1 where a kept is contradicted: the upper 95% limit lies below minus the margin.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from kascade.clock import Clock
from kascade.recipe.run_recipe import read_run_recipe
from kascade.recipe.schema import Benchmark, Recipe
from kascade.rollout.answers import answer, grade, grade_by_environment, sampling_params
from kascade.rollout.policy import Policy
from kascade.rollout.pools import source_tasks
from kascade.seeds import derive_seed
from kascade.task import Task

TIMES = 4  # as many answers as the end check drew
LEVEL = 0.05  # one-sided, of either limit

Means = np.ndarray[Any, np.dtype[np.float64]]  # [tasks], NaN where no answer has a grade


@dataclass(frozen=True, slots=True)
class Kept:
    """One comparison that the end check called kept."""

    benchmark: str
    final: str
    best: str
    margin: float
    difference: float
    samples: int


@dataclass(frozen=True, slots=True)
class Again:
    """It drawn again. difference: final minus best, mean over tasks, with the limits, in reward."""

    tasks: int
    samples: int
    difference: float
    low: float
    high: float

    def word(self, margin: float) -> str:
        if self.low > -margin:
            return "shown again"
        return "contradicted" if self.high < -margin else "not contradicted"


def kept_comparisons(run: Path) -> Iterator[Kept]:
    """Every comparison of a run's end checks that was called kept."""
    for path in sorted((run / "retention").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for name, held in found["benchmarks"].items():
            for one in held["against"]:
                if one["standing"] == "kept":
                    pair = (found["checkpoint"], one["checkpoint"])
                    yield Kept(name, *pair, found["margin"], one["difference"], one["samples"])


@dataclass(frozen=True, slots=True)
class Redraw:
    """Draws the answers of one run again. keep: folder of what was drawn before."""

    run: Path
    recipe: Recipe
    keep: Path
    fresh_tasks: bool

    def again(self, kept: Kept) -> Again:
        """The comparison on answers that nothing has seen yet."""
        benchmark = next(one for one in self.recipe.benchmarks if one.name == kept.benchmark)
        samples = kept.samples if self.fresh_tasks else TIMES * kept.samples
        best, final = (self._means(one, benchmark, samples) for one in (kept.best, kept.final))
        differences = final - best
        differences = differences[~np.isnan(differences)]
        error = float(differences.std(ddof=1) / np.sqrt(differences.size))
        half = float(student.ppf(1 - LEVEL, differences.size - 1)) * error
        middle = float(differences.mean())
        return Again(differences.size, samples, middle, middle - half, middle + half)

    def _means(self, reference: str, benchmark: Benchmark, samples: int) -> Means:
        """A checkpoint's mean reward of each task, [tasks]; of answers in `keep` where there are enough."""
        uri, digest = reference.split("@sha256:")
        kind = "fresh" if self.fresh_tasks else "own"
        path = self.keep / f"{digest[:16]}.{benchmark.name}.{kind}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else [[]]
        if min(map(len, kept)) < samples:
            policy = _policy(Path(uri.removeprefix("file://")), self.run)
            kept = _drawn(policy, benchmark, self._tasks(benchmark), samples)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(kept), encoding="utf-8")
        low, high = benchmark.reward_range
        graded = [[reward for reward in row[:samples] if reward is not None] for row in kept]
        return np.array([(np.mean(row) - low) / (high - low) if row else np.nan for row in graded])

    def _tasks(self, benchmark: Benchmark) -> list[Task]:
        """The benchmark's own tasks, or four times as many others of the same kind."""
        seed = self.recipe.seed
        own = source_tasks(benchmark.source, split="test", seed=seed, count=benchmark.tasks)
        if not self.fresh_tasks:
            return own
        wanted, seen = TIMES * benchmark.tasks, {_text(task) for task in own}
        others = source_tasks(benchmark.source, split="test", seed=seed + 1, count=2 * wanted)
        return [task for task in others if _text(task) not in seen][:wanted]


def _text(task: Task) -> str:
    return json.dumps(task.messages, sort_keys=True)


def _drawn(
    policy: Policy, benchmark: Benchmark, tasks: Sequence[Task], samples: int
) -> list[list[float | None]]:
    """The rewards of each task, [tasks, samples]; None where a grade is missing."""
    rewards: list[list[float | None]] = []
    for first in range(0, len(tasks), benchmark.keep_every):
        answered = answer(
            policy,
            tasks[first : first + benchmark.keep_every],
            sampling_params(benchmark.sampling),
            num_samples=samples,
            seed_of=lambda task: derive_seed("redraw", benchmark.name, task.id),
            clock=Clock(),
        )
        groups = grade(answered, grade_by_environment, Clock())
        rewards += [[None if one.error else one.reward for one in group.grades] for group in groups]
    return rewards


@lru_cache(maxsize=1)
def _policy(folder: Path, run: Path) -> Policy:
    return Policy.load(folder, read_run_recipe(run).model)


def table(runs: Sequence[Path], keep: Path, *, fresh_tasks: bool) -> list[str]:
    """Print a row per comparison as it is drawn. Returns what each says."""
    print("| run | benchmark | best | guard: points, samples | again: points [limits] | tasks x samples | |")
    print("|-|-|-|-|-|-|-|")
    words = []
    for run in runs:
        redraw = Redraw(run, read_run_recipe(run), keep / run.name, fresh_tasks)
        most_first = sorted(kept_comparisons(run), key=lambda one: (one.benchmark, -one.samples, one.best))
        for kept in most_first:
            found = redraw.again(kept)
            words.append(found.word(kept.margin))
            cells = [
                run.name,
                kept.benchmark,
                "/".join(kept.best.split("@")[0].split("/")[-2:]),
                f"{100 * kept.difference:+.1f}, {kept.samples}",
                f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]",
                f"{found.tasks} x {found.samples}",
                words[-1],
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
    return words


def main() -> int:
    """Draw all of it again and say what holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard_redraw", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--keep", type=Path, default=Path("build/redraw"), help="where rewards are kept")
    parser.add_argument("--fresh-tasks", action="store_true", help="four times the tasks, all of them new")
    options = parser.parse_args()
    words = table(options.runs, options.keep, fresh_tasks=options.fresh_tasks)
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    print(f"\n{len(words)} comparisons kept: {counts or 'none'}")
    return int("contradicted" in words)


if __name__ == "__main__":
    sys.exit(main())
