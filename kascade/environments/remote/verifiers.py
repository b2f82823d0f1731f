"""Environment servers of verifiers. They play whole episodes and ask a model by HTTP.

The model that they ask is the rollout's conversation: each request waits until the policy has answered. So
tokens are only appended, what tools and users say is masked, and log-probabilities are the sampler's own.
Protocol: verifiers 0.4 (`v1/serve`), read and run against.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kascade.environments.base import Turn, WholePrompt
from kascade.environments.remote.environment import RemoteEnvironment, RemoteSession
from kascade.environments.remote.episodes import EpisodeEnd, EpisodeServer, episodes_at
from kascade.environments.remote.gateway import MODEL, WaitingRequest, gateway_of
from kascade.environments.remote.server import Server, server_of
from kascade.environments.remote.settings import VerifiersOptions
from kascade.environments.remote.wire import RemoteError
from kascade.environments.rows.tool_calls import OPEN, parse_tool_calls
from kascade.task import THINK_END, Grade, Message, Task, final_answer, visible_answer

TASK = "task_data"  # field of a task: the row as the server takes it
HEALTH_S = 5.0
WATCHED_S = 5.0  # of silence, after which the server is asked whether it is there
MOST_EMPTY = 3  # requests answered with nothing after a limit, before the episode is given up


class Verifiers(RemoteEnvironment):
    """Any environment of verifiers, behind its environment server."""

    name = "verifiers"
    options_type = VerifiersOptions

    def needs(self) -> list[str]:
        """Why the server cannot be used now; empty when it answers."""
        try:
            server = server_of(VerifiersOptions.of(self.options))
            episodes = _episodes(server)
        except (RemoteError, ValueError) as error:
            return [str(error)]
        silent = f"the server {server.name} does not answer within {HEALTH_S:g} s"
        return [] if episodes.is_healthy(HEALTH_S) else [silent]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        """A dumped `TaskData`, also under `task`. Raises ValueError naming the field at fault."""
        data = row.get("task") if isinstance(row.get("task"), Mapping) else row
        assert isinstance(data, Mapping)
        fields = {TASK: dict(data), **self.graded_with}
        return Task(self.name, self.domain, tuple(_first_messages(data)), fields)

    def start(self, task: Task) -> RemoteSession:
        return self.session(task)

    def session(self, task: Task) -> RemoteSession:
        return _Episode(task, self.server(task), VerifiersOptions.of_task(task.fields))


def _episodes(server: Server) -> EpisodeServer:
    """The connection to a server. Starts it where a command does so. Raises RemoteError."""
    return episodes_at(server.base.replace("http://", "tcp://", 1))


def _first_messages(data: Mapping[str, Any]) -> Iterator[Message]:
    """What a task asks, as far as its data says; the episode's first request has the exact words."""
    if isinstance(data.get("system_prompt"), str):
        yield Message(role="system", content=data["system_prompt"])
    prompt = data.get("prompt")
    if prompt is None or isinstance(prompt, str):
        yield Message(role="user", content=prompt or str(data.get("id") or data.get("idx") or ""))
    elif isinstance(prompt, list) and all(isinstance(one, Mapping) for one in prompt):
        yield from (_message(one) for one in prompt)
    else:
        raise ValueError("prompt: a text or a list of messages is needed")


def _message(said: Mapping[str, Any]) -> Message:
    """A turn of a request. Raises ValueError for what cannot be read as text."""
    role, content = said.get("role"), said.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise ValueError("content: only text is understood")
        content = "".join(map(str, parts))
    if role not in ("system", "user", "assistant", "tool", "developer"):
        raise ValueError(f"role: {role!r} is no role")
    message = Message(role="system" if role == "developer" else role, content=str(content or ""))
    if said.get("tool_calls"):
        message["tool_calls"] = [_call_of(call) for call in said["tool_calls"]]
    return message


