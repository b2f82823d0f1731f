"""Tool calls as Nemotron writes them: `<tool_call><function=NAME><parameter=P>value</parameter>…`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kascade.data.json_text import python_literal
from kascade.environments.json_types import AGREED, agreed, kinds_of, property_schema, read_as
from kascade.task import Called

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION = re.compile(r"<function=([^<>\s]+)>(.*)</function>", re.DOTALL)
PARAMETER = re.compile(r"<parameter=([^<>\s]+)>")
PARAMETER_END = "</parameter>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]


def parse_tool_calls(
    text: str, tools: Sequence[Mapping[str, Any]] = (), *, both: bool = False
) -> list[ToolCall]:
    """All calls in order; JSON bodies ({"name", "arguments"}) are read too, malformed ones drop out, as
    do those that give an argument two values.

    tools: OpenAI function definitions, by which bare text is read: a parameter that they declare as text
    stays text ("00000057", "true"), one of another type is read in JSON's or Python's spelling.
    both: a bare parameter without a declared type keeps both readings (`Bare`), for graders that compare.
    """
    declared = {str(f.get("name")): f.get("parameters") for f in map(function_of, tools)}
    return [call for body in _between(text, OPEN, CLOSE) for call in _calls(body.strip(), declared, both)]


def _between(text: str, opening: str, closing: str) -> Iterator[str]:
    """What stands between each opening mark and the closing one that follows, in time linear in the text.

    A last mark that is never closed holds the rest: an answer may end with its last call.
    """
    start = text.find(opening)
    while start >= 0:
        end = text.find(closing, start)
        yield text[start + len(opening) : end if end >= 0 else len(text)]
        start = text.find(opening, end) if end >= 0 else -1


def _calls(body: str, declared: Mapping[str, Any], both: bool) -> Iterator[ToolCall]:
    """The call in a body, as elements or as an object; a list of objects holds several."""
    if function := FUNCTION.fullmatch(body):
        name, schema = function[1], declared.get(function[1])
        try:
            given = agreed(list(_parameters(function[2])))
        except ValueError:  # one parameter with two values: no call
            return
        yield ToolCall(name, {key: _typed(text, key, schema, both) for key, text in given.items()})
        return
    value = _value(body)
    for one in value if isinstance(value, list) else [value]:
        if (call := _json_call(one)) is not None:
            yield call


def _parameters(body: str) -> Iterator[tuple[str, str]]:
    start = PARAMETER.search(body)
    while start is not None:
        end = body.find(PARAMETER_END, start.end())
        if end < 0:
            return
        yield start[1], body[start.end() : end].removeprefix("\n").removesuffix("\n")
        start = PARAMETER.search(body, end)


def _typed(text: str, name: str, schema: Any, both: bool) -> Any:
    if schema is None:
        return read_as(text, None, both=both)
    return read_as(text, kinds_of(property_schema(schema, name, schema), schema), both=both)


def _json_call(value: Any) -> ToolCall | None:
    """A call as an object, bare or under `function`; its arguments as an object or as text of one."""
    call = function_of(value) if isinstance(value, dict) else {}
    arguments = call.get("arguments", call.get("parameters"))
    arguments = _value(arguments) if isinstance(arguments, str) else arguments
    return ToolCall(str(call.get("name")), arguments) if isinstance(arguments, dict) else None


def _value(text: str) -> Any:
    """What a text holds as JSON or as Python writes it; None where it holds neither."""
    try:
        return AGREED.decode(text)
    except (ValueError, RecursionError):
        return python_literal(text) if text.startswith(("{", "[")) else None


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name, description and parameters of a definition, flat (Responses) or under `function` (Chat)."""
    nested = tool.get("function")
    return nested if isinstance(nested, Mapping) else tool


def render_tool_call(name: str, arguments: Mapping[str, Any]) -> str:
    """The same form, for gold answers."""
    parameters = "".join(
        f"<parameter={key}>{value if isinstance(value, str) else json.dumps(value)}</parameter>"
        for key, value in arguments.items()
    )
    return f"{OPEN}<function={name}>{parameters}</function>{CLOSE}"


def gold_calls(calls: Sequence[ToolCall], words: str = "") -> Called:
    """An answer that makes these calls."""
    text = words + "".join(render_tool_call(call.name, call.arguments) for call in calls)
    return Called(text, words, [as_message_holds(call.name, call.arguments) for call in calls])


def as_message_holds(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A call in the form of OpenAI's chat messages, its arguments as an object."""
    return {"type": "function", "function": {"name": name, "arguments": dict(arguments)}}
