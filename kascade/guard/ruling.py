"""A verdict from the scores of a run: what is true of each benchmark, in one of four words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from kascade.errors import KascadeError
from kascade.guard.case import Case, Finding, open_case
from kascade.guard.comparison import Comparison, Standing, compare
from kascade.guard.looks import Looked
from kascade.guard.reasons import reason
from kascade.guard.rule import goal_benchmarks, holm
from kascade.guard.scores import Score
from kascade.guard.share import recovered_share
from kascade.guard.verdict import (
    UNSETTLED,
    Baseline,
    BenchmarkVerdict,
    Decision,
    Pool,
    RecoveredShare,
    Rise,
    Role,
    Verdict,
    draw_of,
)

__all__ = ["Case", "judge", "open_case"]


def judge(case: Case) -> Verdict:
    """The verdict on a case whose suspicious benchmarks have been confirmed.

    Raises KascadeError when confirming scores are missing.
    """
    screened = case.screened()
    looked = {name: _confirmed(case, name) for name in case.suspicious()}
    drops = {
        name: (found.p, -found.comparison.difference)
        for name, found in looked.items()
        if found.comparison is not None and name not in case.known_lost
    }
    tests = holm(drops, max(len(case.held), 1), case.level, case.recipe.guard.min_drop)
    judged = {
        name: _judge_one(
            case,
            name,
            Finding(
                looked[name].comparison if name in looked else screened.get(name),
                looked.get(name),
                tests.get(name),
                name in case.known_lost,
            ),
        )
        for name in case.after
    }
    return _verdict(case, judged)


def _confirmed(case: Case, name: str) -> Looked:
    found = case.looked(name)
    if found is None or found.more is not None:
        raise KascadeError(
            f"{name} is suspicious after {case.candidate.manifest.id}, but has no confirming scores "
            f"(draw {case.draw(name)}) of both checkpoints, or too few: evaluate again"
        )
    return found


def _judge_one(case: Case, name: str, finding: Finding) -> BenchmarkVerdict:
    found, looked, test = finding.comparison, finding.looked, finding.test
    rise = _rise(case, name)
    standing = _standing(case, finding)
    is_free = name in case.before and name not in case.held
    decision = "not_held" if is_free else _decide(name in case.before, finding, standing, rise)
    before = None if found is None else Baseline(checkpoint=case.before[name][0].reference, mean=found.before)
    share = _share(case, name, looked) if finding.known else None
    return BenchmarkVerdict(
        benchmark=name,
        domain=case.after[name].domain,
        role=_role(case, name),
        before=before,
        after=_after(case.after[name], found),
        difference=None if found is None else found.difference,
        interval=None if found is None else found.interval,
        phase=finding.phase,
        num_tasks=0 if found is None else found.num_tasks,
        num_left_out=case.after[name].num_tasks if found is None else found.num_left_out,
        samples_before=0.0 if found is None else found.samples_before,
        samples_after=0.0 if found is None else found.samples_after,
        p=looked.p if looked and not finding.known else None if found is None else found.p_fall,
        level=None if test is None else test.level,
        min_drop=case.recipe.guard.min_drop,
        rise=rise,
        decision=decision,
        reason=reason(decision, finding, rise, case.recipe.guard),
        standing=standing,
        p_tasks=None if found is None else found.p_fall,
        p_within=None if found is None or looked is None or finding.known else found.p_within,
        missing_before=0.0 if found is None else found.missing_before,
        missing_after=case.after[name].missing if found is None else found.missing_after,
        bounds=found.bounds if found and found.most_missing else None,
        pool=_pool(case, name, looked),
        recovered=share,
    )


def _standing(case: Case, finding: Finding) -> Standing:
    """kept, lost, not shown, or not judged where a baseline is missing, or grades are: too many or
    unequally."""
    found, guard = finding.comparison, case.recipe.guard
    if found is None or not found.can_be_judged(guard.max_missing, guard.unequal_missing):
        return "not_judged"
    if finding.known and finding.looked:
        return finding.looked.standing
    if finding.test is not None and finding.test.regressed:
        return "lost"
    standing = found.standing(
        guard.retention.margin, finding.keep_level(guard), guard.max_missing, guard.unequal_missing
    )
    return "kept" if standing == "kept" else "not_shown"


def _decide(has_baseline: bool, finding: Finding, standing: Standing, rise: Rise | None) -> Decision:
    if finding.comparison is None:
        return "not_graded" if has_baseline else "no_baseline"
    if standing == "not_judged":
        return "not_judged"
    if standing == "lost":
        return "regressed"
    if finding.looked is not None:
        return "not_recovered" if finding.known and standing != "kept" else "suspicious_cleared"
    return "risen" if rise is not None and rise.met else "held"


def _after(screened: Score, found: Comparison | None) -> float | None:
    if found is not None:
        return found.after
    return screened.mean if screened.task_means() else None


def _role(case: Case, name: str) -> Role:
    return "goal" if name in goal_benchmarks(case.recipe, case.stage) else "guard"


def _rise(case: Case, name: str) -> Rise | None:
    """A goal benchmark against the stage's start; None for a guard one, or without a common grade."""
    if _role(case, name) == "guard" or name not in case.at_start:
        return None
    found = compare(case.at_start[name].task_rewards(), case.after[name].task_rewards())
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


