"""What all NeMo-Gym rows share: the conversation under `responses_create_params`, and answers in rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from kascade.data.json_text import not_finite, within
from kascade.environments.rows.tool_calls import ToolCall, as_message_holds, function_of, gold_calls
from kascade.task import THINK_END, Message

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MEDIA = ("image", "images", "audio", "audios", "video", "videos", "file", "files", "input_file")
UNSEEN = (
    "pictures (images), sound, videos and files are not seen by models here, so the row cannot be learnt from"
)
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
TOOL_ROLES = ("tool", "function", "ipython")


def row_messages(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation of a row. Raises ValueError naming the field at fault.

    Tool calls and results come in OpenAI's chat form or its responses form. Earlier reasoning is left out, as
    Nemotron's templates leave it out.
    """
    params = row.get("responses_create_params")
    if not isinstance(params, Mapping):
        there = ", ".join(map(str, row))[:200] or "nothing"
        raise ValueError(
            f"responses_create_params: missing; the row holds {there}, but neither messages (a list of "
            "turns) nor a prompt (text)"
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
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            what = f"is a {type(tool).__name__}; a function definition is needed"
            raise ValueError(f"responses_create_params.tools[{index}]: {what}")
    _named_once(tools)
    return tuple(tools)


def _named_once(tools: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValueError for a function without a name, or two different ones with the same."""
    known: dict[str, Mapping[str, Any]] = {}
    for index, tool in enumerate(tools):
        where, named = f"responses_create_params.tools[{index}]", function_of(tool).get("name")
        if not isinstance(named, str) or not named.strip():
            if tool.get("type", "function") != "function":  # a tool of the other side's own
                continue
            raise ValueError(f"{where}.name: is missing; a function is called by its name")
        if function_of(known.setdefault(named, tool)) != function_of(tool):
            raise ValueError(f"{where}.name: {named!r} stands there twice, and says two things")


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
    thought = _thought(answer, where)
    calls = [answer] if answer.get("type") == "function_call" else _calls_of(answer, where)
    words = "" if answer.get("type") == "function_call" else answer_text(_content(answer, where), where)
    words = f"{thought}{THINK_END}{words}" if thought else words
    return gold_calls([_read_call(call, where) for call in calls], words) if calls else words


def _thought(answer: Mapping[str, Any], where: str) -> str:
    """The thinking of an assistant's message, under any of its usual names. Raises ValueError."""
    name = next((name for name in THOUGHTS if answer.get(name)), None)
    if name is None:
        return ""
    thought = answer[name]
    if isinstance(thought, list):
        return _parts(thought, f"{where}.{name}")
    if not isinstance(thought, str):
        raise ValueError(f"{where}.{name}: is a {type(thought).__name__}; text is needed")
    return thought


def response_text(row: Mapping[str, Any]) -> str:
    """The answer that a rollout row carries under `response`, as a completion.

    Text, or an OpenAI response: reasoning first, then text and tool calls in order. Raises ValueError.
    """
    response = row.get("response")
    if isinstance(response, str):
        return response
    choices = response.get("choices") if isinstance(response, Mapping) else None
    if isinstance(choices, list) and choices:
        return _chosen(choices)
    output = response.get("output") if isinstance(response, Mapping) else None
    if not isinstance(output, list):
        what = "missing" if response is None else f"is a {type(response).__name__} without an answer"
        raise ValueError(
            f"response: {what}; text, or an OpenAI response with `output` or `choices` is needed"
        )
    thought, said = "", ""
    for index, item in enumerate(output):
        if isinstance(item, Mapping) and item.get("type") == "reasoning":
            thought += _reasoning(item)
        elif isinstance(item, Mapping) and item.get("type") != "function_call_output":
            said += turn_text(item, f"response.output[{index}]")
    return f"{thought}{THINK_END}{said}" if thought else said


def _chosen(choices: Sequence[Any]) -> str:
    """The answer of a chat completion. Raises ValueError."""
    if len(choices) > 1:
        raise ValueError("response.choices: holds several answers, of which one is graded; make each a row")
    message = choices[0].get("message") if isinstance(choices[0], Mapping) else None
    return answer_text(message, "response.choices[0].message")


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
        return Message(role="tool", content=_result(said, where))
    role = turn.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"{where}.role: {role!r} is not one of {', '.join(ROLES)}")
    message = cast(Message, {"role": ROLES[role], "content": _content(turn, where)})
    if calls := _calls_of(turn, where):
        message["tool_calls"] = [_tool_call(call.get("function", call), where) for call in calls]
    return message


def _result(said: Any, where: str) -> str:
    """What a tool gave back: text, parts of text, or any value as JSON. Raises ValueError for no result."""
    if said is None:
        raise ValueError(
            f"{where}.content: the tool's result is missing (null); give an empty text if it is empty"
        )
    if isinstance(said, str):
        return said
    if isinstance(said, list) and said and all(isinstance(one, Mapping) and "type" in one for one in said):
        return _parts(said, f"{where}.content")
    return json.dumps(said, ensure_ascii=False)


def _calls_of(turn: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    """The tool calls of a message. Raises ValueError where they are no list of objects."""
    calls = turn.get("tool_calls") or []
    if isinstance(turn.get("function_call"), Mapping) and turn.get("type") is None:  # OpenAI's older form
        calls = [*calls, turn["function_call"]] if isinstance(calls, list) else calls
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise ValueError(f"{where}.tool_calls: a list of calls is needed")
    if calls and turn.get("role", "assistant") != "assistant":
        raise ValueError(f"{where}.tool_calls: only an assistant's turn may call tools")
    return calls


def _joined(first: Message, second: Message) -> Message:
    """Two turns of the assistant in a row, as responses have them (text, then its calls), as one."""
    joined = Message(role="assistant", content=first["content"] + second["content"])
    if calls := [*first.get("tool_calls", []), *second.get("tool_calls", [])]:
        joined["tool_calls"] = calls
    return joined


def turn_text(turn: Mapping[str, Any], where: str) -> str:
    """Text and tool calls of one message, in OpenAI's chat or responses form. Raises ValueError."""
    if turn.get("type") == "function_call":
        return gold_calls([_read_call(turn, where)])
    calls = [_read_call(call, where) for call in _calls_of(turn, where)]
    return gold_calls(calls, _content(turn, where))


def _content(turn: Mapping[str, Any], where: str) -> str:
    """The text of a message; a message that only calls tools may have none."""
    content = turn.get("content")
    for name in MEDIA:
        if turn.get(name):
            raise ValueError(f"{where}.{name}: {UNSEEN}")
    if turn.get("refusal"):
        raise ValueError(f"{where}.refusal: would be lost; give it as the content, or leave the row out")
    text = _parts(content, f"{where}.content") if isinstance(content, list) else content
    if text is None and (turn.get("tool_calls") or turn.get("function_call")):
        return ""
    if not isinstance(text, str):
        what = "is missing (null)" if text is None else f"is a {type(text).__name__}"
        raise ValueError(f"{where}.content: {what}; text is needed")
    return text


def _read_call(call: Mapping[str, Any], where: str) -> ToolCall:
    function = _tool_call(call.get("function", call), where)["function"]
    return ToolCall(function["name"], function["arguments"])


def _tool_call(call: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A call as chat messages hold it, its arguments as an object."""
    if not isinstance(call, Mapping):
        raise ValueError(f"{where}: a tool call is an object with a name and arguments")
    arguments = call.get("arguments")
    if isinstance(arguments, str):
        arguments = within(arguments or "{}", f"{where}.arguments")
    arguments = {} if arguments is None else arguments
    if not_finite(arguments):
        raise ValueError(f"{where}.arguments: holds NaN or an infinity, which no call can")
    if not isinstance(arguments, Mapping) or not isinstance(call.get("name"), str) or not call["name"]:
        raise ValueError(f"{where}: a tool call needs a name and an object of arguments")
    return as_message_holds(call["name"], arguments)


def _parts(content: Any, where: str) -> str:
    """The text of OpenAI content parts. Raises ValueError for one that is no text, and would get lost."""
    said = []
    for index, part in enumerate(content if isinstance(content, list) else []):
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            what = UNSEEN if any(word in str(kind) for word in MEDIA) else "no text, and would be lost"
            raise ValueError(f"{where}[{index}]: a part of type {kind!r}: {what}")
        said.append(text)
    return "".join(said)


def _reasoning(item: Mapping[str, Any]) -> str:
    """The text of a reasoning item, in full where it is there, else its summary."""
    return _parts(item.get("content"), "reasoning") or _parts(item.get("summary"), "reasoning")
