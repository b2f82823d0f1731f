"""Dialogues: a scripted or played user, tools over a state, and what must be done and told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_server import judge_server
from scripted_engine import ScriptedEngine, byte_chat

from kascade.environments import Task, get_environment
from kascade.environments.base import Turn, generate_tasks
from kascade.environments.judging.endpoint import EndpointJudge
from kascade.environments.judging.judge import use_judge
from kascade.environments.rows.tool_calls import render_tool_call
from kascade.recipe.judge_model import JudgeModel
from kascade.recipe.schema import ConversationLimits
from kascade.rollout.conversations import Opening, converse, open_sessions
from kascade.rollout.types import SamplingParams
from kascade.task import Grade

DIALOGUES = get_environment("tool_dialogues")


@pytest.fixture(autouse=True)
def nobody_afterwards() -> Iterator[None]:
    yield
    use_judge(None)


def play(task: Task, *answers: str) -> list[Turn | Grade]:
    session = DIALOGUES.start(task)
    assert session is not None
    return [session.respond(answer) for answer in answers]


def graded(task: Task, *answers: str) -> Grade:
    last = play(task, *answers)[-1]
    assert isinstance(last, Grade)
    return last


def calls(turn: list[dict[str, Any]]) -> str:
    return "".join(render_tool_call(call["name"], call["arguments"]) for call in turn)


def gold(task: Task) -> list[str]:
    """Answers of a policy that knows what to do: in each turn the calls, then words."""
    told = " ".join(task.fields["communicate"])
    said = []
    for turn in task.fields["ground_truth"]:
        said += [calls(turn)] if turn else []
        said.append(f"Done. {told}")
    return said


GENERATED = generate_tasks(DIALOGUES, split="test", count=12, seed=0)


@pytest.mark.parametrize("task", GENERATED[:6])
def test_generated_dialogues_are_won_by_doing_and_telling_everything_and_lost_otherwise(task: Task) -> None:
    answers = gold(task)
    assert graded(task, *answers).reward == 1
    assert DIALOGUES.grade(task, [str(task.reference), "", f"<think>{task.reference}"])[0].reward == 1
    assert [grade.reward for grade in DIALOGUES.grade(task, ["", f"<think>{task.reference}"])] == [0, 0]
    silent = [answer if answer.startswith("<tool_call>") else "Done." for answer in answers]
    grade = graded(task, *silent)
    assert (grade.reward, grade.components["state"], grade.components["communicated"]) == (0, 1, 0)
    idle = [answer for answer in answers if not answer.startswith("<tool_call>")]
    sessions = play(task, *idle[:1])
    while isinstance(sessions[-1], Turn):
        sessions = play(task, *idle[: len(sessions) + 1])
    assert isinstance(sessions[-1], Grade) and sessions[-1].reward == 0


def test_the_user_speaks_line_by_line_and_a_limit_loses() -> None:
    task = GENERATED[0]
    session = DIALOGUES.start(task)
    assert session is not None
    reaction = session.respond(gold(task)[0])
    assert isinstance(reaction, Turn)
    heard = [message for message in reaction.messages if message["role"] == "user"]
    tools = [message for message in reaction.messages if message["role"] == "tool"]
    assert heard or tools
    assert session.stop().reward == 0
    done = DIALOGUES.start(task)
    assert done is not None
    for answer in gold(task)[:-1]:
        done.respond(answer)
    assert done.stop().reward == 0  # everything done, and the last turn never given


def test_a_whole_dialogue_runs_over_an_engine() -> None:
    task = GENERATED[1]
    script = gold(task)
    chat = byte_chat()

    def say(read: str, _: int) -> str:
        return script[read.count("<|im_start|>assistant") - 1]

    (sessions,) = open_sessions([task], 1)
    assert sessions is not None
    params = SamplingParams(4000, conversation=ConversationLimits(max_turns=20, max_tokens=100_000))
    openings = [Opening(task, sessions, seed=1)]
    ((one,),) = converse(ScriptedEngine(chat, task, say), chat, openings, params)
    assert (one.grade.error, one.grade.reward, one.num_turns) == (None, 1.0, len(script))
    assert one.sample.drawn is not None and not all(one.sample.drawn)


def own_row(**changes: Any) -> dict[str, Any]:
    made = {
        "event_name": "demo",
        "participant_email": "a.b@c.de",
        "event_start": "2023-12-01 10:00:00",
        "duration": "30",
    }
    return {
        "responses_create_params": {"input": [{"role": "user", "content": "I need a meeting."}]},
        "user": {
            "instructions": "You want a meeting 'demo' with a.b@c.de on 2023-12-01 at 10:00, half an hour."
        },
        "ground_truth": [{"name": "calendar_create_event", "arguments": json.dumps(made)}],
        "communicate": ["10:00"],
        **changes,
    }


def ask(url: str) -> None:
    use_judge(EndpointJudge(JudgeModel(url=url, model="user-1", attempts=1)))


def test_a_model_plays_the_user_and_sees_no_tools() -> None:
    def user(body: dict[str, Any]) -> str:
        heard = body["messages"][-1]["content"]
        return (
            "On 2023-12-01 at 10, with a.b@c.de, 'demo', 30 minutes."
            if "When" in heard
            else "Thanks ###STOP###"
        )

    task = DIALOGUES.from_row(own_row())
    do = calls([{**call} for call in task.fields["ground_truth"][0]])
    with judge_server(user) as server:
        ask(server.url)
        reactions = play(task, "When shall it be?", do, "<think>10:00</think>It is at 10:00.")
        assert isinstance(reactions[0], Turn) and "a.b@c.de" in reactions[0].messages[0]["content"]
        assert isinstance(reactions[2], Grade) and reactions[2].reward == 1
        assert graded(task, do, "<think>10:00</think>It is done.").components["communicated"] == 0
        assert graded(task, "It is at 10:00.").reward == 0
        roles = [[turn["role"] for turn in body["messages"]] for body in server.requests]
        assert roles[1] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert not any("tool_call" in json.dumps(body) for body in server.requests)


def test_a_user_who_cannot_be_reached_is_an_error_and_not_a_zero() -> None:
    ask("http://127.0.0.1:9/v1")
    assert "cannot be reached" in str(graded(DIALOGUES.from_row(own_row()), "When?").error)
    use_judge(None)
    assert "no judge is named" in str(graded(DIALOGUES.from_row(own_row()), "When?").error)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"user": None}, "user"),
        ({"user": {"script": "hello"}}, "user.script"),
        ({"user": {"script": [], "instructions": ""}}, "user"),
        ({"ground_truth": "x"}, "ground_truth"),
        ({"ground_truth": [["open("]]}, "ground_truth"),
        ({"communicate": "x"}, "communicate"),
        ({"involved_classes": ["Nothing"]}, "involved_classes"),
        ({"involved_classes": ["MathAPI"]}, "bfcl-eval|involved_classes"),
    ],
)
def test_a_faulty_row_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        DIALOGUES.from_row(own_row(**changes))


@settings(max_examples=40)
@given(
    st.text(max_size=60),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
)
def test_no_answer_crashes_a_dialogue(text: str, arguments: dict[str, Any]) -> None:
    task = DIALOGUES.from_row(own_row(user={"script": []}))
    for answer in (text, f"<tool_call>{text}", render_tool_call("calendar_delete_event", arguments)):
        reaction = play(task, answer)[-1]
        assert isinstance(reaction, Turn) or reaction.error is None
        (grade,) = DIALOGUES.grade(task, [answer])
        assert grade.error is None
