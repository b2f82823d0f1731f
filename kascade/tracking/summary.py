"""What a run folder says, put together once: report, model card and `explain` are views of `RunSummary`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kascade.guard.approval import Question, Waiting
from kascade.guard.comparison import Standing
from kascade.guard.end_check import EndVerdict
from kascade.guard.lineage import Outcome
from kascade.guard.scores import Score
from kascade.guard.verdict import UNSETTLED, BenchmarkVerdict, RecoveredShare, Verdict
from kascade.recipe.schema import Recipe, Stage
from kascade.storage.checkpoint import CheckpointRef, Manifest
from kascade.tracking.costs import StepCost
from kascade.tracking.promote import Promotion
from kascade.tracking.reading import ShownAnswer
from kascade.tracking.retrain import Reason

RunStatus = Literal["complete", "stopped", "failed", "unfinished", "waiting"]
Mark = Literal["regressed", "recovered", "rolled_back"]


@dataclass(frozen=True, slots=True)
class Point:
    """One benchmark on one checkpoint.

    score: the rewards shown. Where the guard drew fresh samples to confirm a suspicion, those alone (all
    draws together): a screening score that raised a suspicion is biased towards a fall.
    mean: over tasks; NaN when no answer was graded. interval: 95%, None with fewer than two tasks.
    """

    score: Score
    mean: float
    interval: tuple[float, float] | None
    greedy: float | None

    @property
    def graded(self) -> bool:
        return math.isfinite(self.mean)

    @property
    def num_answers(self) -> int:
        return sum(len(rewards) for rewards in self.score.rewards.values())

    @property
    def samples_per_task(self) -> float:
        return self.num_answers / max(self.score.num_tasks, 1)


@dataclass(frozen=True, slots=True)
class AttemptSummary:
    """One checkpoint with all that is known of it. The base model is one, too."""

    ref: CheckpointRef
    manifest: Manifest
    points: Mapping[str, Point]
    verdict: Verdict | None
    curve: Sequence[Mapping[str, Any]]

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def digest(self) -> str:
        return self.ref.digest

    @property
    def is_recovery(self) -> bool:
        return self.manifest.attempt.startswith("recover")

    def judged(self, benchmark: str) -> BenchmarkVerdict | None:
        return self.verdict.benchmarks.get(benchmark) if self.verdict else None


@dataclass(frozen=True, slots=True)
class StageSummary:
    """One stage: its attempts in order (train, recover-1, recover-2) and what it ended with.

    parent, accepted: None while unknown; outcome: None while the stage is not settled.
    """

    number: int
    part: Stage
    title: str
    parent: AttemptSummary | None
    attempts: tuple[AttemptSummary, ...]
    outcome: Outcome | None
    accepted: AttemptSummary | None

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def goals(self) -> tuple[str, ...]:
        """Benchmarks that the stage was to raise, by its verdicts."""
        verdict = next((attempt.verdict for attempt in self.attempts if attempt.verdict), None)
        judged = verdict.benchmarks if verdict else {}
        return tuple(name for name, found in judged.items() if found.role == "goal")


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One benchmark at one place of the cascade: column 0 is the base, column i the i-th stage."""

    column: int
    place: str
    attempt: AttemptSummary
    point: Point
    accepted: bool
    on_main_line: bool
    goal: bool
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class Recovered:
    """One loss and what the recovery made of it. after, fraction: None when none was judged.

    cause: the attempt that lost it: `train`, or the recovery round that did. standing: in the last verdict.
    interval: 95% of the fraction, where draws that did not find the loss tell it.
    """

    stage: StageSummary
    benchmark: str
    before: float
    low: float
    after: float | None
    cause: str
    standing: Standing
    fresh: RecoveredShare | None

    @property
    def still_regressed(self) -> bool:
        return self.standing != "kept"

    @property
    def fraction(self) -> float | None:
        """(after - low) / (before - low): 1 when all that was lost is back; by fresh draws where there are
        any."""
        if self.fresh is not None:
            return self.fresh.share
        if self.after is None or self.before <= self.low:
            return None
        return (self.after - self.low) / (self.before - self.low)


@dataclass(frozen=True, slots=True)
class BenchmarkChange:
    """Base against final checkpoint on one benchmark, paired by task; interval at 95%, not corrected."""

    benchmark: str
    before: Point
    after: Point
    difference: float
    low: float
    high: float

    @property
    def direction(self) -> Literal["up", "down", "level"]:
        return "up" if self.low > 0 else "down" if self.high < 0 else "level"


