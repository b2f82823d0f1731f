"""Rollback: the alias goes back to an earlier version, and no run takes it away again by itself."""

from __future__ import annotations

from dataclasses import dataclass

from kascade.errors import Fault, UserError
from kascade.storage.checkpoint import is_there
from kascade.tracking.registry import Registered, Version

PERSON = "A person rolled back."


@dataclass(frozen=True, slots=True)
class RolledBack:
    """version: who is champion now. before: the number of who was, None where nothing changed."""

    version: Version
    before: str | None


def roll_back(model: Registered, to: str | None = None) -> RolledBack:
    """Let the alias name version `to` again; None: the one before the last promotion. Idempotent.

    It needs nothing of the version that has the alias now, which may be damaged.
    The version that loses the alias is marked, so that no run promotes it again by itself. Raises UserError
    when there is no such version, or its checkpoint is gone, and TrackingError.
    """
    champion = model.holder()
    if champion is None:
        what = f"the registered model has no alias {model.alias!r}"
        raise UserError(Fault(model.name, what, remedy="check --tracking and --alias"))
    number = to or _previous(model, champion)
    target = model.find(number)
    if target is None:
        known = ", ".join(one.number for one in model.versions())
        raise UserError(Fault("--to", f"{model.name} has no version {number}", allowed=known))
    if target.number == champion:
        return RolledBack(target, None)
    if not is_there(target.reference):
        what = f"the checkpoint of version {number} is gone: {target.reference}"
        raise UserError(Fault("--to", what, remedy="name another version, or bring its files back"))
    model.mark_rolled_back(champion)
    model.forgive(target)
    model.move(target, "rolled back", PERSON)
    return RolledBack(target, champion)


def _previous(model: Registered, champion: str) -> str:
    """The version before the last promotion; the champion itself where that was rolled back already."""
    moves = model.history()
    if moves and moves[-1].version == champion:
        if moves[-1].how == "rolled back":
            return champion
        if moves[-1].previous is not None:
            return moves[-1].previous
    known = ", ".join(one.number for one in model.versions() if one.number != champion)
    what = "no champion before this one is known"
    raise UserError(Fault(model.name, what, allowed=known or "none", remedy="name a version with --to"))
