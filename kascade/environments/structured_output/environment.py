"""Structured output: valid by a schema made strict; the content is not scored.

Rows and rule: NeMo-Gym `structured_outputs`, in five formats or as the arguments of a tool call.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from kascade.environments.base import Environment
from kascade.environments.bounded import RegexTimeout
from kascade.environments.fences import fenced_blocks
from kascade.environments.options import PatternOptions
from kascade.environments.rows.fields import one_of
from kascade.environments.rows.nemo_gym import row_messages, row_tools
from kascade.environments.rows.tool_calls import parse_tool_calls
from kascade.environments.small_world.words import CITIES, COLORS, NAMES, NOUNS
from kascade.environments.structured_output.formats import (
    READERS,
    check_value,
    read,
)
from kascade.environments.structured_output.strict import SchemaFault, validator
from kascade.environments.structured_output.yaml_values import Unreadable, read_older_yaml
from kascade.task import Grade, Message, Task, visible_answer

PROPERTIES: dict[str, dict[str, Any]] = {
    "name": {"type": "string"},
    "age": {"type": "integer"},
    "city": {"type": "string", "enum": list(CITIES)},
    "color": {"type": "string", "enum": list(COLORS)},
    "open": {"type": "boolean"},
    "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
    "price": {"type": "integer"},
    "item": {"type": "string"},
}
MODES = ("text", "tool_call")
TAGS = {"json": ("json", "json5", "jsonc"), "yaml": ("yaml", "yml")}  # of code blocks; else the format's name
SPOKEN = {"string": "text", "integer": "number", "boolean": "true or false", "array": "list"}


class StructuredOutputs(Environment):
    """Fill a small JSON object from a line of text. Option: `regex_seconds` of a schema's patterns."""

    name = "structured_outputs"
    domain = "structured_output"
    options_type = PatternOptions

    def pose(self, rng: random.Random, level: float) -> Task:
        keys = rng.sample(list(PROPERTIES), 2 + round(level * 3))
        values = {key: _value(rng, key) for key in keys}
        schema: dict[str, Any] = {"type": "object", "properties": {key: PROPERTIES[key] for key in keys}}
        facts = ", ".join(f"{key} {_plain(value)}" for key, value in values.items())
        wanted = ", ".join(f"{key} ({SPOKEN[PROPERTIES[key]['type']]})" for key in keys)
        if rng.random() < level / 2:  # the object one level down
            schema = {"type": "object", "properties": {"result": schema}}
            values, wanted = {"result": values}, f"result with {wanted}"
        return Task(
            environment=self.name,
            domain="structured_output",
            messages=(Message(role="user", content=f"Give JSON with {wanted}. Text: {facts}."),),
            fields={"schema_str": json.dumps(schema), "schema_type": "json", "response_mode": "text"},
            reference=json.dumps(values),
        )

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return [grade_structure(task.fields, visible_answer(task, answer)) for answer in answers]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        kind = one_of("schema_type", row.get("schema_type") or "json", READERS)
        mode = one_of("response_mode", row.get("response_mode") or "text", MODES)
        if not isinstance(row.get("schema_str"), str):
            raise ValueError("schema_str: a JSON schema as text is needed")
        try:
            schema = validator(row["schema_str"]).schema
        except SchemaFault as error:
            raise ValueError(f"schema_str: {error}") from error
        if not isinstance(schema, dict):
            raise ValueError("schema_str: the schema must be an object")
        names = ("schema_str", "tool_name", "tool_payload_key")
        for name in names[1:]:
            if row.get(name) is not None and not isinstance(row[name], str):
                raise ValueError(f"{name}: is a {type(row[name]).__name__}; a name is needed, as text")
        fields = {key: row.get(key) for key in names} | {"schema_type": kind, "response_mode": mode}
        fields |= self.graded_with
        return Task(self.name, "structured_output", row_messages(row), fields, tools=row_tools(row))


