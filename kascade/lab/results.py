"""What a race found: points of every arm and seed, and their summary over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from kascade.lab.settings import Arm
from kascade.task import Domain


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmPoint(_Frozen):
    """One scoring. cpu_s: CPU seconds of training until then, scoring excluded; scores: by benchmark."""

    step: int
    cpu_s: float
    scores: dict[str, float]


class ArmResult(_Frozen):
    """One arm with one seed. part: all its numbers, as a stage. updates_skipped: for want of usable groups.

    stopped: why training ended early, None when it did not.
    """

    arm: Arm
    seed: int
    part: dict[str, Any]
    points: tuple[ArmPoint, ...]
    updates_skipped: int
    stopped: str | None


class Levels(_Frozen):
    """Scores by benchmark: of the regressed checkpoint, and of each lost domain's teacher."""

    start: dict[str, float]
    teachers: dict[str, float]


class SeedSpread(_Frozen):
    """Mean, lowest and highest over seeds."""

    mean: float
    low: float
    high: float


class Moment(_Frozen):
    """An arm after `step` updates, over seeds. kept: None where the recipe examines nothing else."""

    step: int
    cpu_s: float
    lost: SeedSpread
    kept: SeedSpread | None


class ArmSummary(_Frozen):
    """recovered: the first moment whose mean reaches the asked share of what was lost; None if none does."""

    arm: Arm
    learning_rate: float
    seeds: tuple[int, ...]
    moments: tuple[Moment, ...]
    recovered: Moment | None
    updates_skipped: float
    stopped: tuple[str, ...]

    @property
    def end(self) -> Moment:
        return self.moments[-1]


class RaceResult(_Frozen):
    """A whole race. checkpoint: reference of the regressed one; teachers: references by lost domain.

    lost, kept: benchmarks of either kind; a score of several is their mean. start_lost, start_kept,
    teacher_level: such means. recovered_share, keep_weight, validation_*: as in `Settings`.
    """

    run: str
    stage: str
    checkpoint: str
    lost_domains: tuple[Domain, ...]
    teachers: dict[Domain, str]
    lost: tuple[str, ...]
    kept: tuple[str, ...]
    start_lost: float
    start_kept: float | None
    teacher_level: float
    recovered_share: float
    keep_weight: float
    validation_tasks: int
    validation_samples: int
    arms: tuple[ArmSummary, ...]
    results: tuple[ArmResult, ...]


def mean_score(scores: dict[str, float], benchmarks: Sequence[str]) -> float:
    return float(np.mean([scores[name] for name in benchmarks]))


def summarise_arm(
    results: Sequence[ArmResult], lost: Sequence[str], kept: Sequence[str], recovered_at: float
) -> ArmSummary:
    """One arm over its seeds. recovered_at: mean score on `lost` that counts as recovered."""
    by_step: dict[int, list[ArmPoint]] = {}
    for point in (point for result in results for point in result.points):
        by_step.setdefault(point.step, []).append(point)
    moments = tuple(_moment(by_step[step], lost, kept) for step in sorted(by_step))
    return ArmSummary(
        arm=results[0].arm,
        learning_rate=results[0].part["optimizer"]["learning_rate"],
        seeds=tuple(result.seed for result in results),
        moments=moments,
        recovered=next((moment for moment in moments if moment.lost.mean >= recovered_at), None),
        updates_skipped=float(np.mean([result.updates_skipped for result in results])),
        stopped=tuple(f"seed {one.seed}: {one.stopped}" for one in results if one.stopped),
    )


def _moment(points: Sequence[ArmPoint], lost: Sequence[str], kept: Sequence[str]) -> Moment:
    return Moment(
        step=points[0].step,
        cpu_s=float(np.mean([point.cpu_s for point in points])),
        lost=_spread(points, lambda point: mean_score(point.scores, lost)),
        kept=_spread(points, lambda point: mean_score(point.scores, kept)) if kept else None,
    )


def _spread(points: Sequence[ArmPoint], value: Callable[[ArmPoint], float]) -> SeedSpread:
    values = [value(point) for point in points]
    return SeedSpread(mean=float(np.mean(values)), low=min(values), high=max(values))
