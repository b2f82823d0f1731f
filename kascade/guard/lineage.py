"""Which checkpoints count: outcomes of stages, and the accepted ancestors of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kascade.environments.base import Domain
from kascade.errors import CheckpointError
from kascade.guard.scores import Score, read_scores
from kascade.storage.checkpoint import CheckpointRef, Manifest, open_checkpoint
from kascade.storage.files import write_text
from kascade.storage.layout import RunLayout

OutcomeDecision = Literal["accepted", "recovered", "continued", "rolled_back", "stopped"]


class Outcome(BaseModel):
    """What a stage ended with.

    decision: accepted at once; recovered; continued with a loss that stayed; rolled back to the parent;
    stopped. candidate: reference of the last checkpoint judged; accepted: reference of the one the cascade
    goes on from (None: stopped). verdicts: checkpoint ids of the verdicts behind it, in order.
    recovered: per lost domain (after - low) / (before - low); 1 when all that was lost is back.
    let_pass: benchmarks whose loss the recipe lets the cascade go on with; later ones compare with this.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    key: str
    decision: OutcomeDecision
    candidate: str
    accepted: str | None
    parent: str
    verdicts: tuple[str, ...]
    recovered: dict[Domain, float] = {}
    let_pass: tuple[str, ...] = ()
    reasons: tuple[str, ...]
    created: str


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A checkpoint of the run, by reference, with its manifest."""

    reference: str
    manifest: Manifest

    @property
    def digest(self) -> str:
        return self.manifest.digest


def write_outcome(layout: RunLayout, outcome: Outcome) -> None:
    write_text(layout.outcome(outcome.stage, outcome.key), outcome.model_dump_json(indent=1) + "\n")


def read_outcomes(layout: RunLayout) -> list[Outcome]:
    """All outcomes of a run, oldest first (those of an earlier recipe in the same folder included)."""
    paths = (layout.root / "outcomes").glob("*.json")
    found = [Outcome.model_validate_json(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(found, key=lambda outcome: (outcome.created, outcome.stage, outcome.key))


def open_reference(reference: str) -> Ancestor:
    """The manifest behind a reference (files are not checked; loading weights does that).

    Raises CheckpointError when there is none, or when it names other contents than the reference does.
    """
    ref = CheckpointRef.parse(reference)
    found, manifest = open_checkpoint(ref.uri)
    if found.digest != ref.digest:
        raise CheckpointError(f"{ref.uri} holds {found.digest[:12]}, but {ref.digest[:12]} was asked for")
    return Ancestor(reference, manifest)


def walk(reference: str) -> Iterator[Ancestor]:
    """A checkpoint, its parent, and so on to the base. Raises CheckpointError as `open_reference` does."""
    next_reference: str | None = reference
    while next_reference is not None:
        ancestor = open_reference(next_reference)
        yield ancestor
        next_reference = ancestor.manifest.parent


def accepted_ancestors(layout: RunLayout, parent: str) -> list[Ancestor]:
    """The base and every accepted checkpoint from there to `parent` (itself included), oldest first.

    parent: the accepted checkpoint a stage starts from, not its candidate: judged twice, a stage must not
    find its own earlier result among the ancestors.
    """
    accepted = _accepted_digests(layout)
    line = list(walk(parent))
    kept = [one for one in line if one.digest in accepted or one.manifest.parent is None]
    return kept[::-1]


def _accepted_digests(layout: RunLayout) -> set[str]:
    outcomes = read_outcomes(layout)
    return {CheckpointRef.parse(outcome.accepted).digest for outcome in outcomes if outcome.accepted}


def accepted_of_stages(layout: RunLayout, stages: tuple[str, ...]) -> list[Ancestor]:
    """The newest accepted checkpoint of each named stage that has one: side branches are found so."""
    newest = {o.stage: o.accepted for o in read_outcomes(layout) if o.stage in stages and o.accepted}
    return [open_reference(newest[stage]) for stage in stages if stage in newest]


def baselines(layout: RunLayout, parent: str) -> dict[str, tuple[Ancestor, Score]]:
    """Per benchmark, the accepted ancestor with the best screening mean, and that score.

    The maximum of several noisy means is biased upwards. It only picks whom to compare with: a fall counts
    by fresh samples of both checkpoints (see `kascade.guard.rule`). A loss that was let pass is not found
    again by every later stage: from there on the checkpoint that it was let pass in is the one to hold.
    """
    let_pass = {
        CheckpointRef.parse(outcome.accepted).digest: outcome.let_pass
        for outcome in read_outcomes(layout)
        if outcome.accepted
    }
    best: dict[str, tuple[Ancestor, Score]] = {}
    for ancestor in accepted_ancestors(layout, parent):
        for name, score in read_scores(layout, ancestor.digest, "screen").items():
            if not score.task_means():
                continue
            lowered = name in let_pass.get(ancestor.digest, ())
            if lowered or name not in best or score.mean > best[name][1].mean:
                best[name] = (ancestor, score)
    return best
