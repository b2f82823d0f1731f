"""pydantic's complaints as faults: place, what was found, what is allowed, nearest name, remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kascade.errors import Fault
from kascade.recipe.checks import CrossCheckError, Problem, nearest
from kascade.recipe.document import Node
from kascade.recipe.parts import FORM

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]
PLACE = re.compile(r":\d+$")  # the line behind a file's name


def validation_faults(error: ValidationError, root: Node, schema: Schema) -> list[Fault]:
    """Each complaint once, where the user wrote the value. `schema`: JSON Schema of what was validated.

    Problems of the root's own cross-check are left out: `problem_faults` tells them.
    """
    faults: dict[Fault, None] = {}
    details = error.errors(include_url=False)
    for detail in details:
        path = _path_in(root, detail)
        if _is_echo(detail, details):
            continue
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, CrossCheckError):
            faults.update(dict.fromkeys(problem_faults(cause.problems if path else (), root, path)))
        else:
            faults[_fault(detail, path, root, schema)] = None
    return list(faults)


def _is_echo(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """Whether a list only seems too short because an item of it is wrong, which is reported by itself."""
    where = detail["loc"]
    inside = (other["loc"] for other in details if len(other["loc"]) > len(where))
    return detail["type"] == "too_short" and any(path[: len(where)] == where for path in inside)


def problem_faults(problems: Iterable[Problem], root: Node, above: Path = ()) -> list[Fault]:
    """Problems of a check as faults with their places."""
    return [_problem_fault(problem, root, above) for problem in problems]


def _problem_fault(problem: Problem, root: Node, above: Path) -> Fault:
    """A problem of several fields stands where the user wrote one of them, not in the preset below."""
    places = [place_of(root, (*above, *path)) for path in (problem.path, *problem.also)]
    own = next((place for place in places if origin_of(place) != origin_of(root.place)), places[0])
    if own == places[0]:
        return Fault(own, problem.what, problem.allowed, problem.remedy)
    field = ".".join(map(str, problem.path))
    what = f"{problem.what} ({field} is set in {places[0].partition(' ')[0]})"
    return Fault(own, what, problem.allowed and f"{field}: {problem.allowed}", problem.remedy)


def origin_of(place: str) -> str:
    """The file, or the setting of the command line, that a place is in."""
    if place.startswith("--"):
        return place
    return PLACE.sub("", place.partition(" ")[0])


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """Each fault once: files in the order in which they occur, the lines of a file in their own order."""
    found = list(dict.fromkeys(faults))
    origins = list(dict.fromkeys(origin_of(fault.where) for fault in found))

    def position(fault: Fault) -> tuple[int, int]:
        line = PLACE.search(fault.where.partition(" ")[0])
        return origins.index(origin_of(fault.where)), int(line[0][1:]) if line else 0

    return sorted(found, key=position)


def place_of(root: Node, path: Path) -> str:
    """Where the value at `path` was written; for one that is absent, where it belongs."""
    node = root
    for index, step in enumerate(path):
        child = _child(node, step)
        if child is None:
            absent = ".".join(map(str, path[index:]))
            return f"{node.place}.{absent}" if " " in node.place else f"{node.place} {absent}"
        node = child
    return node.place


def _child(node: Node, step: str | int) -> Node | None:
    if isinstance(step, int):
        return node.items[step] if step < len(node.items) else None
    return node.mapping.get(step)


def _path_in(root: Node, detail: ErrorDetails) -> Path:
    """The complaint's location without pydantic's own steps (tags and branches of unions, `[key]`)."""
    node, path = root, []
    for step in detail["loc"]:
        child = _child(node, step)
        if child is not None:
            node = child
            path.append(step)
        elif detail["type"] == "missing" and step == detail["loc"][-1]:
            path.append(step)
    return tuple(path)


def _fault(detail: ErrorDetails, path: Path, root: Node, schema: Schema) -> Fault:
    place = place_of(root, path)
    if detail["type"] == "extra_forbidden" or detail["loc"][-1:] == ("[key]",):
        return _unknown_key(place, path, schema_at(schema, root.plain(), path[:-1]) or {})
    if detail["type"].startswith("union_tag"):
        known = [tag.strip(" '") for tag in str(detail.get("ctx", {}).get("expected_tags", "")).split(",")]
        known = [tag for tag in known if tag] or _tags(schema, root.plain(), path)
        kind = root_value(root, (*path, "kind"))
        what = "`kind` is missing" if kind is None else f"{show(kind)} is not a kind of stage"
        return Fault(place_of(root, (*path, "kind")), what, ", ".join(known) or None, nearest(kind, known))
    part = schema_at(schema, root.plain(), path)
    allowed = describe(part, schema) if part else None
    if detail["type"] == "missing":
        return Fault(place, f"`{path[-1]}` is missing", allowed, f"add `{path[-1]}`")
    value = root_value(root, path)
    choices = [str(choice) for choice in (part or {}).get("enum", [])]
    message = f": {detail['msg'][:1].lower()}{detail['msg'][1:]}"
    if detail["type"] == "string_pattern_mismatch":
        message = ""  # the pattern, which `allowed` says in words
    return Fault(place, f"{show(value)} will not do{message}", allowed, nearest(value, choices))


def _unknown_key(place: str, path: Path, owner: Schema) -> Fault:
    known = sorted(owner.get("properties", {})) or owner.get("propertyNames", {}).get("enum", [])
    remedy = nearest(path[-1], known) or "take it out"
    return Fault(place, f"unknown key {path[-1]!r}", ", ".join(known) or None, remedy)


def root_value(root: Node, path: Path) -> Any:
    """The plain value at `path`, None where there is none."""
    node: Node | None = root
    for step in path:
        node = _child(node, step) if node else None
    return node.plain() if node else None


def show(value: Any, limit: int = 60) -> str:
    """A value in one short line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _resolve(node: Schema, schema: Schema) -> Schema:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _choose(node: Schema, value: Any, schema: Schema) -> Schema | None:
    """The branch of a union that `value` is meant for."""
    node = _resolve(node, schema)
    if "discriminator" in node:
        tag = value.get("kind") if isinstance(value, dict) else None
        target = node["discriminator"]["mapping"].get(tag) if isinstance(tag, str) else None
        return _resolve({"$ref": target}, schema) if target else None
    wanted = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else None
    branches = [_resolve(branch, schema) for branch in node.get("anyOf", [])]
    return next((branch for branch in branches if branch.get("type") == wanted), node)


