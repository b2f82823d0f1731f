"""How a stage ends: which checkpoint the cascade goes on from, and why."""

from __future__ import annotations

from datetime import UTC, datetime

from kascade.errors import GuardStop
from kascade.guard.lineage import Outcome, OutcomeDecision, read_outcomes, write_outcome
from kascade.guard.verdict import Verdict, recovered_share
from kascade.stages.attempts import attempts_of, verdicts_of
from kascade.stages.context import Run
from kascade.storage.checkpoint import mark_accepted

UNRECOVERED: dict[str, OutcomeDecision] = {
    "continue": "continued",
    "rollback": "rolled_back",
    "stop": "stopped",
}


def settle_stage(run: Run, stage: str, candidate: str, parent: str) -> str:
    """Write the stage's outcome and return the accepted checkpoint.

    Raises GuardStop, after writing the outcome, when a loss stayed and the recipe says to stop.
    """
    attempts = attempts_of(candidate)
    verdicts = verdicts_of(run, attempts)
    decision = decide(verdicts, UNRECOVERED[run.recipe.guard.unrecovered])
    outcome = Outcome(
        stage=stage,
        key=attempts[0].manifest.key,
        decision=decision,
        candidate=candidate,
        accepted={"stopped": None, "rolled_back": parent}.get(decision, candidate),
        parent=parent,
        verdicts=tuple(verdict.id for verdict in verdicts),
        recovered=recovered_share(verdicts),
        let_pass=tuple(verdicts[-1].lost_benchmarks) if decision == "continued" else (),
        reasons=reasons(verdicts, decision),
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    if run.checkpoints is not None and outcome.accepted is not None:
        mark_accepted(outcome.accepted, run.recipe.name)
    known = [one for one in read_outcomes(run.layout) if (one.stage, one.key) == (outcome.stage, outcome.key)]
    if [one.model_copy(update={"created": outcome.created}) for one in known] != [outcome]:
        write_outcome(run.layout, outcome)
    if outcome.accepted is None:
        raise GuardStop(
            f"stage {stage} is stopped, as guard.unrecovered says:\n" + "\n".join(outcome.reasons)
        )
    return outcome.accepted


def decide(verdicts: list[Verdict], unrecovered: OutcomeDecision) -> OutcomeDecision:
    if verdicts[-1].regressed:
        return unrecovered
    return "accepted" if len(verdicts) == 1 else "recovered"


def reasons(verdicts: list[Verdict], decision: OutcomeDecision) -> tuple[str, ...]:
    """What each attempt lost, benchmark by benchmark, and what was made of it."""
    lines = [
        f"{verdict.attempt}: {verdict.benchmarks[name].reason}"
        for verdict in verdicts
        for name in verdict.lost_benchmarks
    ]
    if not lines:
        return ("no benchmark fell beyond chance and tolerance",)
    ends: dict[OutcomeDecision, str] = {
        "recovered": "recovered: nothing that was lost is still missing",
        "continued": "not recovered; the cascade goes on with it",
        "rolled_back": "not recovered; the cascade goes on from the stage's start",
        "stopped": "not recovered; the cascade stops here",
    }
    return (*lines, ends[decision])
