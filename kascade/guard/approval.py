"""A person's word, and what a run that ended before its end waits for: both are files in its folder.

A question is known by what it is about: a stage and the checkpoint that it would start from, or the promotion
of a checkpoint. So an answer holds for that checkpoint alone, and another one is asked about again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kascade.errors import Fault, UserError
from kascade.recipe.approval import PROMOTION
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.files import write_record
from kascade.storage.run_folder import RunFolder

TIMEOUT = "timeout"
Word = Literal["waiting for approval", "budget reached", "rejected"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Decision(_Frozen):
    """An answer. by: who gave it; at: when (ISO 8601)."""

    approved: bool
    by: str
    at: str
    reason: str = ""


class Question(_Frozen):
    """What a person was asked, since when, and every answer; the last one counts."""

    before: str
    subject: str
    since: str
    decisions: tuple[Decision, ...] = ()


class Waiting(_Frozen):
    """Why a run ended before its end. before: what was not begun: a stage, `STAGE.recover-N`, `retain` (the
    end check) or `promotion`. until: when silence counts as an answer."""

    word: Word
    before: str
    sentence: str
    since: str
    until: str | None = None


def read_waiting(folder: RunFolder) -> Waiting | None:
    """What the run waits for; None where it goes on, or has come to its end."""
    return folder.load(
        folder.waiting, lambda path: Waiting.model_validate_json(path.read_text(encoding="utf-8"))
    )


def wait(folder: RunFolder, waiting: Waiting) -> None:
    """Write down that the run ends here."""
    write_record(folder.waiting, waiting.model_dump_json(indent=1))


def go_on(folder: RunFolder) -> None:
    """Forget what an earlier pass waited for: this one asks again."""
    folder.waiting.unlink(missing_ok=True)


def ask(
    folder: RunFolder, recipe: Recipe, before: str, subject: str, now: datetime | None = None
) -> Decision | None:
    """The answer to whether `before` may begin with the checkpoint `subject` (reference).

    None: nobody has answered, and the run is written down as waiting. Where the recipe does not ask, it is
    approved at once. An answer that has taken too long is given by the recipe's `on_timeout`.
    """
    now = now or datetime.now(UTC)
    if before not in recipe.approval.before:
        return Decision(approved=True, by="recipe", at=now.isoformat(timespec="seconds"))
    question = _question(folder, before, subject)
    if question is None:
        question = Question(before=before, subject=subject, since=now.isoformat(timespec="seconds"))
        _write(folder, question)
    if question.decisions:
        return question.decisions[-1]
    if decision := _by_timeout(folder, recipe, question, now):
        return decision
    _wait_for_word(folder, recipe, question)
    return None


def pending(folder: RunFolder) -> list[Question]:
    """Every question without an answer, oldest first."""
    return [one for one in questions(folder) if not one.decisions]


def questions(folder: RunFolder) -> list[Question]:
    """Every question of the run, oldest first."""
    return sorted(
        folder.each(sorted(folder.approvals.glob("*.json")), _parse).values(), key=lambda one: one.since
    )


def decide(
    folder: RunFolder,
    name: str | None,
    *,
    approved: bool,
    by: str,
    reason: str = "",
    at: datetime | None = None,
) -> Question:
    """Answer the newest question about `name` (None: the one that waits). The same answer again is kept once.

    Raises UserError where nothing of that name was asked.
    """
    asked = [one for one in questions(folder) if name in (None, one.before)]
    open_ = [one for one in asked if not one.decisions]
    if not asked or (name is None and not open_):
        waiting = ", ".join(one.before for one in pending(folder))
        what = f"nobody was asked about {name}" if name else "nothing waits for approval"
        raise UserError(
            Fault(str(folder.root), what, waiting or None, "see `kascade watch` for what it waits for")
        )
    question = (open_ or asked)[-1]
    if question.decisions and question.decisions[-1].approved == approved:
        return question
    when = (at or datetime.now(UTC)).isoformat(timespec="seconds")
    decision = Decision(approved=approved, by=by, at=when, reason=reason)
    changed = question.model_copy(update={"decisions": (*question.decisions, decision)})
    _write(folder, changed)
    _update(folder, question.before, decision)
    return changed


def rejection(before: str, said: Decision) -> Waiting:
    """What a run that was told no waits for: a person may still change their mind."""
    why = f": {said.reason}" if said.reason else ""
    sentence = f"{before} was rejected by {said.by} at {said.at}{why}."
    return Waiting(word="rejected", before=before, sentence=sentence, since=said.at)


def _update(folder: RunFolder, before: str, said: Decision) -> None:
    """Let the folder say at once what an answer makes of a run that waits for it."""
    waiting = read_waiting(folder)
    if waiting is None or waiting.before != before:
        return
    if said.approved or before == PROMOTION:  # without a promotion the run is complete all the same
        go_on(folder)
    else:
        wait(folder, rejection(before, said))


def let_time_decide(folder: RunFolder, recipe: Recipe, now: datetime | None = None) -> list[Question]:
    """Answer what has waited too long, as the recipe says. Returns what was answered now.

    Whoever looks at a run calls this: nothing runs while a run waits.
    """
    now = now or datetime.now(UTC)
    return [one for one in pending(folder) if _by_timeout(folder, recipe, one, now)]


def _by_timeout(folder: RunFolder, recipe: Recipe, question: Question, now: datetime) -> Decision | None:
    patience = recipe.approval.patience
    if patience is None or now < datetime.fromisoformat(question.since) + patience:
        return None
    approved = recipe.approval.on_timeout == "approve"
    reason = f"nobody answered within {recipe.approval.timeout}"
    changed = decide(folder, question.before, approved=approved, by=TIMEOUT, reason=reason, at=now)
    return changed.decisions[-1]


def _wait_for_word(folder: RunFolder, recipe: Recipe, question: Question) -> None:
    patience = recipe.approval.patience
    until = datetime.fromisoformat(question.since) + patience if patience else None
    wait(
        folder,
        Waiting(
            word="waiting for approval",
            before=question.before,
            sentence=f"{question.before} waits for a person's approval since {question.since}.",
            since=question.since,
            until=until.isoformat(timespec="seconds") if until else None,
        ),
    )


def _question(folder: RunFolder, before: str, subject: str) -> Question | None:
    return folder.load(_path(folder, before, subject), _parse)


def _write(folder: RunFolder, question: Question) -> None:
    path = _path(folder, question.before, question.subject)
    write_record(path, question.model_dump_json(indent=1))


def _path(folder: RunFolder, before: str, subject: str) -> Path:
    return folder.approvals / f"{before}-{CheckpointRef.parse(subject).digest[:16]}.json"


def _parse(path: Path) -> Question:
    return Question.model_validate_json(path.read_text(encoding="utf-8"))
