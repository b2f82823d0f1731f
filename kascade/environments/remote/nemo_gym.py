"""NeMo-Gym resource servers: `/seed_session`, tools over HTTP, `/verify`; games by `/reset` and `/step`.

Rows are NeMo-Gym's own. A row goes to the server as it is; what the policy says goes as an OpenAI response.
Protocol: nemo_gym 0.4 (`base_resources_server.py`, `simple_agent`, `gymnasium_agent`), read and run against.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from kascade.data.json_text import SURROGATE
from kascade.environments.base import Turn
from kascade.environments.remote.environment import RemoteEnvironment, RemoteSession, number
from kascade.environments.remote.server import Server
from kascade.environments.remote.settings import NemoGymOptions
from kascade.environments.remote.wire import RemoteError
from kascade.environments.rows.nemo_gym import row_messages, row_tools
from kascade.environments.rows.tool_calls import ToolCall, function_of, parse_tool_calls
from kascade.task import Grade, Message, Task, final_answer, visible_answer

CALL = "<tool_call>"
ENDS = ("terminated", "truncated")  # fields of a step that say whether a game is over
ROW = "row"  # field of a task: the row as the server takes it


class NemoGym(RemoteEnvironment):
    """Any NeMo-Gym resource server."""

    name = "nemo_gym"
    options_type = NemoGymOptions

    def from_row(self, row: Mapping[str, Any]) -> Task:
        """Raises ValueError naming the field at fault."""
        fields = {ROW: dict(row), **self.graded_with}
        return Task(self.name, self.domain, row_messages(row), fields, tools=row_tools(row))

    def start(self, task: Task) -> RemoteSession | None:
        """A conversation where the server has tools or a game; None where one answer is all."""
        style = self.style(task)
        return None if style == "single" else self.session(task)

    def session(self, task: Task) -> RemoteSession:
        server = self.server(task)
        return _Game(task, server) if self.style(task) == "game" else _Verified(task, server)

    def style(self, task: Task) -> str:
        """single, tools or game: as the options say, else as the server's description does.

        A server that cannot be asked now is taken at the row's word. Where that has tools, the conversation
        asks the server again before it takes an answer for the last one.
        """
        options = NemoGymOptions.of_task(task.fields)
        if options.style != "auto":
            return options.style
        try:
            paths = self.server(task).paths()
        except RemoteError:
            return "tools" if task.tools else "single"
        if "/step" in paths:
            return "game"
        names = {f"/{function_of(tool).get('name')}" for tool in task.tools}
        return "tools" if names & paths or (names and any("{" in path for path in paths)) else "single"


class _Verified(RemoteSession):
    """Tools over HTTP until an answer calls none, then `/verify` of the whole conversation."""

    def __init__(self, task: Task, server: Server) -> None:
        super().__init__(task, server)
        self.line = server.line()
        self.output: list[dict[str, Any]] = []

    def begin(self) -> Turn | None:
        self.line.ask("/seed_session", _row(self.task), repeatable=True)
        return None

    def step(self, answer: str) -> Turn | Grade:
        said = response_items(self.task, answer)
        self.output += said
        calls = [item for item in said if item["type"] == "function_call"]
        if not calls or not self._has_tools:
            return self.finish()
        results = [self._result(call) for call in calls]
        self.output += results
        return Turn(tuple(Message(role="tool", content=result["output"]) for result in results))

    def finish(self) -> Grade:
        if self.line.may_be_forgotten:  # and no tool has acted: such a line has failed already
            self.begin()
        body = {**_row(self.task), "response": response(self.task, self.output)}
        return self.graded(self.line.ask("/verify", body, repeatable=True))

    def close(self) -> None:
        self.line.close()

    @property
    def _has_tools(self) -> bool:
        paths = self.server.paths()
        return not paths or any(f"/{function_of(tool).get('name')}" in paths for tool in self.task.tools)

    def _result(self, call: Mapping[str, Any]) -> dict[str, Any]:
        known = {function_of(tool).get("name") for tool in self.task.tools}
        if call["name"] in known:
            said = self.line.call(f"/{call['name']}", json.loads(call["arguments"]))
        else:
            said = json.dumps({"error": f"there is no tool {call['name']!r}"})
        return {"type": "function_call_output", "call_id": call["call_id"], "output": said}


class _Game(RemoteSession):
    """A game by `/reset` and `/step`. Its reward is the sum over all steps."""

    def __init__(self, task: Task, server: Server) -> None:
        super().__init__(task, server)
        self.line = server.line()
        self.reward = 0.0

    def begin(self) -> Turn | None:
        reply = self.line.ask("/reset", _row(self.task), repeatable=True)
        observation = _observation(reply, "/reset")
        return Turn((Message(role="user", content=observation),)) if observation else None

    def step(self, answer: str) -> Turn | Grade:
        body = {**_row(self.task), "response": response(self.task, response_items(self.task, answer))}
        reply = self.line.ask("/step", body, repeatable=False)
        self.reward += number(reply, "/step")
        observation = _observation(reply, "/step")
        if any(reply.get(end) for end in ENDS):
            return self.finish()
        info = reply.get("info")
        outputs = info.get("tool_outputs", []) if isinstance(info, dict) else []
        messages = [Message(role="tool", content=str(one["output"])) for one in outputs]
        if observation:
            messages.append(Message(role="user", content=observation))
        return Turn(tuple(messages)) if messages else self.finish()

    def finish(self) -> Grade:
        return self.graded({"reward": self.reward, "steps": self.num_steps})

    def close(self) -> None:
        self.line.close()


def _observation(reply: Any, path: str) -> str | None:
    """What the policy sees next. Raises RemoteError for a reply of another shape."""
    found = reply.get("observation") if isinstance(reply, dict) else reply
    if not isinstance(reply, dict) or not isinstance(found, str | None):
        raise RemoteError(f"{path}: the observation is no text")
    if any(not isinstance(reply.get(end, False), bool) for end in ENDS):
        raise RemoteError(f"{path}: {' and '.join(ENDS)} are true or false")
    return found


def _row(task: Task) -> dict[str, Any]:
    """The row as the server takes it: without an answer that it may carry."""
    return {key: value for key, value in task.fields[ROW].items() if key != "response"}


def response_items(task: Task, answer: str) -> list[dict[str, Any]]:
    """An answer as items of an OpenAI response: reasoning, text, calls of functions."""
    visible = visible_answer(task, answer)
    thought = answer.removesuffix(final_answer(answer)) if visible else answer
    items: list[dict[str, Any]] = []
    if thought := thought.removesuffix("</think>").strip():
        items.append({"type": "reasoning", "id": _id("rs"), "summary": [_summary(thought)]})
    calls = parse_tool_calls(visible, task.tools)
    said = visible.partition(CALL)[0].strip() if calls else visible
    if said or not calls:
        text = {"type": "output_text", "text": said, "annotations": []}
        items.append(
            {
                "type": "message",
                "id": _id("msg"),
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        )
    return items + [_call(call) for call in calls]


def _summary(text: str) -> dict[str, str]:
    return {"type": "summary_text", "text": text}


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    if SURROGATE.search(arguments):  # no server would read it: then as JSON escapes it
        arguments = json.dumps(dict(call.arguments))
    named = {"type": "function_call", "id": _id("fc"), "call_id": _id("call"), "status": "completed"}
    return {**named, "name": call.name, "arguments": arguments}


def response(task: Task, output: list[dict[str, Any]]) -> dict[str, Any]:
    """An OpenAI response with these items."""
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": time.time(),
        "model": "policy",
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [{"strict": None, "type": "function", **function_of(tool)} for tool in task.tools],
    }


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:24]}"
