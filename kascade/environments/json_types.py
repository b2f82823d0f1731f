"""Which JSON types a schema lets a value have, wherever it says so, and text read as one of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from kascade.data.json_text import python_literal
from kascade.environments.bounded import RegexTimeout, matches
from kascade.environments.schema_patterns import as_read_here, schema_pattern_fault

Kinds = frozenset[str]
ALIASES = {  # other words for types, as tool definitions have them
    **dict.fromkeys(("str", "text"), "string"),
    **dict.fromkeys(("int", "long"), "integer"),
    **dict.fromkeys(("float", "double"), "number"),
    **dict.fromkeys(("list", "tuple"), "array"),
    **dict.fromkeys(("dict", "map"), "object"),
    "bool": "boolean",
    "none": "null",
}
FURTHER = frozenset({"$ref", "anyOf", "oneOf", "allOf", "enum", "const", "nullable"})  # words of types
ONLY_TEXT, NUMERIC = frozenset({"string"}), frozenset({"integer", "number"})
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?")
JSON_BEGINS = frozenset('{["-0123456789tfnNI')
CONSTANTS = {"True": True, "False": False, "None": None}
NAMES = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})
DEEPEST = 30  # references and branches that are followed


class Bare(str):
    """Text of a parameter that may be text or something else, which reads alike: `other` is that reading."""

    other: Any

    def __new__(cls, text: str, other: Any) -> Bare:
        made = super().__new__(cls, text)
        made.other = other
        return made


def kinds_of(schema: Any, root: Any) -> Kinds | None:
    """The types that a schema allows; None where it allows all, or does not say.

    root: where local references lead. Follows `type` (one or a list), `$ref`, `anyOf`, `oneOf`, `allOf`,
    `enum`, `const` and `nullable`.
    """
    if isinstance(schema, Mapping) and not FURTHER & schema.keys():
        return _named(schema.get("type"))
    return _kinds(schema, root, {}, 0)


def _kinds(schema: Any, root: Any, known: dict[int, Kinds | None], depth: int) -> Kinds | None:
    """known: of schemas by identity; of one that refers to itself, nothing while it is looked at."""
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return None
    if id(schema) in known:
        return known[id(schema)]
    known[id(schema)] = None
    found: list[Kinds | None] = [_named(schema.get("type"))]
    if isinstance(schema.get("$ref"), str):
        found.append(_kinds(resolve(schema["$ref"], root), root, known, depth + 1))
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and schema[word]:
            found.append(_union(_kinds(one, root, known, depth + 1) for one in schema[word]))
    parts = schema.get("allOf")
    found += [_kinds(one, root, known, depth + 1) for one in (parts if isinstance(parts, list) else ())]
    if isinstance(schema.get("enum"), list):
        found.append(frozenset(map(kind_of, schema["enum"])))
    if "const" in schema:
        found.append(frozenset({kind_of(schema["const"])}))
    kinds: Kinds | None = None
    for one in found:
        kinds = one if kinds is None else kinds if one is None else _both(kinds, one)
    known[id(schema)] = kinds | {"null"} if kinds is not None and schema.get("nullable") is True else kinds
    return known[id(schema)]


@cache
def _alone(name: str) -> Kinds:
    return frozenset({name})


def _named(names: Any) -> Kinds | None:
    if isinstance(names, str) and names in NAMES:
        return _alone(names)
    listed = [names] if isinstance(names, str) else names if isinstance(names, list) else []
    kinds = [ALIASES.get(str(name).lower(), str(name).lower()) for name in listed]
    return frozenset(kinds) if kinds and NAMES.issuperset(kinds) else None


def _union(branches: Iterable[Kinds | None]) -> Kinds | None:
    found: Kinds = frozenset()
    for one in branches:
        if one is None:
            return None
        found |= one
    return found


def _both(ours: Kinds, theirs: Kinds) -> Kinds:
    common = ours & theirs
    if "integer" in ours | theirs and "number" in ours | theirs:
        common |= {"integer"} & (ours if "number" in theirs else theirs)
    return common


def kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) or value.is_integer() else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def fits(value: Any, kinds: Kinds | None) -> bool:
    """Whether a value has one of the types."""
    kind = kind_of(value)
    return kinds is None or kind in kinds or (kind == "integer" and "number" in kinds)


def resolve(reference: str, root: Any) -> Any:
    """What a local reference names; None for what is elsewhere or not there."""
    if not reference.startswith("#"):
        return None
    found = root
    for written in reference[1:].split("/")[1:]:
        part = written.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and part.isdecimal() and len(part) < 6 and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, Mapping) and part in found:
            found = found[part]
        else:
            return None
    return found


def parts_of(schema: Any, root: Any) -> Iterator[Mapping[str, Any]]:
    """The schema and what it is made of: what references, `allOf` and alternatives say of the same value."""
    left, seen = [schema], set[int]()
    while left:
        one = left.pop(0)
        if not isinstance(one, Mapping) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [resolve(one["$ref"], root)] if isinstance(one.get("$ref"), str) else []
        for word in ("allOf", "anyOf", "oneOf"):
            left += one[word] if isinstance(one.get(word), list) else []


def property_schema(schema: Any, name: str, root: Any) -> Any:
    """What a schema says of one property, the first that says something; None where nothing does."""
    own = schema.get("properties") if isinstance(schema, Mapping) else None
    if isinstance(own, Mapping) and name in own:
        return own[name]
    for part in parts_of(schema, root):
        properties = part.get("properties")
        if isinstance(properties, Mapping) and name in properties:
            return properties[name]
    for part in parts_of(schema, root):  # what is said of properties that are not named
        patterns = part.get("patternProperties")
        for pattern, said in patterns.items() if isinstance(patterns, Mapping) else ():
            if _fits_pattern(pattern, name):
                return said
        if isinstance(part.get("additionalProperties"), Mapping):
            return part["additionalProperties"]
    return None


def _fits_pattern(pattern: str, name: str) -> bool:
    try:
        return schema_pattern_fault(pattern) is None and matches(as_read_here(pattern), name)
    except RegexTimeout:
        return False


def agreed(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these keys and values. Raises ValueError where a key has two different values."""
    last = dict(pairs)
    if len(last) == len(pairs):  # nearly always
        return last
    value: dict[str, Any] = {}
    for key, one in pairs:
        if value.setdefault(key, one) != one:
            raise ValueError(f"{key} has two values")
    return value