def _tags(schema: Schema, value: Any, path: Path) -> list[str]:
    parent = schema_at(schema, value, path[:-1])
    items = _resolve((parent or {}).get("items", {}), schema)
    return list(items.get("discriminator", {}).get("mapping", {}))


def schema_at(schema: Schema, value: Any, path: Path) -> Schema | None:
    """The part of a JSON Schema that governs the value at `path`; None where nothing does."""
    node = _choose(schema, value, schema)
    for step in path:
        if node is None:
            return None
        if isinstance(step, int):
            prefix = node.get("prefixItems", [])
            child = prefix[step] if step < len(prefix) else node.get("items")
            value = value[step] if isinstance(value, list) and step < len(value) else None
        else:
            child = node.get("properties", {}).get(step, node.get("additionalProperties"))
            value = value.get(step) if isinstance(value, dict) else None
        node = _choose(child, value, schema) if isinstance(child, dict) else None
    return node


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "object": "a mapping",
}


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def describe(node: Schema, schema: Schema) -> str:
    """What a JSON Schema allows, in a few words."""
    node = _resolve(node, schema)
    if "enum" in node or "const" in node:
        return ", ".join(map(str, node.get("enum", [node.get("const")])))
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(describe(branch, schema) for branch in node["anyOf"]))
    if node.get("type") == "string":
        return str(node.get(FORM) or node.get("pattern") or "text")
    if node.get("type") == "array":
        length = node.get("minItems") if node.get("minItems") == node.get("maxItems") else None
        return f"a list of {length}" if length else "a list"
    fields = ", ".join(node.get("properties", {}))
    bounds = [f"{sign} {_number(node[bound])}" for bound, sign in _BOUNDS.items() if bound in node]
    return f"fields {fields}" if fields else " ".join([_WORDS.get(str(node.get("type")), "a value"), *bounds])
