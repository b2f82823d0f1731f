"""A schema made strict: all that it describes is required, and nothing else is allowed.

What a schema says under a condition must mean the same afterwards. So conditions stay open, and what is
described under them is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any
from urllib.parse import unquote

from kascade.data.json_text import parse
from kascade.environments.bounded import REGEX_SECONDS
from kascade.environments.bounded import matches as found_in
from kascade.environments.json_types import DEEPEST
from kascade.environments.schema_patterns import as_read_here, schema_pattern_fault

Check = Callable[[Any, Any, Any, Any], Iterator[Any]]  # validator, keyword's value, instance, schema


class SchemaFault(ValueError):
    """The row's schema cannot be used: a fault of the row, not of the answer."""


NAMED = ("properties", "patternProperties", "$defs", "definitions")  # name → schema of another value
ONE = ("items", "additionalItems")
LISTED = ("prefixItems", "items")
ALTERNATIVES = ("anyOf", "oneOf")
# What is said of the same object beside its properties: a condition, or a part that others complete.
BESIDE = ("allOf", "if", "then", "else", "not", "dependentSchemas", "$ref", "$dynamicRef", "contains")
AS_DATA = ("const", "enum", "default", "examples")  # what stands there is no schema
OPEN = "x-as-written"  # where the schema as it was written is, for what conditions refer to


def strict_schema(schema: Any) -> Any:
    """Every property required and no others allowed, at every depth.

    Alternatives (anyOf, oneOf) are closed where they alone describe the object. Parts of `allOf` and
    conditions stay open, also by reference: closed ones would shut each other out, or never hold.
    """
    strict = _strict(schema)
    if isinstance(strict, dict) and "$ref" in json.dumps(schema):
        strict[OPEN] = _as_written(schema)
    return strict


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    described = isinstance(schema.get("properties"), dict)
    joined = described or "allOf" in schema or "$ref" in schema
    strict: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NAMED and isinstance(value, dict):
            strict[key] = {name: _strict(part) for name, part in value.items()}
        elif key in ONE or key in LISTED or (key in ALTERNATIVES and not joined):
            strict[key] = _strict(value)
        elif key in ALTERNATIVES or (key in BESIDE and (key != "$ref" or described or "allOf" in schema)):
            strict[key] = _as_written({key: value})[key]
        else:
            strict[key] = value
    if described:
        beside = any(key in schema for key in (*BESIDE, *ALTERNATIVES) if key not in ("not", "contains"))
        strict.pop("additionalProperties", None)
        strict["unevaluatedProperties" if beside else "additionalProperties"] = False
        strict["required"] = sorted(schema["properties"])
    return strict


def patterns_of(schema: Any) -> Iterator[str]:
    """Every pattern that a schema names."""
    if isinstance(schema, list):
        for part in schema:
            yield from patterns_of(part)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("pattern"), str):
        yield schema["pattern"]
    for key, value in schema.items():
        if key == "patternProperties" and isinstance(value, dict):
            yield from value
        if key in NAMED and isinstance(value, dict):
            yield from patterns_of(list(value.values()))
        elif key not in AS_DATA:
            yield from patterns_of(value)


def lost_references(schema: Any, root: Any) -> Iterator[str]:
    """References into the schema itself (#/...) that end nowhere. Parts with an own `$id` are passed over."""
    if isinstance(schema, list):
        for part in schema:
            yield from lost_references(part, root)
    if not isinstance(schema, dict) or (schema is not root and "$id" in schema):
        return
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and value.startswith("#/") and not _leads(value, root):
            yield value
        elif key not in AS_DATA:
            yield from lost_references(value, root)


def _leads(reference: str, root: Any) -> bool:
    """Whether a JSON pointer, as a fragment of an address, ends at a part of the schema."""
    part = root
    for step in unquote(reference[2:]).split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        elif isinstance(part, dict) and name in part:
            part = part[name]
        else:
            return False
    return True


