"""How often the guard cries wolf, and how often it hears the wolf: cascades of binary rewards, simulated.

Each benchmark's tasks have their own chances of success, Beta(mean, concentration). Every stage moves each
chance a little with mean zero, also where "nothing changed": p' ~ Beta(p w, (1 - p) w), whose mean is p and
whose variance is p (1 - p) / (w + 1). The rule under test is the guard's own: baselines are picked, falls
screened and confirmed by the functions that judge real checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kascade.guard.rule import holm, is_suspicious
from kascade.guard.stats import Floats, sign_flip
from kascade.recipe.schema import Guard


@dataclass(frozen=True, slots=True)
class Setting:
    """A cascade to simulate.

    mean, concentration: of the tasks' chances (small: tasks are either solved or not; None: all equal mean).
    wobble: w above (None: chances stay as they are). drop: fall in reward of one benchmark, in one stage.
    """

    guard: Guard = field(default_factory=Guard)
    stages: int = 8
    benchmarks: int = 9
    tasks: int = 400
    mean: float = 0.6
    concentration: float | None = 2.0
    wobble: float | None = 100.0
    drop: float = 0.0

    @property
    def verdict_level(self) -> float:
        return self.guard.family_level / (self.stages * (1 + self.guard.recovery.rounds))


@dataclass(frozen=True, slots=True)
class Result:
    """alarmed: share of cascades in which a benchmark that had not dropped was called regressed.

    detected: share of drops found in their own stage (None without a drop). suspicious: share of screens
    that led to a confirmation. samples: drawn a task, benchmark and stage, fresh baseline samples included.
    """

    cascades: int
    alarmed: float
    detected: float | None
    suspicious: float
    samples: float


def simulate(setting: Setting, cascades: int, seed: int) -> Result:
    """Simulate independent cascades; a drop hits one benchmark in a random stage and ends the cascade."""
    rng = np.random.default_rng(seed)
    ends = [_Cascade(setting, rng) for _ in range(cascades)]
    for end in ends:
        end.run()
    suspicious = sum(end.suspects for end in ends) / sum(end.screens for end in ends)
    return Result(
        cascades=cascades,
        alarmed=float(np.mean([end.alarmed for end in ends])),
        detected=float(np.mean([end.detected for end in ends])) if setting.drop else None,
        suspicious=suspicious,
        samples=setting.guard.screen_samples + 2 * setting.guard.confirm_samples * suspicious,
    )


class _Cascade:
    """One cascade. chances, best: of the current checkpoint and of each benchmark's baseline,
    [benchmarks, tasks]; best_screen: the baselines' screening scores, same shape.
    """

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self.setting, self.rng = setting, rng
        self.alarmed = self.detected = False
        self.screens = self.suspects = 0
        self.chances = _tasks(setting, rng)
        self.best = self.chances.copy()
        self.best_screen = self._sample(self.chances, setting.guard.screen_samples)

    def run(self) -> None:
        stages = self.setting.stages
        drop_stage = int(self.rng.integers(stages)) if self.setting.drop else stages
        for _ in range(drop_stage):
            self._wobble()
            self.alarmed |= bool(self._judge())
        if self.setting.drop:
            self._wobble()
            self.chances[0] = self.best[0] * (1 - self.setting.drop / self.best[0].mean())
            regressed = self._judge()
            self.detected = 0 in regressed
            self.alarmed |= bool(regressed - {0})

    def _wobble(self) -> None:
        if self.setting.wobble is not None:
            inside = np.clip(self.chances, 1e-6, 1 - 1e-6)  # 0 and 1 themselves have no Beta distribution
            self.chances = self.rng.beta(inside * self.setting.wobble, (1 - inside) * self.setting.wobble)

    def _judge(self) -> set[int]:
        """Benchmarks that regressed; the better screening scores become the next baselines."""
        screened = self._sample(self.chances, self.setting.guard.screen_samples)
        p_falls = [sign_flip(differences)[0] for differences in screened - self.best_screen]
        suspects = [b for b, p in enumerate(p_falls) if is_suspicious(p, self.setting.guard)]
        self.screens += len(p_falls)
        self.suspects += len(suspects)
        regressed = self._confirm(suspects)
        better = screened.mean(axis=1) > self.best_screen.mean(axis=1)
        self.best[better], self.best_screen[better] = self.chances[better], screened[better]
        return regressed

    def _confirm(self, suspects: list[int]) -> set[int]:
        """Those that regressed by fresh samples of both checkpoints."""
        guard, drops = self.setting.guard, {}
        for b in suspects:
            before = self._sample(self.best[b], guard.confirm_samples)
            differences = self._sample(self.chances[b], guard.confirm_samples) - before
            drops[str(b)] = (sign_flip(differences)[0], -float(differences.mean()))
        tests = holm(drops, self.setting.benchmarks, self.setting.verdict_level, guard.min_drop)
        return {int(name) for name, test in tests.items() if test.regressed}

    def _sample(self, chances: Floats, samples: int) -> Floats:
        """Mean reward of each task over `samples` draws."""
        return np.asarray(self.rng.binomial(samples, chances) / samples, dtype=np.float64)


def _tasks(setting: Setting, rng: np.random.Generator) -> Floats:
    """Chances of success [benchmarks, tasks]."""
    shape = (setting.benchmarks, setting.tasks)
    if setting.concentration is None:
        return np.full(shape, setting.mean)
    a = setting.mean * setting.concentration
    return rng.beta(a, setting.concentration - a, size=shape)
