"""Promotion: an alias of the registry moves to a run's final checkpoint, if every verdict and the champion
allow it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kascade.attestation.signing import sign_checkpoint
from kascade.errors import KascadeError
from kascade.guard import end_check
from kascade.guard.approval import ask
from kascade.guard.champion import Challenge, read_challenge, sentences
from kascade.guard.decline import when_promoted
from kascade.guard.lineage import own_outcomes
from kascade.recipe.approval import PROMOTION
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.files import write_record
from kascade.storage.run_folder import RunFolder
from kascade.tracking.mlflow_server import TrackingError, connect, tracking_uri
from kascade.tracking.mlflow_sync import tracking_id
from kascade.tracking.registry import Registered, Version

Decision = Literal["promoted", "stays", "not compared"]
ALIAS = "champion"  # of a run whose recipe names none, when a person promotes it
ALONE = "There is no champion yet, so the end check alone decides."
FORCED = "A person let the end check alone decide, because the champion cannot be loaded."
PASSED = ("accepted", "recovered")
log = logging.getLogger(__name__)


class Promotion(BaseModel):
    """What became of a run's promotion.

    decision: promoted (also: it was champion before); stays: the alias was left where it is; not compared:
    the comparison with the champion could not be made. challenger, champion: references; champion: the one
    before. version: of the challenger, where it is registered. challenge: their comparison, if there was one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    alias: str
    decision: Decision
    reasons: tuple[str, ...]
    challenger: str | None = None
    version: str | None = None
    champion: str | None = None
    champion_version: str | None = None
    challenge: Challenge | None = None


@dataclass(frozen=True, slots=True)
class Final:
    """The checkpoint that a run may promote; None where `reasons` forbid it."""

    reference: str | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Allowed:
    """What only a person may allow. again: a version that was rolled back. fewer_benchmarks: a run without
    some benchmarks of the champion. without_champion: no comparison, as the champion cannot be loaded."""

    again: bool = False
    fewer_benchmarks: bool = False
    without_champion: bool = False


NOTHING = Allowed()


def final_checkpoint(layout: RunFolder, recipe: Recipe, ended: str | None = None) -> Final:
    """The checkpoint that may be promoted, by the recipe's outcome of each stage of the main line.

    ended: what the cascade ends with; None: as its last step wrote it down.
    """
    outcomes = own_outcomes(layout, recipe)
    reasons, last = [], None
    for stage in recipe.stages:
        if stage.side_branch:
            continue
        last = outcomes.get(stage.name)
        if last is None:
            reasons.append(f"{stage.name} has not ended")
        elif last.decision not in PASSED:
            reasons.append(f"{stage.name}: {last.decision.replace('_', ' ')}")
    if reasons or last is None or last.accepted is None:
        return Final(None, tuple(reasons))
    kept = _end_verdict(layout, last.accepted, ended or layout.final_checkpoint())
    if kept is None:
        return Final(None, ("the end check has not been made",))
    return Final(kept.checkpoint) if kept.kept else Final(None, tuple(end_check.sentences(kept)))


def _end_verdict(layout: RunFolder, accepted: str, final: str | None) -> end_check.EndVerdict | None:
    """The end check of what the last stage ended with, or of the last recovery of it."""
    recovered = end_check.read_end_verdict(layout, final) if final else None
    if recovered is not None and recovered.recovered_from == accepted:
        return recovered
    return end_check.read_end_verdict(layout, accepted)


@contextmanager
def registered(run: Path, recipe: Recipe) -> Iterator[Registered]:
    """The registered model of a run's recipe. Raises TrackingError when MLflow cannot be reached."""
    with connect(tracking_uri(run, recipe)) as client:
        yield Registered(client, recipe.name, recipe.tracking.promote_as or ALIAS)


def opponent(found: Registered, reference: str, allowed: Allowed) -> tuple[Version | None, str | None]:
    """The champion that a checkpoint must be compared with (None: with none), or what forbids it anyway."""
    digest = CheckpointRef.parse(reference).digest
    own = next((one for one in found.versions() if one.digest == digest), None)
    champion = found.champion()
    if champion is None or champion.digest == digest:
        return None, None
    if own is not None and own.rolled_back and not allowed.again:
        when = own.rolled_back[:10]
        return None, f"version {own.number} was rolled back on {when}; only a person may promote it again."
    return (None, None) if allowed.without_champion else (champion, None)


def promote(run: Path, recipe: Recipe, allowed: Allowed = NOTHING) -> Promotion:
    """Let the alias name the run's final checkpoint, if its verdicts and the champion allow it. Idempotent.

    The run has been synced before. Raises TrackingError when MLflow cannot be reached.
    """
    layout = RunFolder(run)
    final = final_checkpoint(layout, recipe)
    if final.reference is None:
        found = outcome(recipe, "stays", None, None, final.reasons)
    else:
        with registered(run, recipe) as model:
            found = _decide(layout, recipe, model, final.reference, allowed)
    write_promotion(layout, found)
    words = "; ".join(found.reasons)
    if found.decision == "promoted":
        log.info("%s is version %s of %s: %s", found.alias, found.version, found.name, words)
    else:
        log.warning("%s stays where it is: %s", found.alias, words)
    return found


