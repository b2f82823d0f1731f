"""OpenEnv servers: one WebSocket per conversation, `reset`, then `step` per answer.

A row holds the conversation so far and, under `reset`, what the server's `reset` takes (a seed, a level).
Protocol: openenv-core 0.3 (`env_server/http_server.py`, `/ws`), read and run against.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from typing import Any

import websocket

from kascade.data.json_text import parse
from kascade.environments.base import Turn
from kascade.environments.remote.environment import RemoteEnvironment, RemoteSession, number
from kascade.environments.remote.server import Server
from kascade.environments.remote.settings import OpenEnvOptions
from kascade.environments.remote.wire import SHOWN, RemoteError, certificate_problem, trusted_certificates
from kascade.environments.rows.nemo_gym import row_messages
from kascade.task import Grade, Message, Task, visible_answer

FULL = "CAPACITY_REACHED"  # openenv-core's code: every session is taken
UNFIT = "VALIDATION_ERROR"  # as above: the action is not of its class
OF_NAMES = ("missing", "extra_forbidden")  # errors about fields, which only a JSON action chooses
RESET = "reset"  # field of a row and of its task


class _Interrupted(RemoteError):
    """No answer came, or the server has no room now: a reset may be asked again."""


class _Unfit(Exception):
    """The action does not have the shape that the server wants: the policy reads what is wrong."""


class OpenEnv(RemoteEnvironment):
    """Any OpenEnv server."""

    name = "openenv"
    options_type = OpenEnvOptions

    def from_row(self, row: Mapping[str, Any]) -> Task:
        """Raises ValueError naming the field at fault."""
        reset = row.get(RESET) or {}
        if not isinstance(reset, Mapping):
            raise ValueError(f"{RESET}: an object of what the server's reset takes is needed")
        fields = {RESET: dict(reset), **self.graded_with}
        return Task(self.name, self.domain, row_messages(row), fields)

    def start(self, task: Task) -> RemoteSession:
        return self.session(task)

    def session(self, task: Task) -> RemoteSession:
        return _Episode(task, self.server(task), OpenEnvOptions.of_task(task.fields))


class _Episode(RemoteSession):
    """One episode. Its reward is the sum over all steps."""

    def __init__(self, task: Task, server: Server, options: OpenEnvOptions) -> None:
        super().__init__(task, server)
        self.options, self.reward, self.is_rewarded = options, 0.0, False
        self.socket: Any = None

    def begin(self) -> Turn | None:
        reply = self._started(time.monotonic() + self.options.timeout_s)
        if reply.get("done"):
            raise RemoteError(f"{RESET}: the episode is over before its first step")
        return self._turn(reply)

    def _started(self, deadline: float) -> dict[str, Any]:
        """A fresh episode's first observation. Asked again where the connection fails or the server is full:
        with the connection it forgets the episode, and sessions of the step before may still be closing."""
        pause = self.options.backoff_s
        while True:
            self.socket = self._connected(deadline)
            try:
                return self._ask(RESET, self.task.fields[RESET])
            except _Interrupted:
                self.close()
                if time.monotonic() + pause >= deadline:
                    raise
            time.sleep(pause)
            pause *= 2

    def step(self, answer: str) -> Turn | Grade:
        said = visible_answer(self.task, answer)
        try:
            action = self._action(said)
        except ValueError as error:  # the policy reads what is wrong with its action
            return Turn((Message(role="user", content=f"This is no action: {error}"),))
        try:
            reply = self._ask("step", action)
        except _Unfit as error:
            return Turn((Message(role="user", content=f"This is no action: {error}"),))
        if reply.get("reward") is not None:
            self.reward, self.is_rewarded = self.reward + number(reply, "step"), True
        if not isinstance(reply.get("done", False), bool | None):
            raise RemoteError("step: `done` is true or false")
        if not reply.get("done"):
            return self._turn(reply)
        if not self.is_rewarded:
            raise RemoteError("the episode is over, and no step brought a reward")
        return self.finish()

    def finish(self) -> Grade:
        return self.graded({"reward": self.reward, "steps": self.num_steps})

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close(timeout=0)  # a server that hangs would be waited for
            self.socket = None

    def _action(self, said: str) -> dict[str, Any]:
        if not self.options.json_actions:
            return {self.options.action_field: said}
        action = parse(said)
        if not isinstance(action, dict):
            raise ValueError("a JSON object is needed")
        return action

    def _turn(self, reply: Mapping[str, Any]) -> Turn:
        observation = reply.get("observation")
        field = self.options.observation_field
        if field is not None:
            if not isinstance(observation, dict) or field not in observation:
                raise RemoteError(f"the observation has no field {field!r}")
            observation = observation[field]
        text = observation if isinstance(observation, str) else json.dumps(observation, ensure_ascii=False)
        return Turn((Message(role="user", content=text),))

    def _connected(self, deadline: float) -> Any:
        """A connection, tried again while there is none. Raises RemoteError."""
        options = self.options
        address = self.server.base.replace("http", "ws", 1).rstrip("/") + "/ws"
        pause = options.backoff_s
        while True:
            try:
                return websocket.create_connection(
                    address, timeout=options.timeout_s, sslopt=_trusted(), http_no_proxy=["*"]
                )
            except ssl.SSLError as error:
                raise RemoteError(certificate_problem(error)) from None
            except (OSError, websocket.WebSocketException) as error:
                if time.monotonic() + pause >= deadline:
                    raise RemoteError(f"no connection: {type(error).__name__}") from None
            time.sleep(pause)
            pause *= 2

    def _ask(self, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """The observation that a message brings. Raises RemoteError."""
        deadline = time.monotonic() + self.options.timeout_s
        try:
            self.socket.settimeout(self.options.timeout_s)
            self.socket.send(json.dumps({"type": kind, "data": dict(data)}))
            reply = json.loads(self._received(deadline))
        except (OSError, websocket.WebSocketException) as error:
            raise _Interrupted(f"{kind}: the connection failed ({type(error).__name__})") from None
        except ValueError:
            raise RemoteError(f"{kind}: the answer is not JSON") from None
        said = reply.get("data") if isinstance(reply, dict) else None
        if isinstance(said, dict) and said.get("code") == FULL:
            raise _Interrupted(f"{kind}: {json.dumps(said)[:SHOWN]}")
        if kind == "step" and isinstance(said, dict) and said.get("code") == UNFIT:
            self._judge_unfit(said.get("errors"))
        if not isinstance(said, dict) or reply.get("type") != "observation":
            raise RemoteError(f"{kind}: {json.dumps(said)[:SHOWN]}")
        return said

    def _judge_unfit(self, errors: Any) -> None:
        """Raises _Unfit where the answer is at fault, and not `action_field`."""
        found = [one for one in errors or [] if isinstance(one, dict)]
        named = self.options.json_actions or not any(one.get("type") in OF_NAMES for one in found)
        if found and named:
            places = [".".join(map(str, one.get("loc") or [])) for one in found]
            said = [f"{at}: {one.get('msg')}" for at, one in zip(places, found, strict=True)]
            raise _Unfit("; ".join(said)[:SHOWN])

    def _received(self, deadline: float) -> bytes:
        """The next message. A server that only shows that it lives is not waited for beyond the deadline."""
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            kind, content = self.socket.recv_data(control_frame=True)
            if kind == websocket.ABNF.OPCODE_CLOSE:
                raise websocket.WebSocketConnectionClosedException("the server closed the connection")
            if kind in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
                return bytes(content)
        raise websocket.WebSocketTimeoutException("no answer in time")


def _trusted() -> dict[str, Any]:
    """Of a safe connection: the certificates that HTTP trusts, too."""
    file = trusted_certificates()
    return {"ca_certs": file} if isinstance(file, str) else {}