def _pool(case: Case, name: str, looked: Looked | None) -> Pool | None:
    """Which answers of the baseline were used, and by which verdicts before this one.

    Stages after this one note it themselves: judged again, a stage's verdict says what it said.
    """
    if looked is None:
        return None
    names = [part.name for part in case.recipe.stages]
    later = names[names.index(case.candidate.manifest.stage) + 1 :]
    draw, reference = case.draw(name), case.before[name][0].reference
    others = [
        verdict.id
        for verdict in case.earlier
        if verdict.stage not in later and draw_of(verdict, name) == draw and _used(verdict, name, reference)
    ]
    return Pool(draw=f"confirm-{draw}", samples=looked.size, shared_with=tuple(sorted(others)))


def _used(verdict: Verdict, name: str, reference: str) -> bool:
    """Whether a verdict used this checkpoint's answers: as its baseline, as its subject, or as what had lost
    and was drawn again."""
    found = verdict.benchmarks[name]
    low = found.recovered.low if found.recovered else None
    before = found.before.checkpoint if found.before else None
    return reference in (verdict.checkpoint, before, low)


def _share(case: Case, name: str, looked: Looked | None) -> RecoveredShare | None:
    """What of a known loss is back; None while the checkpoint that lost it has not drawn again."""
    low = case.known_lost[name]
    rewards = [case.fresh(name, one) for one in (case.before[name][0], low, case.candidate)]
    if looked is None or any(one is None for one in rewards):
        return None
    before, under, after = (one.first(looked.size) for one in rewards if one is not None)
    found = recovered_share(before, under, after)
    if found is None:
        return None
    return RecoveredShare(
        low=low.reference, back=found.back, loss=found.loss, share=found.value, interval=found.interval
    )


def _verdict(case: Case, judged: Mapping[str, BenchmarkVerdict]) -> Verdict:
    lost = [found for found in judged.values() if found.decision in UNSETTLED]
    rises = [found.rise for found in judged.values() if found.rise is not None]
    manifest = case.candidate.manifest
    return Verdict(
        id=manifest.id,
        checkpoint=case.candidate.reference,
        stage=manifest.stage,
        attempt=manifest.attempt,
        round=case.round,
        parent=case.parent.reference,
        benchmarks=dict(judged),
        regressed=bool(lost),
        lost_domains=tuple(dict.fromkeys(found.domain for found in lost)),
        goals_met=all(rise.met for rise in rises) if rises else None,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        level=case.level,
    )
