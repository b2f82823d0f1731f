"""Benchmarks of a model behind an OpenAI-compatible API: no tokens, only what was said."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kascade.data.conversation import UNREADABLE
from kascade.data.json_text import SURROGATE
from kascade.environments import get_environment
from kascade.environments.base import Environment, Session
from kascade.environments.crashes import graded as graded_by
from kascade.environments.crashes import opened, responded, stopped
from kascade.environments.remote.server import Server
from kascade.environments.remote.settings import Remote
from kascade.environments.remote.wire import Line, Refused, RemoteError
from kascade.environments.rows.tool_calls import ToolCall, gold_calls
from kascade.errors import Fault, UserError
from kascade.recipe.sampling import Sampling
from kascade.seeds import derive_seed
from kascade.storage.address import WEB, address_problem
from kascade.task import THINK_END, THINK_START, Grade, Task

SCHEMES = ("http://", "https://")
TEXTS = ("content", "reasoning_content", "reasoning")  # of a message
SEED_BITS = 31  # of a seed that servers take


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model behind an API. server: the address with connections and retries."""

    server: Server
    model: str
    key: str = "none"

    @classmethod
    def at(
        cls, named: str, *, key_variable: str | None = None, conversations: int = 16, timeout_s: float = 600.0
    ) -> Endpoint:
        """`http://host:8000/v1`, with `#MODEL` where it serves several. Raises UserError where it does not
        answer, or the environment has no such key."""
        url, _, model = named.partition("#")
        key = _key(key_variable)
        if problem := address_problem(url, WEB):
            remedy = "write the bare address; --api-key-variable names the variable that holds a key"
            raise UserError(Fault("the API's address", problem, "http://HOST:PORT/v1", remedy))
        try:
            server = Server(Remote(url=url, conversations=conversations, timeout_s=timeout_s))
            served = server.get("/models", _headers(key))
        except (RemoteError, ValueError) as error:
            raise UserError(
                Fault(url, str(error), remedy="start the server, or correct the address")
            ) from error
        names = _names(served)
        if (model and names and model not in names) or (not model and len(names) != 1):
            what = f"serves no model {model!r}" if model else f"serves {len(names)} models"
            remedy = "see whether the address ends with /v1" if not names else f"name one: {url}#MODEL"
            raise UserError(Fault(url, what, ", ".join(names) or None, remedy))
        return cls(server, model or names[0], key)

    def line(self) -> Line:
        """A connection for one conversation."""
        return self.server.line(_headers(self.key))


class Misshapen(RemoteError):
    """A reply that holds no message: nobody knows what the model said, so its grade is missing."""


def _names(served: Any) -> list[str]:
    """The models that an API says it serves."""
    found = served.get("data") if isinstance(served, dict) else None
    named = [one.get("id") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [SURROGATE.sub(UNREADABLE, one) for one in named if isinstance(one, str)]


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _key(variable: str | None) -> str:
    if variable is None:
        return "none"
    if not os.environ.get(variable):
        what = f"the environment has no {variable}"
        raise UserError(Fault("--api-key-variable", what, remedy=f"set {variable}"))
    return os.environ[variable]


def is_endpoint(named: str) -> bool:
    """Whether a name is an API's address."""
    return named.startswith(SCHEMES)


@dataclass(slots=True)
class Spoken:
    """Answer `number` to a task, or a conversation on it. A single answer is graded once all are there.

    tokens: of the conversation up to its last answer.
    """

    task: Task
    number: int
    session: Session | None
    text: str = ""
    grade: Grade | None = None
    tokens: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)


def speak(
    endpoint: Endpoint, tasks: Sequence[Task], sampling: Sampling, *, samples: int, seed: int
) -> list[Spoken]:
    """Graded answers of a model to every task. Raises UserError where the endpoint fails for good."""
    spoken = [
        Spoken(task, number, get_environment(task.environment).start(task))
        for task in tasks
        for number in range(samples)
    ]
    talk = _Talk(endpoint, sampling, seed)
    try:
        endpoint.server.together(talk.have, spoken)
    except RemoteError as error:
        url = endpoint.server.settings.url
        raise UserError(Fault(str(url), f"failed: {error}", remedy="see the server's own log")) from error
    finally:
        for one in spoken:
            if one.session is not None:
                one.session.close()
    _grade([one for one in spoken if one.grade is None])
    return spoken


def _grade(spoken: Sequence[Spoken]) -> None:
    """Grade single answers, those of one task together."""
    groups: dict[str, list[Spoken]] = {}
    for one in spoken:
        groups.setdefault(one.task.id, []).append(one)
    for name in dict.fromkeys(own[0].task.environment for own in groups.values()):
        mine = [own for own in groups.values() if own[0].task.environment == name]
        found = graded_by(get_environment(name), [(own[0].task, [one.text for one in own]) for own in mine])
        for own, grades in zip(mine, found, strict=True):
            for one, grade in zip(own, grades, strict=True):
                one.grade = grade


