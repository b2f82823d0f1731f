"""A model behind an API that replies in ways nobody expects: its grade is missing, and no other one."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kascade.environments import get_environment
from kascade.errors import UserError
from kascade.exams.anywhere import evaluate_anywhere
from kascade.exams.endpoint import Endpoint, Spoken, answer_text, speak
from kascade.recipe.sampling import ConversationLimits, Sampling
from kascade.recipe.schema import Recipe
from kascade.task import Mode, in_mode

MODELS = {"data": [{"id": "m"}]}
ASKED: list[dict[str, Any]] = []  # requests to the API that was opened last
RIGHT = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}


@contextmanager
def api(*replies: Any, models: Any = MODELS) -> Iterator[str]:
    """An API that says these replies to its first requests, then an answer. Texts are sent as they are."""
    waiting, lock = list(replies), threading.Lock()
    asked = ASKED
    asked.clear()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(models)

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            with lock:
                said = waiting.pop(0) if waiting else RIGHT
            self._say(said)

        def _say(self, said: Any) -> None:
            content = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def spoken(url: str, environment: str, count: int) -> list[Spoken]:
    task = get_environment(environment).pose(random.Random(1), 0.5)
    endpoint = Endpoint.at(url, conversations=1)
    return speak(endpoint, [task], Sampling(max_new_tokens=8), samples=count, seed=0)


def said(**message: Any) -> dict[str, Any]:
    return {"choices": [{"message": message}]}


@pytest.mark.parametrize("environment", ["mcqa", "workplace_dialogues"])
@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ([1], "no message"),
        ({"choices": []}, "no message"),
        ({"choices": 7}, "no message"),
        ({"choices": [7]}, "no message"),
        ({"choices": [{"message": None}]}, "no message"),
        (said(content=7), "`content` is no text"),
        (said(content=[{"type": "text", "text": "x"}]), "`content` is no text"),
        (said(content="x", reasoning_content=7), "`reasoning_content` is no text"),
        (said(tool_calls=7), "`tool_calls` are no list"),
        (said(tool_calls=[7]), "`tool_calls` are no list"),
        (said(tool_calls=[{"function": 7}]), "`tool_calls` are no list"),
    ],
)
def test_a_reply_without_a_message_is_a_missing_grade(environment: str, reply: Any, why: str) -> None:
    """One such reply ended the whole evaluation, some of them in a traceback."""
    with api(reply) as url:
        first, *others = spoken(url, environment, 3)
    assert first.grade is not None and why in str(first.grade.error)
    assert [one.grade is not None and one.grade.error for one in others] == [None, None]


@pytest.mark.parametrize(
    "message",
    [
        {"content": None},
        {"content": ""},
        {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "[" * 100_000}}]},
        {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}] * 2},
        {"tool_calls": [{"function": {"arguments": '{"a": "\\ud800"}'}}]},
    ],
)
def test_an_answer_that_is_none_earns_its_zero(message: dict[str, Any]) -> None:
    with api(said(**message)) as url:
        (one,) = spoken(url, "workplace_dialogues", 1)
    assert one.grade is not None and one.grade.error is None and one.grade.reward == 0.0


def test_half_a_character_becomes_a_mark() -> None:
    task = get_environment("mcqa").pose(random.Random(1), 0.5)
    call = {"function": {"name": "f\udfff", "arguments": '{"a": "\\ud800"}'}}
    text = answer_text(task, {"content": "\ud800", "reasoning": "\udc00", "tool_calls": [call]})
    assert text.encode().decode().count("\ufffd") == 4


@pytest.mark.parametrize("models", [[1], {"data": 7}, {"data": [None, {"id": 7}]}, "<html>", {}])
def test_an_address_that_serves_no_models_is_named(models: Any) -> None:
    with api(models=models) as url, pytest.raises(UserError, match="serves 0 models") as caught:
        Endpoint.at(url)
    assert "ends with /v1" in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://u:pw1@h/v1", "http://h/v1?api_key=pw1", "http://h:x/v1", "http:///v1"]
)
def test_an_address_with_a_secret_is_refused_without_showing_it(address: str) -> None:
    """The words of the model that checks options repeated the beginning of the address."""
    with pytest.raises(UserError) as caught:
        Endpoint.at(address)
    assert "pw1" not in str(caught.value) and "bare address" in str(caught.value)


CALL = {"id": "1", "function": {"name": "look", "arguments": "{}"}}
TURN = {
    "choices": [{"message": {"content": "", "tool_calls": [CALL]}, "finish_reason": "stop"}],
    "usage": {"total_tokens": 50},
}


def conversed(**limits: Any) -> list[dict[str, Any]]:
    """The requests of one conversation that nobody ends."""
    task = get_environment("workplace_dialogues").pose(random.Random(1), 0.5)
    with api(*[TURN] * 9) as url:
        sampling = Sampling(max_new_tokens=8, conversation=ConversationLimits(**limits))
        speak(Endpoint.at(url, conversations=1), [task], sampling, samples=1, seed=0)
    return list(ASKED)


def test_a_conversation_behind_an_api_keeps_to_its_limits() -> None:
    """Only `max_turns` was obeyed there."""
    free = len(conversed())
    assert free > 3
    assert len(conversed(max_turns=2)) == 2
    assert len(conversed(max_tokens=50)) == 1
    assert [one["max_tokens"] for one in conversed(max_tokens=55)] == [8, 5] + [5] * (free - 2)
    assert len(conversed(max_seconds=1e-9)) == 1


@pytest.mark.parametrize(
    ("mode", "says"), [("think", True), ("no_think", False), ("unasked", None), (None, None)]
)
def test_an_api_is_asked_for_the_mode_of_the_source(mode: Mode | None, says: bool | None) -> None:
    """A source that asks for no thinking said nothing, and servers think by default."""
    task = in_mode(get_environment("code_gen").pose(random.Random(1), 0.5), mode)
    with api() as url:
        speak(Endpoint.at(url, conversations=1), [task], Sampling(max_new_tokens=8), samples=1, seed=0)
    assert ASKED[0].get("chat_template_kwargs", {}).get("enable_thinking") == says


def test_a_thinking_budget_is_refused_where_nobody_would_keep_it() -> None:
    """An API's answers were compared with answers of checkpoints that had one."""
    sampling = {"max_new_tokens": 8, "thinking_budget": 4}
    exam = {"name": "quiz", "source": {"environment": "mcqa"}, "tasks": 2, "sampling": sampling}
    stage = {"kind": "sft", "name": "sft", "steps": 1, "data": [{"source": {"environment": "mcqa"}}]}
    model = {"source": "builtin://mini-nemotron-h"}
    fields = {"kascade": 1, "name": "own", "model": model, "stages": [stage], "benchmarks": [exam]}
    with api() as url, pytest.raises(UserError, match=r"benchmarks\.quiz\.sampling\.thinking_budget: an API"):
        evaluate_anywhere(url, Recipe.model_validate(fields))
    assert ASKED == []
