"""Values written as YAML: as version 1.2 reads them, or as 1.1 did where the declared type asks for it."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from kascade.environments.json_types import fits, item_schema, kinds_of, property_schema

MAX_DEPTH = 100
CORE_SCHEMA = (  # YAML 1.2 §10.3: tag, pattern, first characters
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
)


class Unreadable(ValueError):
    """The text does not hold a value of that format."""


def read_yaml(text: str) -> Any:
    """As YAML 1.2 reads it: `NO`, `12:30` and dates are text, `1e3` is a number."""
    loader = yaml_loader()
    _not_too_deep(text, loader)
    return _loaded(text, loader)


@cache
def yaml_loader() -> Any:
    """A safe loader with the scalars of YAML 1.2's core schema, octal and hexadecimal numbers included."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Without YAML 1.1's scalars."""

    Loader.yaml_implicit_resolvers = {}
    for tag, pattern, first in CORE_SCHEMA:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))
    Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: _whole(node.value))
    Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _decimal(node.value))
    return Loader


def _whole(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _decimal(text: str) -> float:
    return float(text.replace(".inf", "inf").replace(".nan", "nan")) if text[-1].isalpha() else float(text)


def _not_too_deep(text: str, loader: Any) -> None:
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=loader):  # flat; building the value is recursive
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")


def _loaded(text: str, kind: Any) -> Any:
    loader = kind(text)
    try:
        node = loader.get_single_node()
        _no_twins(node)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def read_older_yaml(text: str, value: Any, schema: Any) -> Any:
    """The value with what YAML 1.1 reads in place of text or numbers of other types than declared.

    value: of `read_yaml`, already checked. None where YAML 1.1 cannot read the text.
    """
    import yaml

    try:
        older = _loaded(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (ValueError, TypeError, yaml.YAMLError, RecursionError):
        return None
    return _by_type(value, older, schema, schema)


def _by_type(value: Any, older: Any, schema: Any, root: Any) -> Any:
    if isinstance(value, dict) and isinstance(older, dict) and len(value) == len(older):
        pairs = zip(value.items(), older.values(), strict=True)
        return {
            key: _by_type(ours, other, property_schema(schema, key, root), root)
            for (key, ours), other in pairs
        }
    if isinstance(value, list) and isinstance(older, list) and len(value) == len(older):
        items = item_schema(schema, root)
        return [_by_type(ours, other, items, root) for ours, other in zip(value, older, strict=True)]
    kinds = kinds_of(schema, root)
    plain = isinstance(older, bool | int | float) or older is None
    return older if plain and not fits(value, kinds) and fits(older, kinds) else value


def _no_twins(root: Any) -> None:
    """No mapping may hold a key twice; PyYAML would keep the last."""
    seen: set[int] = set()
    left = [root]
    while left:
        node = left.pop()
        if node is None or id(node) in seen or isinstance(node.value, str):
            continue
        seen.add(id(node))
        for part in node.value:
            left += part if isinstance(part, tuple) else [part]
        if node.id == "mapping":
            keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
            if len(set(keys)) != len(keys):
                raise Unreadable("a key appears twice")
            if "<<" in keys:  # copies what it merges, so a few lines can fill any memory
                raise Unreadable("merge keys are not allowed")
