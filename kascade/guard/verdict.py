"""The guard's word on one checkpoint, as JSON, with every number behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kascade.environments.base import Domain
from kascade.guard.scores import Phase
from kascade.storage.files import write_text
from kascade.storage.layout import RunLayout

Role = Literal["goal", "guard"]
Decision = Literal["held", "risen", "suspicious_cleared", "regressed", "no_baseline", "not_graded"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Baseline(_Frozen):
    """What a benchmark is compared with. checkpoint: reference; mean: mean reward over the shared tasks."""

    checkpoint: str
    mean: float


class Rise(_Frozen):
    """A goal benchmark against the checkpoint the stage started from, on the screening samples.

    difference, interval (95%): after minus before, in reward. p: one-sided, for a rise; met: p <= level.
    """

    before: Baseline
    after: float
    difference: float
    interval: tuple[float, float]
    p: float
    level: float
    met: bool


class BenchmarkVerdict(_Frozen):
    """One benchmark: the best accepted checkpoint before, this one after, and what follows.

    phase: whose samples the numbers come from (confirm: fresh ones of both checkpoints).
    num_tasks: tasks graded on both sides; num_left_out: tasks without a single grade on one side.
    samples_before, samples_after: graded samples a task, mean.
    interval: 95% of `difference` = after - before. p: one-sided, for a fall.
    level: the p under which a fall counts here; None where none was tested for.
    """

    benchmark: str
    domain: Domain
    role: Role
    before: Baseline | None
    after: float | None
    difference: float | None
    interval: tuple[float, float] | None
    phase: Phase
    num_tasks: int
    num_left_out: int
    samples_before: float
    samples_after: float
    p: float | None
    level: float | None
    min_drop: float
    rise: Rise | None
    decision: Decision
    reason: str


class Verdict(_Frozen):
    """All benchmarks of one checkpoint.

    checkpoint, parent: references (parent: the accepted checkpoint that the stage started from).
    round: 0 for the trained checkpoint, n for recovery n. goals_met: None when the stage has no goal
    that could be compared. created: ISO 8601, UTC.
    """

    id: str
    checkpoint: str
    stage: str
    attempt: str
    round: int
    parent: str
    benchmarks: dict[str, BenchmarkVerdict]
    regressed: bool
    lost_domains: tuple[Domain, ...]
    goals_met: bool | None
    created: str

    @property
    def lost_benchmarks(self) -> tuple[str, ...]:
        return tuple(name for name, found in self.benchmarks.items() if found.decision == "regressed")


def write_verdict(layout: RunLayout, verdict: Verdict) -> None:
    write_text(layout.verdict(verdict.id), verdict.model_dump_json(indent=1) + "\n")


def read_verdict(layout: RunLayout, checkpoint_id: str) -> Verdict | None:
    """The verdict on a checkpoint; None when it has not been judged. Raises ValueError for a broken file."""
    path = layout.verdict(checkpoint_id)
    return Verdict.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def recovered_share(verdicts: Sequence[Verdict]) -> dict[Domain, float]:
    """Per domain lost in one of a stage's verdicts (in order): the share of the loss that is back at the end.

    (after - low) / (before - low), over the domain's lost benchmarks together; before and low are of the
    verdict that found the loss, after is of the last verdict. 1 is all of it.
    """
    back: dict[Domain, float] = {}
    loss: dict[Domain, float] = {}
    for name, found in _first_losses(verdicts).items():
        last = verdicts[-1].benchmarks[name]
        if found.before is None or found.after is None or last.after is None:
            continue
        back[found.domain] = back.get(found.domain, 0.0) + last.after - found.after
        loss[found.domain] = loss.get(found.domain, 0.0) + found.before.mean - found.after
    return {domain: back[domain] / loss[domain] for domain in loss if loss[domain] > 0}


def _first_losses(verdicts: Sequence[Verdict]) -> dict[str, BenchmarkVerdict]:
    losses: dict[str, BenchmarkVerdict] = {}
    for verdict in verdicts:
        for name in verdict.lost_benchmarks:
            losses.setdefault(name, verdict.benchmarks[name])
    return losses
