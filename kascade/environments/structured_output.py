"""Structured output: valid by a schema made strict; the content is not scored.

Rows and rule: NeMo-Gym `structured_outputs`, in five formats or as the arguments of a tool call.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from kascade.environments.base import Environment, Grade, Message, Task, visible_answer
from kascade.environments.bounded import REGEX_SECONDS, RegexTimeout, matches
from kascade.environments.fields import one_of
from kascade.environments.options import PatternOptions
from kascade.environments.rows import row_messages, row_tools
from kascade.environments.structured_formats import READERS, Unreadable, check_value, read
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
MODES = ("text", "tool_call")
FENCES = {"json": "json5?", "yaml": "ya?ml", "xml": "xml", "toml": "toml", "csv": "csv"}  # code blocks
SPOKEN = {"string": "text", "integer": "number", "boolean": "true or false", "array": "list"}


class StructuredOutputs(Environment):
    """Fill a small JSON object from a line of text. Option: `regex_seconds` of a schema's patterns."""

    name = "structured_outputs"
    domain = "structured_output"
    option_names = PatternOptions.names()

    def check_options(self, options: Mapping[str, Any]) -> None:
        PatternOptions.of(options)

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


Check = Callable[[Any, Any, Any, Any], Iterator[Any]]  # validator, keyword's value, instance, schema


class SchemaFault(ValueError):
    """The row's schema cannot be used: a fault of the row, not of the answer."""


SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")  # name → schema
SUBSCHEMAS = ("items", "prefixItems", "contains", "not", "if", "then", "else", "anyOf", "oneOf")


def strict_schema(schema: Any) -> Any:
    """Every property required and no others allowed, at every depth.

    Branches of `allOf` stay open: closed ones would shut each other's properties out.
    """
    if isinstance(schema, list):
        return [strict_schema(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    strict = dict(schema)
    for key, value in schema.items():
        if key in SCHEMAS and isinstance(value, dict):
            strict[key] = {name: strict_schema(part) for name, part in value.items()}
        elif key in SUBSCHEMAS:
            strict[key] = strict_schema(value)
    if isinstance(schema.get("properties"), dict):
        strict |= {"required": sorted(schema["properties"]), "additionalProperties": False}
    return strict


@lru_cache(maxsize=512)  # a group's answers, and later rollouts of a task, meet the same schema
def validator(schema_str: str, seconds: float = REGEX_SECONDS) -> Any:
    """A validator for the schema made strict, whose patterns may take that long. It fetches nothing.

    Raises SchemaFault.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import extend
    from referencing import Registry

    try:
        schema = json.loads(schema_str)
        Draft202012Validator.check_schema(schema)
        strict = strict_schema(schema)
        Draft202012Validator.check_schema(strict)
    except SchemaError as error:
        raise SchemaFault(f"{error.json_path}: {error.message}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise SchemaFault(f"a JSON schema as text is needed ({error})") from error
    checks: dict[str, Check] = {
        "pattern": partial(_pattern, seconds),
        "patternProperties": partial(_pattern_properties, seconds),
        "additionalProperties": partial(_additional_properties, seconds),
        "uniqueItems": _unique_items,
    }
    bounded = extend(Draft202012Validator, checks)  # type: ignore[no-untyped-call]
    return bounded(strict, registry=Registry())


def _pattern(seconds: float, _: Any, pattern: str, value: Any, __: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if isinstance(value, str) and not matches(pattern, value, seconds=seconds):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(
    seconds: float, check: Any, patterns: Mapping[str, Any], value: Any, __: Any
) -> Iterator[Any]:
    if isinstance(value, dict):
        for pattern, schema in patterns.items():
            for key in value:
                if matches(pattern, key, seconds=seconds):
                    yield from check.descend(value[key], schema, path=key, schema_path=pattern)


def _additional_properties(
    seconds: float, check: Any, allowed: Any, value: Any, schema: Mapping[str, Any]
) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if not isinstance(value, dict):
        return
    patterns = schema.get("patternProperties", {})
    for key in value.keys() - schema.get("properties", {}).keys():
        if any(matches(pattern, key, seconds=seconds) for pattern in patterns):
            continue
        if isinstance(allowed, dict):
            yield from check.descend(value[key], allowed, path=key)
        elif not allowed:
            yield ValidationError(f"{key!r} is not allowed here")


def _unique_items(_: Any, unique: bool, value: Any, __: Any) -> Iterator[Any]:
    """In linear time; the library compares every pair of objects."""
    from jsonschema.exceptions import ValidationError

    if unique and isinstance(value, list):
        seen = {json.dumps(item, sort_keys=True, default=str) for item in value}
        if len(seen) != len(value):
            yield ValidationError("has items that are alike")


def grade_structure(fields: Mapping[str, Any], answer: str) -> Grade:
    """1 when the answer can be read and is valid by the schema made strict; the content is not scored.

    components: parsed (0 or 1), and `error_type/NAME` with NeMo-Gym's name for what was wrong.
    """
    try:
        check = validator(fields["schema_str"], PatternOptions.of_task(fields).regex_seconds)
        value = _value_of(fields, check.schema, answer)
        valid = check.is_valid(value)
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
    fenced = re.fullmatch(rf"(?is)```(?:{FENCES[kind]})?[ \t]*\n(.*?)\n?```", answer.strip())
    try:
        return read(kind, fenced[1] if fenced else answer, schema)
    except Unreadable as error:
        raise Rejected("parse_error") from error


def _payload(fields: Mapping[str, Any], schema: Any, answer: str) -> Any:
    """The arguments of the one call, or the part of them that holds the payload."""
    calls = parse_tool_calls(answer)
    if len(calls) != answer.count("<tool_call>"):
        raise Rejected("tool_arguments_parse_error")
    if len(calls) != 1:
        raise Rejected("multiple_tool_calls" if calls else "missing_tool_call")
    if fields.get("tool_name") and calls[0].name != fields["tool_name"]:
        raise Rejected("wrong_tool_name")
    payload: Any = calls[0].arguments
    key = fields.get("tool_payload_key")
    if key is not None:
        if key not in payload:
            raise Rejected("missing_tool_payload_key")
        payload = payload[key]
    elif "<function=" in answer:  # parameters are bare text there: 90210 is text where text is wanted
        properties = schema.get("properties") or {}
        payload = {name: _as_text(value, properties.get(name)) for name, value in payload.items()}
    try:
        check_value(payload)
    except Unreadable as error:
        raise Rejected("tool_arguments_parse_error") from error
    return payload


def _as_text(value: Any, schema: Any) -> Any:
    wants_text = isinstance(schema, dict) and schema.get("type") == "string"
    return json.dumps(value) if wants_text and not isinstance(value, str) else value
