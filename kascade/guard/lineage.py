"""Which checkpoints count: outcomes of stages, and the accepted ancestors of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kascade.errors import CheckpointError
from kascade.guard.own import base_of, fingerprints_of
from kascade.recipe.order import parent_of
from kascade.recipe.run_recipe import find_run_recipe
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef, Manifest, open_checkpoint
from kascade.storage.files import write_record
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain

OutcomeDecision = Literal["accepted", "recovered", "continued", "rolled_back", "stopped"]


class Outcome(BaseModel):
    """What a stage ended with.

    decision: accepted at once; recovered; continued with a loss that stayed; rolled back to what there was
    before it (`accepted.fall_back`); stopped. candidate: reference of the last checkpoint judged; accepted:
    reference of the one the cascade continues from (None: stopped). verdicts: checkpoint ids of the verdicts
    behind it, in order.
    recovered: per lost domain (after - low) / (before - low); 1 when all that was lost is back.
    let_pass: benchmarks whose loss the recipe lets the cascade continue with; later ones compare with this.
    let_pass_losses: how much of each was let pass, in reward; empty in outcomes from before it was kept.
    intervals: per lost domain the 95% interval of what is recovered, where it is bounded.
    fingerprint: of the recipe for this stage; None in outcomes from before 0.2.
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
    let_pass_losses: dict[str, float] = {}
    intervals: dict[Domain, tuple[float, float]] = {}
    reasons: tuple[str, ...]
    created: str
    fingerprint: str | None = None

    @property
    def file_key(self) -> str:
        """Recipes that differ in the guard alone judge the same candidate, each in a file of its own."""
        return self.key if self.fingerprint is None else f"{self.key}-{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A checkpoint of the run, by reference, with its manifest."""

    reference: str
    manifest: Manifest

    @property
    def digest(self) -> str:
        return self.manifest.digest


def write_outcome(layout: RunFolder, outcome: Outcome) -> None:
    """Write an outcome into its file, in place of one of the same key and recipe."""
    write_record(layout.outcome(outcome.stage, outcome.file_key), outcome.model_dump_json(indent=1))


def read_outcomes(layout: RunFolder) -> list[Outcome]:
    """All outcomes of a run, oldest first (those of an earlier recipe in the same folder included)."""
    found = layout.each(layout.outcome_files(), _parse).values()
    return sorted(found, key=lambda outcome: (outcome.created, outcome.stage, outcome.key))


def own_outcomes(layout: RunFolder, recipe: Recipe | None = None) -> dict[str, Outcome]:
    """By stage, the outcome of the recipe that the folder is run with, by fingerprint and lineage.

    recipe: None: the one in the folder; a folder without one has the newest outcome of each stage.
    """
    outcomes = read_outcomes(layout)
    if recipe is None:
        recipe = find_run_recipe(layout) if layout.has_begun else None
    if recipe is None:
        return {outcome.stage: outcome for outcome in outcomes}
    known = fingerprints_of(layout, recipe)
    ends: dict[str | None, str | None] = {None: base_of(layout, recipe)}
    found: dict[str, Outcome] = {}
    for part in recipe.stages:
        start = ends[parent_of(recipe, part.name)]
        own = [
            outcome
            for outcome in outcomes
            if outcome.stage == part.name
            and outcome.fingerprint in (None, known[part.name])
            and (start is None or _same_checkpoint(outcome.parent, start))
        ]
        own.sort(key=lambda outcome: outcome.fingerprint is not None)  # those that say so count first
        if own:
            found[part.name] = own[-1]
        ends[part.name] = own[-1].accepted or own[-1].parent if own else start
    return found


def _same_checkpoint(first: str, second: str) -> bool:
    """By digest: folders move, and a bucket's checkpoint may be read from a cache."""
    return CheckpointRef.parse(first).digest == CheckpointRef.parse(second).digest


def _parse(path: Path) -> Outcome:
    return Outcome.model_validate_json(path.read_text(encoding="utf-8"))


def open_reference(reference: str) -> Ancestor:
    """The manifest behind a reference (files are not checked; loading weights does that).

    Raises CheckpointError when there is none, or when it names other contents than the reference does.
    """
    ref = CheckpointRef.parse(reference)
    found, manifest = open_checkpoint(ref.uri)
    if found.digest != ref.digest:
        raise CheckpointError(f"{ref.uri} holds {found.digest[:12]}, but {ref.digest[:12]} was asked for")
    return Ancestor(reference, manifest)


def same_model(first: Ancestor, second: Ancestor) -> bool:
    """Whether two checkpoints are one model: the same files, as where a stage changed nothing."""
    one, other = first.manifest, second.manifest
    equal = bool(one.files) and (one.files, one.base) == (other.files, other.base)
    return equal or first.reference == second.reference


def walk(reference: str) -> Iterator[Ancestor]:
    """A checkpoint, its parent, and so on to the base. Raises CheckpointError as `open_reference` does."""
    next_reference: str | None = reference
    while next_reference is not None:
        ancestor = open_reference(next_reference)
        yield ancestor
        next_reference = ancestor.manifest.parent


def accepted_ancestors(layout: RunFolder, parent: str) -> list[Ancestor]:
    """The base and every accepted checkpoint from there to `parent` (itself included), oldest first.

    parent: the accepted checkpoint a stage starts from, not its candidate: judged twice, a stage must not
    find its own earlier result among the ancestors.
    """
    accepted = _accepted_digests(layout)
    line = list(walk(parent))
    kept = [one for one in line if one.digest in accepted or one.manifest.parent is None]
    return kept[::-1]


def _accepted_digests(layout: RunFolder) -> set[str]:
    outcomes = own_outcomes(layout).values() if layout.has_begun else read_outcomes(layout)
    return {CheckpointRef.parse(outcome.accepted).digest for outcome in outcomes if outcome.accepted}


def accepted_of_stages(layout: RunFolder, stages: tuple[str, ...]) -> list[Ancestor]:
    """The accepted checkpoint of each named stage that has one: side branches are found so."""
    own = own_outcomes(layout)
    accepted = (own[stage].accepted for stage in stages if stage in own)
    return [open_reference(reference) for reference in accepted if reference]
