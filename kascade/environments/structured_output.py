"""Structured output: valid by a schema made strict; the content is not scored.

Rows and rule: NeMo-Gym `structured_outputs`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kascade.environments.base import Environment, Grade, Message, Task, final_answer
from kascade.environments.rows import row_messages, row_tools
from kascade.environments.tool_calls import parse_tool_calls
from kascade.environments.words import CITIES, COLORS, NAMES, NOUNS

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
SPOKEN = {"string": "text", "integer": "number", "boolean": "true or false", "array": "list"}


class StructuredOutputs(Environment):
    """Fill a small JSON object from a line of text."""

    name = "structured_outputs"
    domain = "structured_output"

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
        schema = strict_schema(json.loads(task.fields["schema_str"]))
        return [grade_structure(task.fields, schema, final_answer(answer)) for answer in answers]

    def from_row(self, row: Mapping[str, Any]) -> Task:
        kind, mode = row.get("schema_type", "json"), row.get("response_mode", "text")
        if kind != "json":
            raise ValueError(f"schema_type: {kind!r} is not read yet; allowed: json")
        if mode not in ("text", "tool_call"):
            raise ValueError(f"response_mode: {mode!r} is not one of text, tool_call")
        try:
            schema = json.loads(row["schema_str"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"schema_str: a JSON schema as text is needed ({error})") from error
        if not isinstance(schema, dict):
            raise ValueError("schema_str: the schema must be an object")
        names = ("schema_str", "tool_name", "tool_payload_key")
        fields = {key: row.get(key) for key in names} | {"schema_type": kind, "response_mode": mode}
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


def strict_schema(schema: Any) -> Any:
    """Every property required and no others allowed, at every depth."""
    if isinstance(schema, list):
        return [strict_schema(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: strict_schema(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        strict |= {"required": sorted(schema["properties"]), "additionalProperties": False}
    return strict


def grade_structure(fields: Mapping[str, Any], schema: Any, answer: str) -> Grade:
    """1 when the answer parses and is valid. `components` tells which of the two failed."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing.exceptions import Unresolvable

    try:
        value = _read(fields, answer)
    except ValueError:
        return Grade(0.0, {"parsed": 0.0})
    try:
        Draft202012Validator.check_schema(schema)
        valid = Draft202012Validator(schema).is_valid(value)
    except (SchemaError, Unresolvable, re.error) as error:
        return Grade.failed(f"schema_str: {error}")
    except RecursionError:
        valid = False
    return Grade(float(valid), {"parsed": 1.0})


def _read(fields: Mapping[str, Any], answer: str) -> Any:
    """The value that the answer holds. Raises ValueError when it cannot be read."""
    if fields["response_mode"] == "text":
        fenced = re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?```", answer.strip(), re.DOTALL)
        try:
            return json.loads(fenced[1] if fenced else answer)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
    calls = [call for call in parse_tool_calls(answer) if call.name == fields["tool_name"]]
    if len(calls) != 1:
        raise ValueError(f"exactly one call of {fields['tool_name']} is needed")
    payload: Any = calls[0].arguments
    key = fields.get("tool_payload_key")
    if key is None:
        return payload
    if key not in payload:
        raise ValueError(f"the call has no {key}")
    return payload[key]
