"""The usual formats of published rows, told by their fields alone, as messages.

    Alpaca              instruction, input (may be empty), output
    prompt, completion  as TRL has them: text, or lists of messages
    question, answer    a question with the answer to imitate
    ShareGPT            conversations of {from, value}, with function_call, observation and `tools` as text
    text                a whole conversation in ChatML, or plain text: the answer to an empty turn

A row that a grader reads (with options, an expected answer, tests ...) is left as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from kascade.data.json_text import within

Row = dict[str, Any]

# Fields of graders and of other shapes: a row with one of them is none of these formats.
TAKEN = frozenset(
    {"responses_create_params", "messages", "chosen", "rejected", "agent_ref", "environment", "reference"}
    | {"options", "choices", "expected_answer", "ground_truth", "unit_tests", "metadata", "schema_str"}
    | {"verifier_metadata", "verifier_type", "instruction_id_list", "expected_action", "response"}
)
CALL_ROLES, RESULT_ROLES = ("function_call", "tool_call"), ("observation", "tool_response", "function")
CHATML_MARK, CHATML_END = "<|im_start|>", "<|im_end|>"
CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
CALL_MARKS = ("<tool_call>", "</tool_call>")


def usual_row(row: Row) -> Row:
    """The row with `messages` where it is of one of these formats, else the row itself.

    Raises ValueError ("field: what is wrong").
    """
    if "conversations" in row and isinstance(row["conversations"], list):
        return {**row, "conversations": _openai_turns(row["conversations"]), **_tools(row)}
    if TAKEN & {name for name, value in row.items() if value is not None}:
        return row
    for fields, messages in FORMATS:
        if all(row.get(name) is not None for name in fields):
            return {**row, "messages": messages(row)}
    return row


def _alpaca(row: Mapping[str, Any]) -> list[Row]:
    asked = [_text(row, "instruction"), *([_text(row, "input")] if row.get("input") else [])]
    return _turns("\n\n".join(asked), _text(row, "output"))


def _completion(row: Mapping[str, Any]) -> list[Row]:
    asked, answer = row["prompt"], row["completion"]
    before = asked if isinstance(asked, list) else _turns(_text(row, "prompt"))
    after = (
        answer if isinstance(answer, list) else [{"role": "assistant", "content": _text(row, "completion")}]
    )
    return [*before, *after]


def _question(row: Mapping[str, Any]) -> list[Row]:
    return _turns(_text(row, "question"), _text(row, "answer"))


def _plain(row: Mapping[str, Any]) -> list[Row]:
    text = _text(row, "text")
    turns = [{"role": role, "content": said} for role, said in CHATML.findall(text)]
    if CHATML_MARK in CHATML.sub("", text):
        raise ValueError(f"text: a turn that {CHATML_MARK} opens never ends with {CHATML_END}")
    return turns or _turns("", text)


FORMATS: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Any]], list[Row]]], ...] = (
    (("instruction", "output"), _alpaca),
    (("prompt", "completion"), _completion),
    (("question", "answer"), _question),
    (("text",), _plain),
)


def _turns(asked: str, answer: str | None = None) -> list[Row]:
    said = [] if answer is None else [{"role": "assistant", "content": answer}]
    return [{"role": "user", "content": asked}, *said]


def _text(row: Mapping[str, Any], name: str) -> str:
    """A field as text; numbers are written out. Raises ValueError."""
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name}: is a {type(value).__name__}; text is needed")
    return str(value)


def _openai_turns(turns: list[Any]) -> list[Any]:
    """ShareGPT's calls and results of tools as OpenAI's; other turns as they are."""
    return [_openai_turn(turn, f"conversations[{index}]") for index, turn in enumerate(turns)]


def _openai_turn(turn: Any, where: str) -> Any:
    role = turn.get("from", turn.get("role")) if isinstance(turn, Mapping) else None
    said = turn.get("value", turn.get("content")) if isinstance(turn, Mapping) else None
    if role in RESULT_ROLES:
        return {"role": "tool", "content": said}
    if role not in CALL_ROLES:
        return turn
    found = json_value(said, f"{where}.value")
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
        raise ValueError(f"{where}.value: a call {{name, arguments}} as JSON is needed")
    made = [{"name": call["name"], "arguments": json.dumps(call.get("arguments") or {})} for call in calls]
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": one} for one in made],
    }


def _tools(row: Mapping[str, Any]) -> Row:
    """Definitions of tools, given as JSON text or as a list, each wrapped as OpenAI has it."""
    given = row.get("tools")
    if not given:
        return {}
    found = json_value(given, "tools")
    if not isinstance(found, list) or not all(isinstance(tool, Mapping) for tool in found):
        raise ValueError("tools: a list of function definitions is needed")
    wrapped = [tool if "function" in tool else {"type": "function", "function": tool} for tool in found]
    return {"tools": wrapped}


def json_value(value: Any, where: str) -> Any:
    """A value that may be written as JSON text. Raises ValueError naming `where`."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    for mark in CALL_MARKS:
        text = text.replace(mark, "")
    return within(text, where)