def _as_written(schema: Any) -> Any:
    """A part that stays open, with its references led to what was written."""
    if isinstance(schema, list):
        return [_as_written(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"#/{OPEN}{value[1:]}"
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/"))
        else value
        if key in AS_DATA
        else _as_written(value)
        for key, value in schema.items()
    }


@lru_cache(maxsize=512)  # a group's answers, and later rollouts of a task, meet the same schema
def validator(schema_str: str, seconds: float = REGEX_SECONDS) -> Any:
    """A validator for the schema made strict, whose patterns may take that long. It fetches nothing.

    Raises SchemaFault.
    """
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import extend
    from referencing import Registry

    try:
        schema = parse(schema_str)
        unasked = FormatChecker(formats=())  # patterns are JavaScript's, which Python's engine does not know
        Draft202012Validator.check_schema(schema, format_checker=unasked)
        for pattern in patterns_of(schema):
            if (fault := schema_pattern_fault(pattern)) is not None:
                raise SchemaFault(f"pattern {pattern!r} cannot be used: {fault}")
        if (lost := next(lost_references(schema, schema), None)) is not None:
            raise SchemaFault(f"$ref {lost!r} names no part of the schema")
        strict = strict_schema(schema)
        Draft202012Validator.check_schema(strict, format_checker=unasked)
    except SchemaFault:
        raise
    except SchemaError as error:
        raise SchemaFault(f"{error.json_path}: {error.message}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise SchemaFault(f"a JSON schema as text is needed ({error})") from error
    checks: dict[str, Check] = {
        "pattern": partial(_pattern, seconds),
        "patternProperties": partial(_pattern_properties, seconds),
        "additionalProperties": partial(_additional_properties, seconds),
        "unevaluatedProperties": partial(_unevaluated_properties, seconds),
        "uniqueItems": _unique_items,
        "multipleOf": _multiple_of,
    }
    bounded = extend(Draft202012Validator, checks)  # type: ignore[no-untyped-call]
    return bounded(strict, registry=Registry())


def matches(pattern: str, text: str, *, seconds: float) -> bool:
    """Whether a schema's pattern is found in a text. Raises RegexTimeout."""
    return found_in(as_read_here(pattern), text, seconds=seconds)


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
        seen = {json.dumps(_whole(item), sort_keys=True, default=str) for item in value}
        if len(seen) != len(value):
            yield ValidationError("has items that are alike")


def _whole(value: Any) -> Any:
    """A value whose 1.0 is 1, as in JSON."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _multiple_of(_: Any, step: float, value: Any, __: Any) -> Iterator[Any]:
    """Of the numbers as they are written: 0.3 is three times 0.1, which binary fractions are not."""
    from jsonschema.exceptions import ValidationError

    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if Fraction(str(value)) % Fraction(str(step)):
        yield ValidationError(f"{value!r} is no multiple of {step!r}")


def _unevaluated_properties(
    seconds: float, check: Any, allowed: Any, value: Any, schema: Mapping[str, Any]
) -> Iterator[Any]:
    """As the standard has it, with bounded patterns, which the library's own has not."""
    from jsonschema.exceptions import ValidationError

    if isinstance(value, dict) and allowed is False:
        for key in value.keys() - _described(seconds, check, value, schema):
            yield ValidationError(f"{key!r} is not allowed here")


def _described(seconds: float, check: Any, value: Any, schema: Any, depth: int = 0) -> set[str]:
    """The keys of an object that a schema speaks of, as far as its conditions and alternatives hold."""
    if not isinstance(schema, dict) or depth > DEEPEST:
        return set()
    if "additionalProperties" in schema:
        return set(value)
    found: set[str] = value.keys() & schema.get("properties", {}).keys()
    for pattern in schema.get("patternProperties", {}):
        found |= {key for key in value if matches(pattern, key, seconds=seconds)}
    for checked, part in _beside(check, value, schema):
        if checked.evolve(schema=part).is_valid(value):
            found |= _described(seconds, checked, value, part, depth + 1)
    return found


def _beside(check: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """What a schema says of the same object through other schemas, each with who resolves its references."""
    if "$ref" in schema:
        found = check._resolver.lookup(schema["$ref"])
        yield check.evolve(schema=found.contents, _resolver=found.resolver), found.contents
    for key in ("allOf", *ALTERNATIVES):
        yield from ((check, part) for part in schema.get(key, ()))
    yield from ((check, part) for key, part in schema.get("dependentSchemas", {}).items() if key in value)
    if "if" in schema:
        holds = check.evolve(schema=schema["if"]).is_valid(value)
        yield from ((check, schema[key]) for key in (("if", "then") if holds else ("else",)) if key in schema)
