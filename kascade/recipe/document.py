"""YAML as a tree in which every value knows its file, line and dotted field.

Scalars follow YAML 1.2's core schema: `3e-6` is a number, `no` and `on` are text, and only `true` and
`false` are truth values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from kascade.errors import Fault, UserError

Scalar = str | int | float | bool | None
MAX_VALUES = 100_000  # aliases of aliases can blow a small file up; no recipe comes near


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a recipe and where it was written ("recipe.yaml:12 stages.1.steps")."""

    value: dict[str, Node] | list[Node] | Scalar
    place: str

    @property
    def mapping(self) -> dict[str, Node]:
        """The fields of a mapping; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The items of a list; empty for anything else."""
        return self.value if isinstance(self.value, list) else []

    def plain(self) -> Any:
        """The value as JSON has it, without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def from_value(value: Any, origin: str, path: tuple[str, ...] = ()) -> Node:
    """A Python value as a tree; `origin` tells where it comes from, as a file's name does."""
    place = f"{origin} {'.'.join(path)}".rstrip()
    if isinstance(value, Mapping):
        return Node({str(k): from_value(v, origin, (*path, str(k))) for k, v in value.items()}, place)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return Node([from_value(item, origin, (*path, str(i))) for i, item in enumerate(value)], place)
    if value is None or isinstance(value, (str, int, float, bool)):
        return Node(value, place)
    return Node(str(value), place)


class _Loader(yaml.SafeLoader):
    """Composes nodes with YAML 1.2's idea of a scalar."""


_Loader.yaml_implicit_resolvers = {}  # without YAML 1.1's dates, octals, sexagesimals and yes/no
_NULL, _BOOL, _INT, _FLOAT, _TEXT = (
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str")
)
_Loader.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)


def _scalar(node: yaml.ScalarNode) -> Scalar:
    text: str = node.value
    if node.tag == _TEXT:
        text.encode()  # a lone surrogate cannot be written down again
        return text
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if node.tag == _INT:
        return int(text)
    if node.tag == _FLOAT:
        return float(text)
    raise ValueError(f"the tag {node.tag} does not belong in a recipe")


@dataclass(slots=True)
class _Builder:
    """Turns PyYAML's nodes into ours and collects what is wrong with them."""

    origin: str
    faults: list[Fault] = field(default_factory=list)
    count: int = 0

    def build(self, node: yaml.Node, path: tuple[str, ...], above: frozenset[int]) -> Node:
        place = f"{self.origin}:{node.start_mark.line + 1} {'.'.join(path)}".rstrip()
        self.count += 1
        if self.count > MAX_VALUES:
            raise UserError(
                Fault(self.origin, f"holds more than {MAX_VALUES} values", remedy="drop the aliases")
            )
        if id(node) in above:
            self.faults.append(Fault(place, "an alias that contains itself"))
            return Node(None, place)
        within = above | {id(node)}
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path, within), place)
        if isinstance(node, yaml.SequenceNode):
            items = enumerate(node.value)
            return Node([self.build(item, (*path, str(i)), within) for i, item in items], place)
        assert isinstance(node, yaml.ScalarNode)
        try:
            return Node(_scalar(node), place)
        except ValueError as error:
            self.faults.append(Fault(place, f"unreadable value: {error}"))
            return Node(None, place)

    def _mapping(
        self, node: yaml.MappingNode, path: tuple[str, ...], within: frozenset[int]
    ) -> dict[str, Node]:
        fields: dict[str, Node] = {}
        for key, value in node.value:
            here = f"{self.origin}:{key.start_mark.line + 1} {'.'.join(path)}".rstrip()
            if not isinstance(key, yaml.ScalarNode):
                self.faults.append(Fault(here, "a key must be plain text"))
                continue
            if key.value in fields:
                remedy = "keep one of the two"
                self.faults.append(Fault(here, f"the key {key.value!r} appears twice", remedy=remedy))
                continue
            fields[key.value] = self.build(value, (*path, key.value), within)
        return fields


def parse_yaml(text: str, origin: str) -> Node:
    """The tree of one YAML (or JSON) document. Raises UserError with every fault of its form."""
    builder = _Builder(origin)
    try:
        composed = yaml.compose(text, Loader=_Loader)
        root = builder.build(composed, (), frozenset()) if composed is not None else Node(None, origin)
    except RecursionError:
        raise UserError(Fault(origin, "is nested too deeply to be read")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{origin}:{mark.line + 1}" if mark else origin
        what = f"not readable as YAML: {error.problem or error.context}"
        raise UserError(Fault(where, what, remedy="check indentation, colons and quotes here")) from error
    except yaml.YAMLError as error:
        raise UserError(Fault(origin, f"not readable as YAML: {' '.join(str(error).split())}")) from error
    if not isinstance(root.value, dict) and not builder.faults:
        builder.faults.append(Fault(origin, "holds no fields", remedy="begin with `preset: quickstart`"))
    if builder.faults:
        raise UserError(builder.faults)
    return root
