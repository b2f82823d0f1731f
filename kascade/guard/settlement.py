"""What follows from a stage's verdicts: which attempt the cascade continues from, and what it lets pass with
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kascade.guard.lineage import OutcomeDecision
from kascade.guard.looks import SAME
from kascade.guard.share import Share, total
from kascade.guard.verdict import BenchmarkVerdict, Verdict
from kascade.recipe.schema import Guard
from kascade.task import Domain

ENDS: Mapping[OutcomeDecision, str] = {
    "recovered": "recovered: everything that was lost is shown to be back within the margin",
    "continued": "not shown to be recovered; the cascade continues with it",
    "rolled_back": "not shown to be recovered; the cascade continues with what it had before the stage",
    "stopped": "not shown to be recovered; the cascade stops here",
}
UNRECOVERED: Mapping[str, OutcomeDecision] = {
    "continue": "continued",
    "rollback": "rolled_back",
    "stop": "stopped",
}


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a stage. best: place of the attempt to keep among the verdicts; let_pass: its losses, in
    reward.

    cannot_judge: benchmarks without the grades that a verdict needs: nothing is accepted then.
    """

    decision: OutcomeDecision
    best: int
    reasons: tuple[str, ...]
    let_pass: Mapping[str, float] = field(default_factory=dict)
    cannot_judge: tuple[str, ...] = ()


def settle(verdicts: Sequence[Verdict], guard: Guard, passed: Mapping[str, float]) -> Settlement:
    """What a stage ends with, by its attempts' verdicts, oldest first.

    passed: what earlier stages have let pass of each benchmark, summed. The attempt that is kept is the best
    of all, not the last. A loss beyond `let_pass_budget` is not let pass: the stage is rolled back.
    """
    last = len(verdicts) - 1
    lines = loss_lines(verdicts)
    if unknown := verdicts[last].not_judged:
        why = tuple(f"{name}: {verdicts[last].benchmarks[name].reason}" for name in unknown)
        return Settlement("stopped", last, (*lines, *why), cannot_judge=unknown)
    if not lines:
        return Settlement("accepted", last, ("no benchmark is lost",))
    if not verdicts[last].regressed:
        return Settlement("recovered", last, (*lines, ENDS["recovered"]))
    best, decision = best_attempt(verdicts), UNRECOVERED[guard.unrecovered]
    if best != last:
        lines = (*lines, f"{verdicts[best].attempt} is the best attempt, and represents the stage")
    if decision != "continued":
        return Settlement(decision, best, (*lines, ENDS[decision]))
    losses = {name: _fall(verdicts[best].benchmarks[name]) for name in verdicts[best].lost_benchmarks}
    beyond = {
        name: passed.get(name, 0.0) + loss
        for name, loss in losses.items()
        if passed.get(name, 0.0) + loss > guard.let_pass_budget + SAME
    }
    if beyond:
        sums = ", ".join(f"{name} {loss:.3f}" for name, loss in beyond.items())
        budget = f"guard.let_pass_budget allows {guard.let_pass_budget:g} over the cascade, not {sums}"
        return Settlement("rolled_back", best, (*lines, budget, ENDS["rolled_back"]))
    return Settlement("continued", best, (*lines, ENDS["continued"]), losses)


def best_attempt(verdicts: Sequence[Verdict]) -> int:
    """The attempt with the smallest falls on all that any attempt lost, together; of equals the later one.

    Attempts that cannot be judged are no candidates.
    """
    lost = {name for verdict in verdicts for name in verdict.lost_benchmarks}
    falls = {
        place: sum(_fall(verdict.benchmarks[name]) for name in lost)
        for place, verdict in enumerate(verdicts)
        if not verdict.not_judged
    }
    return min(falls, key=lambda place: (falls[place], -place))


def loss_lines(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """What each attempt lost, benchmark by benchmark."""
    return tuple(
        f"{verdict.attempt}: {name}: {verdict.benchmarks[name].reason}"
        for verdict in verdicts
        for name in verdict.lost_benchmarks
    )


def recovered_shares(verdict: Verdict) -> dict[Domain, float]:
    """Per domain with a known loss the share that is back, by draws that did not find it.

    Domains whose draws show no loss are left out.
    """
    shares: dict[Domain, list[Share]] = {}
    for found in verdict.benchmarks.values():
        if (back := found.recovered) is not None:
            shares.setdefault(found.domain, []).append(Share(back.back, back.loss, back.interval))
    values = {domain: total(found) for domain, found in shares.items()}
    return {domain: value for domain, value in values.items() if value is not None}


def share_intervals(verdict: Verdict) -> dict[Domain, tuple[float, float]]:
    """The 95% interval of each domain's share, where one benchmark stands for it and the interval is
    bounded."""
    known = [found for found in verdict.benchmarks.values() if found.recovered is not None]
    domains = [found.domain for found in known]
    return {
        found.domain: found.recovered.interval
        for found in known
        if found.recovered and found.recovered.interval and domains.count(found.domain) == 1
    }


def _fall(found: BenchmarkVerdict) -> float:
    return max(0.0, -(found.difference or 0.0))