@dataclass(frozen=True, slots=True)
class Failure:
    """A step's own error."""

    step: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A whole run. `problems` lists what was missing or unreadable."""

    name: str
    recipe: Recipe | None
    recipe_text: str | None
    resolved_text: str | None
    status: RunStatus
    failure: Failure | None
    base: AttemptSummary | None
    stages: tuple[StageSummary, ...]
    final: AttemptSummary | None
    others: tuple[AttemptSummary, ...]
    benchmarks: tuple[str, ...]
    domains: Mapping[str, str]
    changes: tuple[BenchmarkChange, ...]
    costs: tuple[StepCost, ...]
    answers: Mapping[tuple[str, str], Sequence[ShownAnswer]]
    problems: tuple[str, ...]
    end_verdict: EndVerdict | None = None
    waiting: Waiting | None = None
    retrain: Reason | None = None
    questions: tuple[Question, ...] = ()
    promotion: Promotion | None = None

    @property
    def settled(self) -> tuple[StageSummary, ...]:
        return tuple(stage for stage in self.stages if stage.outcome is not None)

    @property
    def current(self) -> tuple[AttemptSummary, ...]:
        """The base and every attempt of the stages as the recipe stands, in order."""
        attempts = [attempt for stage in self.stages for attempt in stage.attempts]
        return ((self.base,) if self.base else ()) + tuple(attempts)

    def history(self, benchmark: str) -> list[HistoryPoint]:
        """Every score of one benchmark in the order of the cascade, rejected attempts included."""
        points: list[HistoryPoint] = []
        start = self.base.points.get(benchmark) if self.base else None
        if self.base and start and start.graded:
            points.append(HistoryPoint(0, "base", self.base, start, True, True, False, None))
        for stage in self.stages:
            points += _stage_history(stage, benchmark)
        return points

    def regressions(self) -> list[Recovered]:
        """Every benchmark that regressed in a stage, with what became of it."""
        found = (_recovered(stage, name) for stage in self.stages for name in self.benchmarks)
        return [one for one in found if one is not None]


def _regressed(attempt: AttemptSummary, benchmark: str) -> bool:
    return (judged := attempt.judged(benchmark)) is not None and judged.decision in UNSETTLED


def _stage_history(stage: StageSummary, benchmark: str) -> list[HistoryPoint]:
    shown = list(stage.attempts)
    if stage.accepted and all(attempt.digest != stage.accepted.digest for attempt in shown):
        shown.append(stage.accepted)  # rolled back: the stage's column ends where it began
    fell = any(_regressed(attempt, benchmark) for attempt in stage.attempts)
    return [
        HistoryPoint(
            column=stage.number,
            place=stage.title,
            attempt=attempt,
            point=attempt.points[benchmark],
            accepted=stage.accepted is not None and attempt.digest == stage.accepted.digest,
            on_main_line=not stage.part.side_branch,
            goal=benchmark in stage.goals,
            mark=_mark(stage, attempt, benchmark, fell),
        )
        for attempt in shown
        if benchmark in attempt.points and attempt.points[benchmark].graded
    ]


def _mark(stage: StageSummary, attempt: AttemptSummary, benchmark: str, fell: bool) -> Mark | None:
    if _regressed(attempt, benchmark):
        return "regressed"
    accepted = stage.accepted is not None and attempt.digest == stage.accepted.digest
    if accepted and stage.outcome is not None and stage.outcome.decision == "rolled_back":
        return "rolled_back"
    return "recovered" if accepted and fell and attempt.is_recovery else None


def _end(last: BenchmarkVerdict) -> Standing:
    """The last word on a known loss. Old verdicts have none: one that was not called lost again counts as
    kept."""
    if last.standing is None:
        return "lost" if last.decision == "regressed" else "kept"
    return last.standing


def _recovered(stage: StageSummary, benchmark: str) -> Recovered | None:
    judged = [found for attempt in stage.attempts if (found := attempt.judged(benchmark))]
    first = next((index for index, found in enumerate(judged) if found.decision in UNSETTLED), None)
    if first is None:
        return None
    fall, later = judged[first], judged[first + 1 :]
    if fall.before is None or fall.after is None:
        return None
    return Recovered(
        stage=stage,
        benchmark=benchmark,
        before=fall.before.mean,
        low=fall.after,
        after=later[-1].after if later else None,
        cause=stage.attempts[first].manifest.attempt,
        standing=_end(judged[-1]),
        fresh=judged[-1].recovered,
    )
