"""What all NeMo-Gym rows share: the conversation under `responses_create_params`, and answers in rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from kascade.environments.base import THINK_END, Message
from kascade.environments.tool_calls import render_tool_call

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TOOL_ROLES = ("tool", "function", "ipython")


def row_messages(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation of a row. Raises ValueError naming the field at fault.

    Tool calls and results come in OpenAI's chat form or its responses form. Earlier reasoning is left out, as
    Nemotron's templates leave it out.
    """
    params = row.get("responses_create_params")
    if not isinstance(params, Mapping):
        raise ValueError(
            "responses_create_params: missing, and neither messages (a list of turns) nor a prompt (text) "
            "stands in for it"
        )
    turns = params.get("input")
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    if not isinstance(turns, list) or not turns:
        raise ValueError("responses_create_params.input: give text or a non-empty list of {role, content}")
    messages: list[Message] = []
    for index, turn in enumerate(turns):
        message = _message(turn, f"responses_create_params.input[{index}]")
        if message is None:
            continue
        if messages and message["role"] == "assistant" == messages[-1]["role"]:  # text, then its calls
            message = _joined(messages.pop(), message)
        messages.append(message)
    if not messages:
        raise ValueError("responses_create_params.input: holds reasoning only; a message is needed")
    return tuple(messages)


def row_tools(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The tool definitions of a row (OpenAI function definitions). Raises ValueError."""
    params = row.get("responses_create_params")
    tools = (params.get("tools") if isinstance(params, Mapping) else None) or []
    if not isinstance(tools, list | tuple):
        raise ValueError("responses_create_params.tools: a list of function definitions is needed")
    return tuple(tool for tool in tools if isinstance(tool, Mapping))


def verifier_fields(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The grader's fields: under `verifier_metadata`, or at top level in older rows."""
    metadata = row.get("verifier_metadata")
    return metadata if isinstance(metadata, Mapping) else row


def answer_text(answer: Any, where: str) -> str:
    """An answer in a row, given as text or as an assistant's message, as a completion.

    Thinking (`reasoning_content` of a message) comes first and is ended; the opening tag belongs to the
    prompt. Raises ValueError naming `where`.
    """
    if isinstance(answer, str):
        return answer.removeprefix("<think>").lstrip("\n") if THINK_END in answer else answer
    if not isinstance(answer, Mapping):
        raise ValueError(f"{where}: text or an assistant's message is needed")
    thought = answer.get("reasoning_content") or answer.get("reasoning") or answer.get("thinking")
    said = answer_text(turn_text(answer, where), where)
    return f"{thought}{THINK_END}{said}" if isinstance(thought, str) and thought else said


def response_text(row: Mapping[str, Any]) -> str:
    """The answer that a rollout row carries under `response`, as a completion.

    Text, or an OpenAI response: reasoning first, then text and tool calls in order. Raises ValueError.
    """
    response = row.get("response")
    if isinstance(response, str):
        return response
    output = response.get("output") if isinstance(response, Mapping) else None
    if not isinstance(output, list):
        raise ValueError("response: missing; text, or an OpenAI response with `output`")
    thought, said = "", ""
    for index, item in enumerate(output):
        if isinstance(item, Mapping) and item.get("type") == "reasoning":
            thought += _reasoning(item)
        elif isinstance(item, Mapping) and item.get("type") != "function_call_output":
            said += turn_text(item, f"response.output[{index}]")
    return f"{thought}{THINK_END}{said}" if thought else said


def _message(turn: Any, where: str) -> Message | None:
    """One item of a conversation; None for reasoning."""
    if not isinstance(turn, Mapping):
        raise ValueError(f"{where}: an object with role and content is needed")
    if turn.get("type") == "reasoning":
        return None
    if turn.get("type") == "function_call":
        return Message(role="assistant", content="", tool_calls=[_tool_call(turn, where)])
    if turn.get("type") == "function_call_output" or turn.get("role") in TOOL_ROLES:
        said = turn.get("output") if "output" in turn else turn.get("content")
        text = said if isinstance(said, str) else _parts(said) or json.dumps(said, ensure_ascii=False)
        return Message(role="tool", content=text)
    if turn.get("role") not in ROLES:
        raise ValueError(f"{where}.role: one of {', '.join(ROLES)} is needed")
    message = cast(Message, {"role": ROLES[turn["role"]], "content": _content(turn, where)})
    if calls := turn.get("tool_calls"):
        message["tool_calls"] = [_tool_call(call.get("function", call), where) for call in calls]
    return message


def _joined(first: Message, second: Message) -> Message:
    """Two turns of the assistant in a row, as responses have them (text, then its calls), as one."""
    joined = Message(role="assistant", content=first["content"] + second["content"])
    if calls := [*first.get("tool_calls", []), *second.get("tool_calls", [])]:
        joined["tool_calls"] = calls
    return joined


def turn_text(turn: Mapping[str, Any], where: str) -> str:
    """Text and tool calls of one message, in OpenAI's chat or responses form. Raises ValueError."""
    if turn.get("type") == "function_call":
        return _call(turn, where)
    calls = turn.get("tool_calls") or []
    return _content(turn, where) + "".join(_call(call.get("function", call), where) for call in calls)


def _content(turn: Mapping[str, Any], where: str) -> str:
    """The text of a message; a message that only calls tools may have none."""
    content = turn.get("content")
    text = _parts(content) if isinstance(content, list) else content
    if text is None and turn.get("tool_calls"):
        return ""
    if not isinstance(text, str):
        raise ValueError(f"{where}.content: text is needed")
    return text


def _call(call: Mapping[str, Any], where: str) -> str:
    function = _tool_call(call, where)["function"]
    return render_tool_call(function["name"], function["arguments"])


def _tool_call(call: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A call as chat messages hold it, its arguments as an object."""
    arguments = call.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            raise ValueError(f"{where}.arguments: is not JSON") from None
    if not isinstance(arguments, Mapping) or not isinstance(call.get("name"), str):
        raise ValueError(f"{where}: a tool call needs a name and an object of arguments")
    return {"type": "function", "function": {"name": call["name"], "arguments": dict(arguments)}}


def _parts(content: Any) -> str:
    """The text of OpenAI content parts."""
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping))


def _reasoning(item: Mapping[str, Any]) -> str:
    """The text of a reasoning item, in full where it is there, else its summary."""
    return _parts(item.get("content")) or _parts(item.get("summary"))
