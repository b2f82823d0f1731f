"""Tool calls as Nemotron writes them: `<tool_call><function=NAME><parameter=P>value</parameter>…`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
FUNCTION = re.compile(r"<function=([^<>\s]+)>(.*?)</function>", re.DOTALL)
PARAMETER = re.compile(r"<parameter=([^<>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]


def parse_tool_calls(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> list[ToolCall]:
    """All calls in order; JSON bodies ({"name", "arguments"}) are read too, malformed ones drop out.

    tools: OpenAI function definitions; a parameter that they declare as text stays text ("00000057", "true"),
    any other is read as JSON where it is JSON.
    """
    textual = {str(f.get("name")): _textual(f) for f in map(function_of, tools)}
    calls = []
    for body in CALL.findall(text):
        function = FUNCTION.fullmatch(body)
        if function:
            name, given = function[1], PARAMETER.findall(function[2])
            as_is = textual.get(name, frozenset())
            values = {key: value if key in as_is else _value(value) for key, value in given}
            calls.append(ToolCall(name, values))
            continue
        parsed = _value(body)
        if isinstance(parsed, dict) and isinstance(parsed.get("arguments"), dict):
            calls.append(ToolCall(str(parsed.get("name")), parsed["arguments"]))
    return calls


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name, description and parameters of a definition, flat (Responses) or under `function` (Chat)."""
    nested = tool.get("function")
    return nested if isinstance(nested, Mapping) else tool


def _textual(function: Mapping[str, Any]) -> frozenset[str]:
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    if not isinstance(properties, Mapping):
        return frozenset()
    kinds = {name: kind for name, kind in properties.items() if isinstance(kind, Mapping)}
    return frozenset(name for name, kind in kinds.items() if kind.get("type") == "string")


def render_tool_call(name: str, arguments: Mapping[str, Any]) -> str:
    """The same form, for gold answers."""
    parameters = "".join(
        f"<parameter={key}>{value if isinstance(value, str) else json.dumps(value)}</parameter>"
        for key, value in arguments.items()
    )
    return f"<tool_call><function={name}>{parameters}</function></tool_call>"


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