AGREED = json.JSONDecoder(object_pairs_hook=agreed)  # made once: `json.loads` makes one for every text


def item_schema(schema: Any, root: Any) -> Any:
    """What a schema says of a list's items; None where it says nothing."""
    return next((part["items"] for part in parts_of(schema, root) if "items" in part), None)


def read_as(text: str, kinds: Kinds | None, *, both: bool = False) -> Any:
    """Text as a value of one of the types, in JSON's or Python's spelling; text that is none of them stays.

    Text that may also be text is that, as a `Bare` that knows its other reading. Where the type is not
    known, JSON is read, and Python's constants may be either; both: JSON may be text, too.
    """
    if kinds == ONLY_TEXT:
        return text
    is_json, value = _literal(text.strip(), kinds)
    if kinds is None:
        return value if isinstance(value, str) or (is_json and not both) else Bare(text, value)
    right = fits(value, kinds - {"string"}) and not (isinstance(value, float) and not math.isfinite(value))
    if "string" in kinds:
        return Bare(text, value) if right else text
    return value if right or is_json else text


def _literal(text: str, kinds: Kinds | None) -> tuple[bool, Any]:
    """Whether a text is JSON, and what it says as JSON or as Python; the text itself where it is neither."""
    if text[:1] in JSON_BEGINS:  # plain words, most of what comes, need no parser to say so
        try:
            return True, AGREED.decode(text)
        except (ValueError, RecursionError):
            pass
    if text in CONSTANTS:
        return False, CONSTANTS[text]
    if kinds is not None and "boolean" in kinds and text.lower() in ("true", "false"):
        return False, text.lower() == "true"
    if kinds is not None and NUMERIC & kinds and NUMBER.fullmatch(text):  # JSON has no +5, .5 and 5.
        return False, int(text) if text.lstrip("+-").isdecimal() else float(text)
    return False, python_literal(text) if text[:1] in ("[", "{", "(") else text