@dataclass(frozen=True, slots=True)
class _Talk:
    """How every conversation is had."""

    endpoint: Endpoint
    sampling: Sampling
    seed: int

    def have(self, one: Spoken) -> None:
        """One answer, or a conversation to its end."""
        line, environment = self.endpoint.line(), get_environment(one.task.environment)
        one.messages = [dict(message) for message in one.task.messages]
        if one.session is not None and (first := opened(environment, [one.session])[0]) is not None:
            one.messages += [dict(message) for message in first.messages]
        limits, began = self.sampling.conversation, time.monotonic()
        for turn in range(limits.max_turns):
            if turn and (one.tokens >= limits.max_tokens or time.monotonic() - began > limits.max_seconds):
                break
            try:
                message, cut = self._ask(line, one, turn)
            except Misshapen as error:
                one.grade = Grade.failed(str(error))
                return
            except Refused:
                if not turn:
                    raise
                break  # the conversation has outgrown the model's context: it is graded as it stands
            one.text = answer_text(one.task, message)
            if one.session is None:
                return
            if cut or self._reacts(environment, one, one.session, message):
                break
        if one.session is not None and one.grade is None:
            one.grade = stopped(one.task.environment, one.session)

    def _reacts(
        self, environment: Environment, one: Spoken, session: Session, message: dict[str, Any]
    ) -> bool:
        """Hand an answer to the environment; whether that was the last one."""
        (reaction,) = responded(environment, [(session, one.text)])
        if isinstance(reaction, Grade):
            one.grade = reaction
            return True
        one.messages.append(message)
        ids = iter([call.get("id") for call in message.get("tool_calls") or []])
        for said in reaction.messages:
            is_result = said["role"] == "tool"
            one.messages.append({**said, "tool_call_id": next(ids, None)} if is_result else dict(said))
        return False

    def _ask(self, line: Line, one: Spoken, turn: int) -> tuple[dict[str, Any], bool]:
        """The model's message, and whether the limit cut it. Raises RemoteError."""
        body = {
            "model": self.endpoint.model,
            "messages": one.messages,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "max_tokens": self._room(one),
            "seed": derive_seed(self.seed, one.task.id, one.number, turn) % 2**SEED_BITS,
            **({"top_k": self.sampling.top_k} if self.sampling.top_k else {}),
            **({"stop": list(self.sampling.stop)} if self.sampling.stop else {}),
            **({"tools": [dict(tool) for tool in one.task.tools]} if one.task.tools else {}),
            **_asked_to_think(one.task),
        }
        reply = line.ask("/chat/completions", body, repeatable=True)
        choice = _choice(reply)
        one.tokens = _total_tokens(reply)
        return {**choice["message"], "role": "assistant"}, choice.get("finish_reason") == "length"

    def _room(self, one: Spoken) -> int:
        """Tokens of the next answer at most."""
        most = self.sampling.max_new_tokens
        return most if one.session is None else min(most, self.sampling.conversation.max_tokens - one.tokens)


def _asked_to_think(task: Task) -> dict[str, Any]:
    """What a request says of thinking: nothing where the source says nothing, as not all servers know it."""
    if task.asks_to_think or task.mode == "no_think":
        return {"chat_template_kwargs": {"enable_thinking": bool(task.asks_to_think)}}
    return {}


def _total_tokens(reply: Any) -> int:
    """Tokens of prompt and answer; 0 where the server does not count them."""
    usage = reply.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) else 0


def _choice(reply: Any) -> dict[str, Any]:
    """The one choice of a reply, with its message. Raises Misshapen where it has another shape."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise Misshapen("/chat/completions: the reply has no message")
    for name in TEXTS:
        if not isinstance(message.get(name), str | None):
            raise Misshapen(f"/chat/completions: the message's `{name}` is no text")
    calls = message.get("tool_calls") or []
    of_functions = isinstance(calls, list) and all(
        isinstance(call, dict) and isinstance(call.get("function"), dict) for call in calls
    )
    if not of_functions:
        raise Misshapen("/chat/completions: the message's `tool_calls` are no list of functions")
    return choice


def answer_text(task: Task, message: Mapping[str, Any]) -> str:
    """A message as graders read answers: thinking, words and calls in one text."""
    thought = SURROGATE.sub(UNREADABLE, message.get("reasoning_content") or message.get("reasoning") or "")
    words = SURROGATE.sub(UNREADABLE, message.get("content") or "")
    if thought:
        words = f"{'' if task.thinking else THINK_START}{thought}{THINK_END}{words}"
    elif task.thinking and words:
        words = THINK_END + words
    calls = list(_calls(message))
    return gold_calls(calls, words) if calls else words


def _calls(message: Mapping[str, Any]) -> Iterator[ToolCall]:
    for call in message.get("tool_calls") or []:
        function = call["function"]
        given = function.get("arguments")
        try:
            arguments = json.loads(given) if isinstance(given, str) else given
            said = json.dumps([str(function.get("name")), arguments], ensure_ascii=False)
        except (ValueError, RecursionError):
            continue
        name, arguments = json.loads(SURROGATE.sub(UNREADABLE, said))
        if isinstance(arguments, dict):
            yield ToolCall(name, arguments)
