"""A verdict from the scores of a run: which benchmarks are suspicious, and then what is true of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kascade.errors import KascadeError
from kascade.guard.lineage import Ancestor, baselines, open_reference, walk
from kascade.guard.reasons import reason
from kascade.guard.rule import Test, confirm, goal_benchmarks, screen, verdict_level
from kascade.guard.scores import Phase, Score, read_score, read_scores
from kascade.guard.stats import Comparison, compare
from kascade.guard.verdict import Baseline, BenchmarkVerdict, Decision, Rise, Role, Verdict, read_verdict
from kascade.recipe.schema import Recipe
from kascade.storage.layout import RunLayout


@dataclass(frozen=True, slots=True)
class Case:
    """One checkpoint before the guard, with the scores that are on disk.

    parent: the accepted checkpoint its stage started from. round: 0 for the trained checkpoint, n for
    recovery n; confirming samples carry it as their `Score.round`, so every attempt is judged on fresh ones.
    before: per benchmark the best accepted checkpoint and its screening score. after, at_start: screening
    scores of the candidate and of the parent. known_lost: benchmarks lost by the attempts before this one.
    """

    layout: RunLayout
    recipe: Recipe
    candidate: Ancestor
    parent: Ancestor
    round: int
    before: Mapping[str, tuple[Ancestor, Score]]
    after: Mapping[str, Score]
    at_start: Mapping[str, Score]
    known_lost: frozenset[str]

    def suspicious(self) -> dict[str, Ancestor]:
        """Benchmarks to confirm, each with the baseline that must draw fresh samples, too."""
        screens = {name: score for name, (_, score) in self.before.items()}
        names = screen(screens, self.after, self.recipe.guard, self.known_lost)
        return {name: self.before[name][0] for name in names}


def open_case(run: Path, recipe: Recipe, checkpoint: str, parent: str) -> Case:
    """The case of `checkpoint`, an attempt of the stage that started from `parent` (references).

    Raises KascadeError when the candidate has not been screened on every benchmark of the recipe, and
    CheckpointError for a checkpoint that is not there.
    """
    layout = RunLayout(run)
    candidate, *line = walk(checkpoint)
    start = open_reference(parent)
    names = {benchmark.name for benchmark in recipe.benchmarks}
    after = read_scores(layout, candidate.digest, "screen")
    if missing := sorted(names - after.keys()):
        raise KascadeError(f"{candidate.manifest.id} has no screening score for: {', '.join(missing)}")
    return Case(
        layout=layout,
        recipe=recipe,
        candidate=candidate,
        parent=start,
        round=attempt_round(candidate.manifest.attempt),
        before={name: found for name, found in baselines(layout, parent).items() if name in names},
        after={name: after[name] for name in sorted(names)},
        at_start=read_scores(layout, start.digest, "screen"),
        known_lost=_lost_before(layout, candidate, line),
    )


def attempt_round(attempt: str) -> int:
    """0 for `train`, n for `recover-n`."""
    return 0 if attempt == "train" else int(attempt.removeprefix("recover-"))


def _lost_before(layout: RunLayout, candidate: Ancestor, line: list[Ancestor]) -> frozenset[str]:
    earlier = (one.manifest for one in line if one.manifest.stage == candidate.manifest.stage)
    verdicts = (read_verdict(layout, manifest.id) for manifest in earlier)
    return frozenset(name for verdict in verdicts if verdict for name in verdict.lost_benchmarks)


def judge(case: Case) -> Verdict:
    """The verdict on a case whose suspicious benchmarks have been confirmed.

    Raises KascadeError when confirming scores are missing.
    """
    screened = {name: compare(score, case.after[name]) for name, (_, score) in case.before.items()}
    family = sum(comparison is not None for comparison in screened.values())
    confirmed = {name: _confirming(case, name, ancestor) for name, ancestor in case.suspicious().items()}
    graded = {name: comparison for name, comparison in confirmed.items() if comparison is not None}
    tests = confirm(graded, family, verdict_level(case.recipe), case.recipe.guard)
    judged = {
        name: _judge_one(case, name, "confirm", confirmed[name], tests.get(name))
        if name in confirmed
        else _judge_one(case, name, "screen", screened.get(name), None)
        for name in case.after
    }
    return _verdict(case, judged)


def _confirming(case: Case, name: str, baseline: Ancestor) -> Comparison | None:
    """The comparison on fresh samples; None when no task was graded on both sides."""
    scores = [
        read_score(case.layout, one.digest, name, "confirm", case.round) for one in (baseline, case.candidate)
    ]
    before, after = scores
    if before is None or after is None:
        raise KascadeError(
            f"{name} is suspicious after {case.candidate.manifest.id}, but has no confirming scores "
            f"(round {case.round}) of both checkpoints: evaluate again"
        )
    return compare(before, after)


def _judge_one(
    case: Case, name: str, phase: Phase, found: Comparison | None, test: Test | None
) -> BenchmarkVerdict:
    rise = _rise(case, name)
    decision = _decide(name in case.before, found, test, rise)
    before = None if found is None else Baseline(checkpoint=case.before[name][0].reference, mean=found.before)
    return BenchmarkVerdict(
        benchmark=name,
        domain=case.after[name].domain,
        role=_role(case, name),
        before=before,
        after=_after(case.after[name], found),
        difference=None if found is None else found.difference,
        interval=None if found is None else found.interval,
        phase=phase,
        num_tasks=0 if found is None else found.num_tasks,
        num_left_out=case.after[name].num_tasks if found is None else found.num_left_out,
        samples_before=0.0 if found is None else found.samples_before,
        samples_after=0.0 if found is None else found.samples_after,
        p=None if found is None else found.p_fall,
        level=None if test is None else test.level,
        min_drop=case.recipe.guard.min_drop,
        rise=rise,
        decision=decision,
        reason=reason(decision, found, test, rise, case.recipe.guard),
    )


def _after(screened: Score, found: Comparison | None) -> float | None:
    if found is not None:
        return found.after
    return screened.mean if screened.task_means() else None


def _role(case: Case, name: str) -> Role:
    stage = next(s for s in case.recipe.stages if s.name == case.candidate.manifest.stage)
    return "goal" if name in goal_benchmarks(case.recipe, stage) else "guard"


def _rise(case: Case, name: str) -> Rise | None:
    """A goal benchmark against the stage's start; None for a guard one, or without a common grade."""
    if _role(case, name) == "guard" or name not in case.at_start:
        return None
    found = compare(case.at_start[name], case.after[name])
    if found is None:
        return None
    level = case.recipe.guard.rise_level
    return Rise(
        before=Baseline(checkpoint=case.parent.reference, mean=found.before),
        after=found.after,
        difference=found.difference,
        interval=found.interval,
        p=found.p_rise,
        level=level,
        met=found.p_rise <= level,
    )


def _decide(has_baseline: bool, found: Comparison | None, test: Test | None, rise: Rise | None) -> Decision:
    if not has_baseline:
        return "no_baseline"
    if found is None:
        return "not_graded"
    if test is not None:
        return "regressed" if test.regressed else "suspicious_cleared"
    return "risen" if rise is not None and rise.met else "held"


def _verdict(case: Case, judged: dict[str, BenchmarkVerdict]) -> Verdict:
    lost = [found for found in judged.values() if found.decision == "regressed"]
    rises = [found.rise for found in judged.values() if found.rise is not None]
    manifest = case.candidate.manifest
    return Verdict(
        id=manifest.id,
        checkpoint=case.candidate.reference,
        stage=manifest.stage,
        attempt=manifest.attempt,
        round=case.round,
        parent=case.parent.reference,
        benchmarks=judged,
        regressed=bool(lost),
        lost_domains=tuple(dict.fromkeys(found.domain for found in lost)),
        goals_met=all(rise.met for rise in rises) if rises else None,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