def _decide(
    layout: RunFolder, recipe: Recipe, model: Registered, reference: str, allowed: Allowed
) -> Promotion:
    champion, forbidden = opponent(model, reference, allowed)
    if forbidden is not None:
        return outcome(recipe, "stays", reference, model.champion(), (forbidden,))
    challenge = read_challenge(layout, reference, champion.reference) if champion else None
    reasons = _reasons(recipe, champion, challenge, allowed)
    if reasons and (challenge is None or challenge.benchmarks.keys() != _names(recipe)):
        return _not_compared(layout, recipe, reference, champion, reasons)
    if reasons:
        found = outcome(recipe, "stays", reference, champion, reasons)
        return found.model_copy(update={"challenge": challenge})
    if (why := _held_up(layout, recipe, model, reference)) is not None:
        return outcome(recipe, "stays", reference, champion, (why,))
    try:
        if recipe.attest is not None:
            sign_checkpoint(layout, recipe, reference, recipe.attest.key, "attest.key")
    except KascadeError as error:
        why = f"it cannot be signed: {' '.join(str(error).split())}"
        return outcome(recipe, "stays", reference, champion, (why,))
    return _move(layout, recipe, model, reference, challenge)


def _held_up(layout: RunFolder, recipe: Recipe, model: Registered, reference: str) -> str | None:
    """Why a person's word keeps the alias where it is; None where it may move, or is there already."""
    there = model.champion()
    if there is not None and there.reference == reference:
        return None
    said = ask(layout, recipe, PROMOTION, reference)
    if said is None:
        return "it waits for a person's approval."
    why = f"it was rejected by {said.by} at {said.at}: {said.reason or 'no reason given'}."
    return None if said.approved else why


def _names(recipe: Recipe) -> set[str]:
    return {one.name for one in recipe.benchmarks}


def _reasons(
    recipe: Recipe, champion: Version | None, challenge: Challenge | None, allowed: Allowed
) -> tuple[str, ...]:
    """Why the champion stays; () where it may go."""
    if champion is None:
        return ()
    if challenge is None or challenge.benchmarks.keys() != _names(recipe):
        return (f"it has not been compared with the champion, version {champion.number}.",)
    if not challenge.passed:
        return tuple(sentences(challenge))
    if challenge.unmeasured and not allowed.fewer_benchmarks:
        missing = ", ".join(challenge.unmeasured)
        return (f"this run does not measure what the champion was promoted on: {missing}.",)
    return ()


def outcome(
    recipe: Recipe,
    decision: Decision,
    challenger: str | None,
    champion: Version | None,
    reasons: tuple[str, ...],
) -> Promotion:
    """What became of a promotion, of a version that has no number yet."""
    return Promotion(
        name=recipe.name,
        alias=recipe.tracking.promote_as or ALIAS,
        decision=decision,
        reasons=reasons,
        challenger=challenger,
        champion=champion.reference if champion else None,
        champion_version=champion.number if champion else None,
    )


def not_reached(layout: RunFolder, recipe: Recipe, error: TrackingError) -> None:
    """Write down that MLflow could not be asked: the run has ended, and a person can promote it later."""
    why = f"{error} To do: kascade promote {layout.root}"
    log.warning("nothing was promoted: %s", why)
    if recipe.tracking.promote_as:
        write_promotion(layout, outcome(recipe, "not compared", None, None, (why,)))


def _not_compared(
    layout: RunFolder,
    recipe: Recipe,
    challenger: str,
    champion: Version | None,
    reasons: tuple[str, ...],
) -> Promotion:
    """The comparison's own words of why it could not be made, where it left some."""
    found = outcome(recipe, "not compared", challenger, champion, reasons)
    before = read_promotion(layout)
    if before is not None and before == found.model_copy(update={"reasons": before.reasons}):
        return before
    return found


def _move(
    layout: RunFolder, recipe: Recipe, model: Registered, reference: str, challenge: Challenge | None
) -> Promotion:
    before, version = model.champion(), model.register(reference, tracking_id(layout))
    known = read_promotion(layout)
    if before is not None and before.number == version.number:  # it is champion already
        if known is not None and (known.decision, known.challenger) == ("promoted", reference):
            return known
        before, why = None, _said_before(model, version)
    else:
        why = tuple(sentences(challenge)) if challenge else (FORCED if before else ALONE,)
        scores = when_promoted(layout, recipe, reference, challenge.champion if challenge else None)
        model.describe(
            version, challenge.given_up_after() if challenge else {}, sorted(_names(recipe)), scores
        )
        model.forgive(version)
    model.move(version, "promoted", " ".join(why))
    found = outcome(recipe, "promoted", reference, before, why)
    return found.model_copy(update={"version": version.number, "challenge": challenge})


def _said_before(model: Registered, version: Version) -> tuple[str, ...]:
    """Why the alias moved to this version, the last time it did."""
    return tuple(one.why for one in model.history() if one.version == version.number)[-1:]


def promotion_sentences(found: Promotion | None) -> list[str]:
    """What became of the promotion; [] before there was one."""
    if found is None:
        return []
    who = f"version {found.version}" if found.decision == "promoted" else "where it was"
    return [f"Promotion: {found.alias} is {who}. {' '.join(_sentence(one) for one in found.reasons)}"]


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def write_promotion(layout: RunFolder, found: Promotion) -> None:
    write_record(layout.promotion, found.model_dump_json(indent=1))


def read_promotion(layout: RunFolder) -> Promotion | None:
    """What became of the run's promotion; None before there is one. Raises UserError for a broken file."""
    return layout.load(layout.promotion, _parse)


def _parse(path: Path) -> Promotion:
    return Promotion.model_validate_json(path.read_text(encoding="utf-8"))
