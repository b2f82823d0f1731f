"""The guard's verdict on one checkpoint, as JSON, with every number behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kascade.guard.comparison import Standing
from kascade.guard.scores import Phase
from kascade.storage.files import write_record
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain

Role = Literal["goal", "guard"]
Decision = Literal[
    "held",
    "risen",
    "suspicious_cleared",
    "regressed",
    "not_recovered",
    "no_baseline",
    "not_graded",
    "not_judged",
    "not_held",
]
UNSETTLED = ("regressed", "not_recovered")  # a recovery answers these


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


class Pool(_Frozen):
    """The baseline's answers that a verdict used: which draw, how many per task, and who else used them.

    shared_with: ids of earlier verdicts that used the same answers, of whatever role.
    """

    draw: str
    samples: float
    shared_with: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """The draw's number, as `Score.round` has it."""
        return int(self.draw.rpartition("-")[2])


class RecoveredShare(_Frozen):
    """What of a known loss is back, on draws that were not used to find it. In reward; see `guard.share`."""

    low: str
    back: float
    loss: float
    share: float | None
    interval: tuple[float, float] | None


class BenchmarkVerdict(_Frozen):
    """One benchmark: the best accepted checkpoint before, this one after, and what follows.

    standing: kept, lost, not shown or not judged; None in verdicts from before there were these words.
    phase: whose samples the numbers come from (confirm: fresh ones of both checkpoints).
    num_tasks: tasks graded on both sides; num_left_out: tasks without a single grade on one side.
    samples_before, samples_after: graded samples per task, mean.
    interval: 95% of `difference` = after - before. p: one-sided, for a fall, over both tests and all looks.
    p_tasks, p_within: of the two tests at the last look. level: the p under which a fall counts here; None
    where none was tested for. missing_before, missing_after: shares of answers without a grade; bounds: the
    difference if all of these had gone against this checkpoint, and if all had gone for it.
    decision: not_held where a side branch may fall.
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
    standing: Standing | None = None
    p_tasks: float | None = None
    p_within: float | None = None
    missing_before: float = 0.0
    missing_after: float = 0.0
    bounds: tuple[float, float] | None = None
    pool: Pool | None = None
    recovered: RecoveredShare | None = None

    @property
    def word(self) -> Standing:
        """The standing, also of a verdict from before there was one."""
        if self.standing is not None:
            return self.standing
        if self.decision == "regressed":
            return "lost"
        return "not_judged" if self.decision in {"no_baseline", "not_graded"} else "not_shown"


class Verdict(_Frozen):
    """All benchmarks of one checkpoint.

    checkpoint, parent: references (parent: the accepted checkpoint that the stage started from).
    round: 0 for the trained checkpoint, n for recovery n. goals_met: None when the stage has no goal that
    could be compared. created: ISO 8601, UTC. regressed: something is lost, or a known loss is not shown to
    be back. level: the false alarms that this verdict may cause; None in verdicts from before it was kept.
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
    level: float | None = None

    @property
    def lost_benchmarks(self) -> tuple[str, ...]:
        """Benchmarks that are lost, or whose known loss is not shown to be back."""
        return tuple(name for name, found in self.benchmarks.items() if found.decision in UNSETTLED)

    @property
    def not_judged(self) -> tuple[str, ...]:
        """Benchmarks of which nothing can be said for lack of grades, also where there were none before."""
        unknown = {"not_judged", "not_graded"}
        return tuple(
            name
            for name, found in self.benchmarks.items()
            if found.decision in unknown or (found.decision == "no_baseline" and found.after is None)
        )


def draw_of(verdict: Verdict, name: str) -> int | None:
    """Number of the confirming draw that a verdict used on a benchmark; None where it used none."""
    found = verdict.benchmarks.get(name)
    if found is None or found.phase != "confirm":
        return None
    return verdict.round if found.pool is None else found.pool.number


def write_verdict(layout: RunFolder, verdict: Verdict) -> None:
    """Write a verdict into its file, in place of an earlier one on the checkpoint."""
    write_record(layout.verdict(verdict.id), verdict.model_dump_json(indent=1))


def read_verdict(layout: RunFolder, checkpoint_id: str) -> Verdict | None:
    """The verdict on a checkpoint; None when it has not been judged. Raises UserError for a broken file."""
    return layout.load(layout.verdict(checkpoint_id), _parse)


def all_verdicts(layout: RunFolder) -> dict[str, Verdict]:
    """Every verdict of a run, by checkpoint id."""
    return {verdict.id: verdict for verdict in layout.each(layout.verdict_files(), _parse).values()}


def _parse(path: Path) -> Verdict:
    return Verdict.model_validate_json(path.read_text(encoding="utf-8"))