def _call_of(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    if isinstance(function.get("arguments"), str):
        function["arguments"] = json.loads(function["arguments"] or "{}")
    return {"type": "function", "function": function}


class _Episode(RemoteSession):
    """One episode. The server asks, the policy answers, and the end brings the rewards."""

    def __init__(self, task: Task, server: Server, options: VerifiersOptions) -> None:
        super().__init__(task, server)
        self.options = options
        self.gateway = gateway_of(options.gateway_host)
        self.box = self.gateway.open()
        self.name: str | None = None
        self.episodes: EpisodeServer | None = None
        self.asked: WaitingRequest | None = None
        self.messages: list[Mapping[str, Any]] = []
        self.tools: tuple[Mapping[str, Any], ...] = ()

    def begin(self) -> Turn | None:
        self.episodes = _episodes(self.server)
        client = {"type": "eval", "base_url": self.box.url, "api_key_var": "KASCADE_NO_KEY"}
        request = {"task_data": self.task.fields[TASK], "client": client, "model": MODEL, "sampling": {}}
        self.name = self.episodes.run(request, self.box.events)
        event = self._next()
        if isinstance(event, EpisodeEnd):
            raise RemoteError(f"the episode ended before it asked its model: {_why(event)}")
        self.messages = list(event.body.get("messages") or [])
        self.tools = tuple(event.body.get("tools") or ())
        return WholePrompt(_read(self.messages), self.tools)

    def step(self, answer: str) -> Turn | Grade:
        assert self.asked is not None
        message, reason = chat_message(self.task, answer, self.tools)
        self.asked.reply(message, reason)
        event = self._next()
        if isinstance(event, EpisodeEnd):
            return self._graded(event)
        before, self.messages = self.messages, list(event.body.get("messages") or [])
        return Turn(_read(_new_messages(before, self.messages)))

    def finish(self) -> Grade:
        """After a limit the model says nothing more, so that the episode ends and is scored as it stands."""
        for _ in range(MOST_EMPTY):
            if self.asked is None:
                raise RemoteError("the episode has not begun")
            self.asked.reply({"role": "assistant", "content": ""}, "length")
            event = self._next()
            if isinstance(event, EpisodeEnd):
                return self._graded(event)
        raise RemoteError("the episode goes on though its model says nothing more")

    def close(self) -> None:
        if self.episodes is not None and self.name is not None:
            self.episodes.cancel(self.name)  # nothing happens where it has ended
            self.name = None
        if self.asked is not None:
            self.asked.refuse()
        self.gateway.close(self.box)

    def _next(self) -> WaitingRequest | EpisodeEnd:
        """The next request of the episode's model, or its end. Raises RemoteError.

        A message from a server that died never comes: while nothing does, the server is asked whether it is
        there.
        """
        deadline = time.monotonic() + self.options.episode_timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                event: WaitingRequest | EpisodeEnd = self.box.events.get(timeout=min(left, WATCHED_S))
            except queue.Empty:
                if time.monotonic() < deadline:
                    self._check_server()
                continue
            self.asked = event if isinstance(event, WaitingRequest) else None
            return event
        raise RemoteError(f"nothing happened within {self.options.episode_timeout_s:g} s")

    def _check_server(self) -> None:
        assert self.episodes is not None
        there = not self.server.has_died and self.episodes.is_there(WATCHED_S, self.options.timeout_s)
        if not there and self.box.events.empty():
            raise RemoteError(f"the server {self.server.name} does not answer any more")

    def _graded(self, ended: EpisodeEnd) -> Grade:
        """The sum of all weighted rewards, with each by name. Raises RemoteError where it was not scored."""
        if ended.problem is not None or ended.head.get("errors") or len(ended.traces) != 1:
            raise RemoteError(_why(ended))
        (trace,) = ended.traces
        rewards: Mapping[str, Any] = trace.get("rewards") or {}
        if not trace.get("ok") or not rewards or any(one is None for one in rewards.values()):
            raise RemoteError(_why(ended))
        total = sum(float(one["score"]) * float(one["weight"]) for one in rewards.values())
        parts = {name: one["score"] for name, one in rewards.items()} | dict(trace.get("metrics") or {})
        return self.graded({**parts, "reward": total, "steps": self.num_steps})


def _read(messages: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Raises RemoteError for what cannot be read."""
    try:
        return tuple(map(_message, messages))
    except (ValueError, TypeError, AttributeError) as error:
        raise RemoteError(f"a message of the episode cannot be read: {error}") from None


def _new_messages(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """What was said since the policy's answer. Raises RemoteError where the past was rewritten."""
    kept = [(one.get("role"), one.get("content")) for one in now[: len(before)]]
    if kept != [(one.get("role"), one.get("content")) for one in before]:
        raise RemoteError("the episode rewrote the conversation, but tokens are only appended")
    answer, new = now[len(before) : len(before) + 1], now[len(before) + 1 :]
    if not new or answer[0].get("role") != "assistant":
        raise RemoteError("the episode asked its model again without saying anything new")
    return new


def _why(ended: EpisodeEnd) -> str:
    """What went wrong in an episode without a usable score."""
    if ended.problem is not None:
        return ended.problem
    found = [*(ended.head.get("errors") or []), *(e for trace in ended.traces for e in trace["errors"])]
    said = [
        f"{one.get('type')}: {str(one.get('message'))[:200]}" for one in found if isinstance(one, Mapping)
    ]
    if not said and len(ended.traces) != 1:
        return f"{len(ended.traces)} agents took part, and one is understood"
    return "; ".join(said) or "it was not scored"


def chat_message(task: Task, answer: str, tools: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
    """An answer as a message of a chat API, and why it ended."""
    visible = visible_answer(task, answer)
    thought = answer.removesuffix(final_answer(answer)) if visible else answer if task.thinking else ""
    calls = parse_tool_calls(visible, tools) if tools else []
    message: dict[str, Any] = {"role": "assistant"}
    message["content"] = visible.partition(OPEN)[0].strip() if calls else visible
    if thought := thought.removeprefix("<think>").strip().removesuffix(THINK_END).strip():
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for number, call in enumerate(calls)
        ]
    return message, "tool_calls" if calls else "stop"
