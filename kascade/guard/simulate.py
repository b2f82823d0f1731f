"""How often the guard calls a fall where there is none, and how often it finds one: simulated binary answers.

The rule under test is the guard's own: falls are screened and confirmed, look by look, by the functions that
judge real checkpoints. `benchmarks/guard_table.py` says the same by code of its own, at larger sizes.

Every benchmark's tasks have their own chances of success (`Difficulty`). Every stage moves each chance a
little with mean zero, also the stage in which something falls: p' ~ Beta(p w, (1 - p) w), whose mean is p and
whose variance is p (1 - p) / (w + 1). In a quickstart run w was 5 to 15.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kascade.guard.comparison import compare
from kascade.guard.flips import Floats
from kascade.guard.level import verdict_part
from kascade.guard.looks import look_for_fall
from kascade.guard.rewards import TaskRewards
from kascade.guard.rule import fall_rule, holm, is_suspicious
from kascade.recipe.schema import Guard

Shape = Literal["uniform", "proportional", "whole_tasks"]


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Chances of success of a benchmark's tasks: some never, some always, the others Beta(a, b)."""

    never: float = 0.0
    always: float = 0.0
    a: float = 1.2
    b: float = 0.8


# As found in the confirming scores of one quickstart run: hard, split in two, and nearly solved.
FITS = (
    Difficulty(0.2229, 0.0, 2.0747, 1.5650),
    Difficulty(0.0686, 0.0, 0.5005, 0.1429),
    Difficulty(0.0714, 0.0114, 0.9214, 0.9820),
    Difficulty(0.1076, 0.0, 1.5036, 0.4244),
    Difficulty(0.0057, 0.0, 6.8271, 1.0874),
    Difficulty(0.0291, 0.0, 4.1397, 1.1354),
    Difficulty(0.0451, 0.0, 2.6507, 1.3270),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated. stages: of the recipe, which share the level. difficulties: of its benchmarks, in
    turn.

    drift: w above (None: chances stay as they are). fall: in reward, of the shape.
    """

    guard: Guard = field(default_factory=Guard)
    stages: int = 8
    benchmarks: int = 9
    tasks: int = 400
    difficulties: tuple[Difficulty, ...] = FITS
    drift: float | None = 100.0
    fall: float = 0.0
    shape: Shape = "uniform"

    @property
    def verdict_level(self) -> float:
        """False alarms that one verdict on what a stage trained may cause."""
        return self.guard.family_level * verdict_part(self.guard, self.stages, 0)


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """falls: simulated verdicts on one benchmark. called: share that was called lost; suspicious: share that
    was confirmed. samples: fresh answers per task, of one checkpoint, over all verdicts.
    """

    falls: int
    called: float
    suspicious: float
    samples: float


def first_stage(setting: Setting, falls: int, seed: int) -> SimulationResult:
    """Verdicts on one benchmark after the first stage, where no baseline was selected by luck."""
    rng = np.random.default_rng(seed)
    ends = [_verdict(setting, rng, index) for index in range(falls)]
    return SimulationResult(
        falls,
        called=float(np.mean([called for called, _ in ends])),
        suspicious=float(np.mean([size > 0 for _, size in ends])),
        samples=float(np.mean([size for _, size in ends])),
    )


def _verdict(setting: Setting, rng: np.random.Generator, index: int) -> tuple[bool, int]:
    """Whether the fall is called, and the fresh samples per task that it took."""
    before = _tasks(setting, rng, index)
    after = _drifted(setting, rng, lowered(rng, before, setting.fall, setting.shape))
    guard = setting.guard
    screened = compare(*(_answers(rng, chances, guard.screen_samples) for chances in (before, after)))
    if screened is None or not is_suspicious(screened.p_fall, guard):
        return False, 0
    old, new = (_answers(rng, chances, guard.confirm_samples) for chances in (before, after))
    found = look_for_fall(old, new, fall_rule(guard, setting.verdict_level, setting.benchmarks))
    drop = 0.0 if found.comparison is None else -found.comparison.difference
    tests = holm({"one": (found.p, drop)}, setting.benchmarks, setting.verdict_level, guard.min_drop)
    return tests["one"].regressed, found.size


def lowered(rng: np.random.Generator, chances: Floats, fall: float, shape: Shape) -> Floats:
    """Chances [T] whose mean is lower by `fall`: all by one amount (at most to 0), all by one factor, or
    random tasks to 0 until it is lost.
    """
    if shape == "proportional":
        return np.asarray(chances * max(0.0, 1 - fall / chances.mean()))
    if shape == "uniform":
        return chances - np.minimum(chances, _cut(chances, fall))
    order = rng.permutation(chances.size)
    shuffled = chances[order]
    lost = np.clip(fall * chances.size - (np.cumsum(shuffled) - shuffled), 0, shuffled)
    found = chances.copy()
    found[order] = shuffled - lost
    return found


def _cut(chances: Floats, fall: float) -> float:
    """The c for which the mean of min(chance, c) is `fall`."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(chances, middle).mean() < fall else (low, middle)
    return low


def _drifted(setting: Setting, rng: np.random.Generator, chances: Floats) -> Floats:
    if setting.drift is None:
        return chances
    inside = np.clip(chances, 1e-6, 1 - 1e-6)  # 0 and 1 themselves have no Beta distribution
    return rng.beta(inside * setting.drift, (1 - inside) * setting.drift)


def _tasks(setting: Setting, rng: np.random.Generator, index: int) -> Floats:
    """Chances of success [T] of the index-th benchmark in turn."""
    one = setting.difficulties[index % len(setting.difficulties)]
    uniform, inside = rng.random(setting.tasks), rng.beta(one.a, one.b, setting.tasks)
    return np.where(uniform < one.never, 0.0, np.where(uniform < one.never + one.always, 1.0, inside))


def _answers(rng: np.random.Generator, chances: Floats, samples: int) -> TaskRewards:
    drawn = rng.random((chances.size, samples)) < chances[:, None]
    return TaskRewards(
        "simulated", "model", {str(i): row for i, row in enumerate(drawn.astype(float).tolist())}
    )
