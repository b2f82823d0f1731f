"""What an environment says becomes tokens. Where it cannot, its own conversation ends, and no other one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gym_server import GymServer
from scripted_engine import ScriptedEngine, byte_chat
from test_remote_faults import ROW, environment

from kascade.data.conversation import UNREADABLE
from kascade.environments.base import WholePrompt
from kascade.errors import UserError
from kascade.recipe.schema import ConversationLimits
from kascade.rollout.conversations import Dialogue, Opening, converse
from kascade.rollout.types import SamplingParams

LIMITS = ConversationLimits(max_turns=9, max_tokens=2000, max_seconds=600)


def played(server: GymServer, sessions: int = 3, limits: ConversationLimits = LIMITS) -> list[Dialogue]:
    found = environment(server, style="game", conversations=1)
    chat, task = byte_chat(), found.from_row(ROW)
    engine = ScriptedEngine(chat, task, lambda _, number: "one")
    opening = Opening(task, tuple(found.session(task) for _ in range(sessions)), 0)
    (group,) = converse(engine, chat, [opening], SamplingParams(100, conversation=limits))
    return group


def observed(text: str) -> dict[str, Any]:
    return {"text": json.dumps({"observation": text, "reward": 0.0})}


def test_first_words_that_leave_no_room_end_their_own_conversation() -> None:
    """They stopped the whole stage."""
    with GymServer({"/reset": ["ok", observed("x" * 5000), "ok"]}) as server:
        grades = [one.grade for one in played(server)]
    assert [one.error is None for one in grades] == [True, False, True]
    assert "leaves no room" in str(grades[1].error) and [one.reward for one in grades] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("path", ["/reset", "/step"])
def test_half_a_character_is_read_as_a_mark(path: str) -> None:
    """No token has one: it stopped the whole stage."""
    with GymServer({path: [observed("a\ud800b")]}) as server:
        group = played(server)
    assert [one.grade.error for one in group] == [None] * 3
    said = [one.text + byte_chat().text(one.prompt_ids) for one in group]
    assert f"a{UNREADABLE}b" in said[0] and UNREADABLE not in said[1]


def test_a_task_that_leaves_no_room_is_the_rows_fault() -> None:
    limits = ConversationLimits(max_turns=9, max_tokens=5, max_seconds=600)
    with GymServer({"/reset": [{"reply": {}}]}) as server, pytest.raises(UserError, match="leaves no room"):
        played(server, 1, limits)


def test_tools_that_no_template_takes_end_their_own_conversation() -> None:
    with GymServer() as server:
        found = environment(server, style="game")
        chat, task = byte_chat(), found.from_row(ROW)
        sessions = tuple(found.session(task) for _ in range(2))
        bad = WholePrompt(task.messages, (7,))  # type: ignore[arg-type]
        sessions[0].begin = lambda: bad  # type: ignore[method-assign]
        engine = ScriptedEngine(chat, task, lambda _, number: "one")
        params = SamplingParams(100, conversation=LIMITS)
        (group,) = converse(engine, chat, [Opening(task, sessions, 0)], params)
    assert "refuses a conversation" in str(group[0].grade.error) and group[1].grade.error is None
