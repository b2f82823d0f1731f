"""Values written as JSON, YAML, XML, TOML or CSV, read from text that nobody vouches for.

Refused as unreadable: duplicate keys, NaN and infinities, keys that are no text, nesting beyond MAX_DEPTH,
YAML aliases that expand beyond MAX_NODES values, YAML merge keys, and XML with a document type (entities).
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable
from datetime import date, time
from typing import Any

from kascade.environments.json_types import Kinds, item_schema, kinds_of, property_schema
from kascade.environments.structured_output.yaml_values import MAX_DEPTH, Unreadable, read_yaml

MAX_NODES = 200_000
INTEGER, NUMBER = re.compile(r"[+-]?[0-9]+"), re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read(kind: str, text: str, schema: Any) -> Any:
    """The value in the text. Raises Unreadable.

    schema: gives the values of XML and CSV, which know only text, their types.
    """
    try:
        value = READERS[kind](text)
        check_value(value)
    except Unreadable:
        raise
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error
    except Exception as error:  # whatever a parser raises on hostile text means that it cannot be read
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    return typed(value, schema, schema) if kind in ("xml", "csv") else value


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Unreadable("a key appears twice")
    return value


def _no_constant(name: str) -> Any:
    raise Unreadable(f"{name} is not JSON")


def read_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def read_xml(text: str) -> Any:
    """Elements as objects: attributes as "@name", repeated ones as lists, text beside children as "#text"."""
    from xml.parsers import expat

    root: dict[str, Any] = {}
    stack: list[tuple[dict[str, Any], list[str]]] = [(root, [])]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        stack.append(({f"@{key}": value for key, value in attributes.items()}, []))

    def end(name: str) -> None:
        children, parts = stack.pop()
        content = "".join(parts).strip()
        value: Any = children or content or None
        if children and content:
            children["#text"] = content
        siblings = stack[-1][0]
        if name not in siblings:
            siblings[name] = value
        elif isinstance(siblings[name], _Repeated):
            siblings[name].append(value)
        else:
            siblings[name] = _Repeated([siblings[name], value])

    def text_of(data: str) -> None:
        stack[-1][1].append(data)

    def refuse(*_: Any) -> None:
        raise Unreadable("a document type is not allowed")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text_of
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(text, True)
    return root


class _Repeated(list[Any]):
    """An element that came more than once."""


# Dotted keys deeper than any value may be: the parser takes quadratic time for them.
DEEP_KEY = re.compile(rf"(?<![\w\"'-])(?:[\w\"'-]++[ \t]*+\.[ \t]*+){{{MAX_DEPTH}}}")


def read_toml(text: str) -> Any:
    if DEEP_KEY.search(text):
        raise Unreadable("nested too deeply")
    return _dates_as_text(tomllib.loads(text))


def _dates_as_text(value: Any) -> Any:
    """JSON Schema knows no dates: those of TOML are the text that they are written as."""
    if isinstance(value, dict):
        return {key: _dates_as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_dates_as_text(item) for item in value]
    return value.isoformat() if isinstance(value, date | time) else value


def read_csv(text: str) -> Any:
    """A list of one object a row, by the names of the first line; a row that is too short lacks fields."""
    reader = csv.reader(io.StringIO(text))
    header = next(reader, [])
    rows = [row for row in reader if row]
    if any(len(row) > len(header) for row in rows):
        raise Unreadable("a row has more fields than the header")
    return [_unique(zip(header, row, strict=False)) for row in rows]


READERS: dict[str, Callable[[str], Any]] = {
    "json": read_json,
    "yaml": read_yaml,
    "xml": read_xml,
    "toml": read_toml,
    "csv": read_csv,
}


def check_value(value: Any) -> None:
    """Finite numbers, keys of text, limited depth and size: aliases count as often as they appear."""
    level, total = [value], 0
    for _ in range(MAX_DEPTH + 2):
        total += len(level)
        if total > MAX_NODES:
            raise Unreadable("too many values")
        following: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                if not all(isinstance(key, str) for key in one):
                    raise Unreadable("a key is not text")
                following += one.values()
            elif isinstance(one, list):
                following += one
            elif isinstance(one, float) and not math.isfinite(one):
                raise Unreadable("a number is not finite")
            if total + len(following) > MAX_NODES:
                raise Unreadable("too many values")
        if not following:
            return
        level = following
    raise Unreadable("nested too deeply")


def typed(value: Any, schema: Any, root: Any) -> Any:
    """Text made numbers, booleans, nulls and lists where the schema wants them and the text allows it."""
    kinds = kinds_of(schema, root)
    if kinds is None:
        kinds = frozenset({"object"}) if isinstance(value, dict) else frozenset()
    if isinstance(value, dict) and "object" in kinds:
        return {key: typed(item, property_schema(schema, key, root), root) for key, item in value.items()}
    if "array" in kinds and ("string" not in kinds or not isinstance(value, str)):
        return _items(value, item_schema(schema, root), root)
    if value in (None, ""):
        return None if "null" in kinds else "" if "string" in kinds else value
    return _scalar(value, kinds) if isinstance(value, str) else value


def _items(value: Any, schema: Any, root: Any) -> list[Any]:
    """The list in an element: <tags><tag>a</tag><tag>b</tag></tags>, or the element itself repeated."""
    if isinstance(value, dict) and len(value) == 1:
        (name,) = value
        if property_schema(schema, name, root) is None:  # a wrapping, and not an item with one key
            value = value[name]
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [typed(item, schema, root) for item in values]


def _scalar(text: str, kinds: Kinds) -> Any:
    stripped = text.strip()
    if "integer" in kinds and INTEGER.fullmatch(stripped) and len(stripped) < 1000:
        return int(stripped)
    if "number" in kinds and NUMBER.fullmatch(stripped) and math.isfinite(float(stripped)):
        return float(stripped)
    if "boolean" in kinds and stripped.lower() in ("true", "1", "false", "0"):
        return stripped.lower() in ("true", "1")
    if "null" in kinds and "string" not in kinds and stripped.lower() in ("null", "none"):
        return None
    return text
