"""Tool calls as Nemotron writes them: `<tool_call><function=NAME><parameter=P>value</parameter>…`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
FUNCTION = re.compile(r"<function=([^<>\s]+)>(.*?)</function>", re.DOTALL)
PARAMETER = re.compile(r"<parameter=([^<>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]


def parse_tool_calls(text: str) -> list[ToolCall]:
    """All calls in order; JSON bodies ({"name", "arguments"}) are read too, malformed ones drop out."""
    calls = []
    for body in CALL.findall(text):
        function = FUNCTION.fullmatch(body)
        if function:
            parameters = PARAMETER.findall(function[2])
            calls.append(ToolCall(function[1], {key: _value(value) for key, value in parameters}))
            continue
        parsed = _value(body)
        if isinstance(parsed, dict) and isinstance(parsed.get("arguments"), dict):
            calls.append(ToolCall(str(parsed.get("name")), parsed["arguments"]))
    return calls


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
