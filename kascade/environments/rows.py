"""What all NeMo-Gym rows share: the conversation under `responses_create_params`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from kascade.environments.base import Message

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def row_messages(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation of a row. Raises ValueError naming the field at fault."""
    params = row.get("responses_create_params")
    if not isinstance(params, Mapping):
        raise ValueError("responses_create_params: missing; a NeMo-Gym row carries its prompt there")
    turns = params.get("input")
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    if not isinstance(turns, list) or not turns:
        raise ValueError("responses_create_params.input: give text or a non-empty list of {role, content}")
    return tuple(_message(turn, index) for index, turn in enumerate(turns))


def row_tools(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The tool definitions of a row (OpenAI function definitions)."""
    tools = row["responses_create_params"].get("tools") or []
    return tuple(tool for tool in tools if isinstance(tool, Mapping))


def verifier_fields(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The grader's fields: under `verifier_metadata`, or at top level in older rows."""
    metadata = row.get("verifier_metadata")
    return metadata if isinstance(metadata, Mapping) else row


def _message(turn: Any, index: int) -> Message:
    where = f"responses_create_params.input[{index}]"
    if not isinstance(turn, Mapping) or turn.get("role") not in ROLES:
        raise ValueError(f"{where}.role: one of {', '.join(ROLES)} is needed")
    content = turn.get("content")
    if isinstance(content, list):  # OpenAI content parts
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    if not isinstance(content, str):
        raise ValueError(f"{where}.content: text is needed")
    return cast(Message, {"role": ROLES[turn["role"]], "content": content})
