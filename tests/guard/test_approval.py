"""What a person is asked, what counts as an answer, and when silence is one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kascade.errors import UserError
from kascade.guard.approval import ask, decide, let_time_decide, pending, questions, read_waiting
from kascade.recipe.load import load_recipe
from kascade.recipe.schema import Recipe
from kascade.storage.run_folder import RunFolder

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
SUBJECT, OTHER = (f"file:///c@sha256:{digit * 64}" for digit in "ab")


def asking(**fields: Any) -> Recipe:
    return load_recipe("quickstart", {"approval": {"before": ["if_rl", "promotion"], **fields}})


def test_nobody_is_asked_where_the_recipe_does_not_say_so(tmp_path: Path) -> None:
    said = ask(RunFolder(tmp_path), asking(), "sft", SUBJECT)
    assert said is not None and said.approved and not questions(RunFolder(tmp_path))


def test_an_answer_holds_for_one_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert ask(folder, asking(), "if_rl", SUBJECT, NOW) is None
    waiting = read_waiting(folder)
    assert waiting is not None and (waiting.word, waiting.before) == ("waiting for approval", "if_rl")
    decide(folder, None, approved=True, by="anna")
    assert read_waiting(folder) is None
    said = ask(folder, asking(), "if_rl", SUBJECT)
    assert said is not None and (said.approved, said.by) == (True, "anna")
    assert ask(folder, asking(), "if_rl", OTHER) is None


@pytest.mark.parametrize("answer", ["approve", "reject"])
def test_silence_counts_as_the_recipe_says_when_somebody_looks(tmp_path: Path, answer: str) -> None:
    folder, recipe = RunFolder(tmp_path), asking(timeout="48h", on_timeout=answer)
    assert ask(folder, recipe, "if_rl", SUBJECT, NOW) is None
    waiting = read_waiting(folder)
    assert waiting is not None and waiting.until == "2026-12-01T12:00:00+00:00"
    assert let_time_decide(folder, recipe, NOW + timedelta(hours=47)) == []
    assert len(let_time_decide(folder, recipe, NOW + timedelta(hours=48))) == 1
    said = ask(folder, recipe, "if_rl", SUBJECT, NOW + timedelta(hours=50))
    assert said is not None and (said.approved, said.by) == (answer == "approve", "timeout")
    assert said.reason == "nobody answered within 48h"


def test_a_later_answer_counts_and_all_are_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    ask(folder, asking(), "if_rl", SUBJECT)
    decide(folder, "if_rl", approved=False, by="anna", reason="too slow")
    waiting = read_waiting(folder)
    assert waiting is not None and waiting.word == "rejected" and "too slow" in waiting.sentence
    decide(folder, "if_rl", approved=False, by="ben")  # the same answer again
    decide(folder, "if_rl", approved=True, by="ben")
    assert [one.by for one in questions(folder)[0].decisions] == ["anna", "ben"]
    assert read_waiting(folder) is None and not pending(folder)


def test_a_run_that_is_not_promoted_is_complete_all_the_same(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    ask(folder, asking(), "promotion", SUBJECT)
    decide(folder, "promotion", approved=False, by="anna")
    assert read_waiting(folder) is None


def test_what_was_not_asked_cannot_be_answered(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing waits for approval"):
        decide(RunFolder(tmp_path), None, approved=True, by="anna")
    ask(RunFolder(tmp_path), asking(), "if_rl", SUBJECT)
    with pytest.raises(UserError, match="nobody was asked about promotion"):
        decide(RunFolder(tmp_path), "promotion", approved=True, by="anna")