def _value(rng: random.Random, key: str) -> Any:
    spec = PROPERTIES[key]
    if "enum" in spec:
        return rng.choice(spec["enum"])
    return {
        "name": rng.choice(NAMES),
        "item": rng.choice(NOUNS),
        "age": rng.randint(2, 90),
        "price": rng.randint(1, 999),
        "open": rng.random() < 0.5,
        "tags": rng.sample(NOUNS, 2),
    }[key]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def grade_structure(fields: Mapping[str, Any], answer: str) -> Grade:
    """1 when the answer can be read and is valid by the schema made strict; the content is not scored.

    components: parsed (0 or 1), and `error_type/NAME` with NeMo-Gym's name for what was wrong.
    """
    answer = answer.lstrip("\ufeff")  # a byte order mark is no part of a value
    try:
        check = validator(fields["schema_str"], PatternOptions.of_task(fields).regex_seconds)
        value = _value_of(fields, check.schema, answer)
        valid = check.is_valid(value) or _valid_otherwise(fields, check, answer, value)
    except Rejected as error:
        return Grade(0.0, {"parsed": 0.0, f"error_type/{error.kind}": 1.0})
    except RecursionError:
        valid = False
    except (SchemaFault, RegexTimeout) as error:
        return Grade.failed(f"schema_str: {error}")
    except Exception as error:  # a schema that cannot be followed, such as a reference to elsewhere
        return Grade.failed(f"schema_str: {type(error).__name__}: {error}")
    return (
        Grade(1.0, {"parsed": 1.0})
        if valid
        else Grade(0.0, {"parsed": 1.0, "error_type/validation_error": 1.0})
    )


def _valid_otherwise(fields: Mapping[str, Any], check: Any, answer: str, value: Any) -> bool:
    """Whether YAML is valid as YAML 1.1 reads it where the declared type asks for that (`yes`, `0b11`)."""
    if fields["schema_type"] != "yaml" or fields["response_mode"] == "tool_call":
        return False
    older = read_older_yaml(_unfenced(answer.strip(), TAGS["yaml"]), value, check.schema)
    return older is not None and bool(check.is_valid(older))


class Rejected(Exception):
    """The answer holds no value. kind: NeMo-Gym's `error_type`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def _value_of(fields: Mapping[str, Any], schema: Any, answer: str) -> Any:
    """The value that the answer holds. Raises Rejected."""
    if not answer.strip():
        raise Rejected("empty_response")
    if fields["response_mode"] == "tool_call":
        return _payload(fields, schema, answer)
    kind = fields["schema_type"]
    try:
        return read(kind, _unfenced(answer.strip(), TAGS.get(kind, (kind,))), schema)
    except Unreadable as error:
        raise Rejected("parse_error") from error


def _unfenced(answer: str, tags: Sequence[str]) -> str:
    """What the one block holds that an answer consists of; any other answer as it is."""
    if not answer.startswith(("```", "~~~")):
        return answer
    blocks = fenced_blocks(answer)
    whole = len(blocks) == 1 and blocks[0].closed and answer.endswith(answer[:3])
    return blocks[0].text.rstrip("\n") if whole and blocks[0].tag in ("", *tags) else answer


def _payload(fields: Mapping[str, Any], schema: Any, answer: str) -> Any:
    """The arguments of the one call, or the part of them that holds the payload."""
    calls = parse_tool_calls(answer)
    if len(calls) != answer.count("<tool_call>"):
        raise Rejected("tool_arguments_parse_error")
    if len(calls) != 1:
        raise Rejected("multiple_tool_calls" if calls else "missing_tool_call")
    if fields.get("tool_name") and calls[0].name != fields["tool_name"]:
        raise Rejected("wrong_tool_name")
    key = fields.get("tool_payload_key")
    declared = schema if key is None else {"properties": {key: schema}}
    (call,) = parse_tool_calls(answer, [{"name": calls[0].name, "parameters": declared}])
    payload: Any = call.arguments
    if key is not None:
        if key not in payload:
            raise Rejected("missing_tool_payload_key")
        payload = payload[key]
    try:
        check_value(payload)
    except Unreadable as error:
        raise Rejected("tool_arguments_parse_error") from error
    return payload
