"""How a stage ends: which checkpoint the cascade continues from, and why."""

from __future__ import annotations

from datetime import UTC, datetime

from kascade.errors import GuardStop
from kascade.guard.accepted import fall_back
from kascade.guard.baselines import losses_let_pass
from kascade.guard.lineage import Outcome, read_outcomes, write_outcome
from kascade.guard.own import fingerprints_of
from kascade.guard.settlement import Settlement, recovered_shares, settle, share_intervals
from kascade.run.attempts import attempts_of, verdicts_of
from kascade.run.context import Run
from kascade.storage.checkpoint import mark_accepted


def settle_stage(run: Run, stage: str, candidate: str, parent: str) -> str:
    """Write the stage's outcome and return the accepted checkpoint.

    Raises GuardStop, after writing the outcome, when a loss stayed and the recipe says to stop, or when
    too many grades are missing to judge.
    """
    attempts = attempts_of(candidate)
    verdicts = verdicts_of(run, attempts)
    end = settle(verdicts, run.recipe.guard, losses_let_pass(run.layout, run.recipe, stage, parent))
    kept, before = attempts[::-1][end.best].reference, fall_back(run.layout, run.recipe, stage, parent)
    outcome = Outcome(
        stage=stage,
        key=attempts[0].manifest.key,
        decision=end.decision,
        candidate=candidate,
        accepted={"stopped": None, "rolled_back": before}.get(end.decision, kept),
        parent=parent,
        verdicts=tuple(verdict.id for verdict in verdicts),
        recovered=recovered_shares(verdicts[end.best]),
        intervals=share_intervals(verdicts[end.best]),
        let_pass=tuple(end.let_pass),
        let_pass_losses=dict(end.let_pass),
        reasons=end.reasons,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        fingerprint=fingerprints_of(run.layout, run.recipe)[stage],
    )
    if run.checkpoints is not None and outcome.accepted is not None:
        mark_accepted(outcome.accepted, run.recipe.name)
    ids = (outcome.stage, outcome.file_key)
    known = [one for one in read_outcomes(run.layout) if (one.stage, one.file_key) == ids]
    if [one.model_copy(update={"created": outcome.created}) for one in known] != [outcome]:
        write_outcome(run.layout, outcome)
    if outcome.accepted is None:
        raise GuardStop(f"stage {stage} is stopped, {_why(end)}:\n" + "\n".join(outcome.reasons))
    return outcome.accepted


def _why(end: Settlement) -> str:
    if end.cannot_judge:
        return f"because {', '.join(end.cannot_judge)} cannot be judged"
    return "as guard.unrecovered says"
