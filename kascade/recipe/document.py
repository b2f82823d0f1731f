"""YAML as a tree in which every value knows its file, line and dotted field.

Scalars follow YAML 1.2's core schema: `3e-6` is a number, `no` and `on` are text, and only `true` and
`false` are truth values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from kascade.errors import Fault, UserError

Scalar = str | int | float | bool | None
MAX_VALUES = 100_000  # aliases of aliases can blow a small file up; no recipe comes near
LONGEST = 2**20  # characters of a recipe; what its aliases stand for may be as long again
ROWS_ELSEWHERE = "rows belong in files of their own: `path` of a data source"
MAX_DEPTH = 60  # levels of lists and objects
MOST_DIGITS = 4000
LARGEST = 2**63  # of whole numbers


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
    """A Python value as a tree; `origin` says where it comes from, as a file's name does."""
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
_NULL, _BOOL, _INT, _FLOAT, _TEXT, _MAP, _SEQ = (
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "map", "seq")
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
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("half a character (\\ud800 to \\udfff), which no file can hold") from None
        return text
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if node.tag == _INT:
        if len(text) > MOST_DIGITS or abs(int(text)) >= LARGEST:
            raise ValueError(f"a whole number of {len(text)} digits is too large")
        return int(text)
    if node.tag == _FLOAT:
        if not math.isfinite(float(text)):
            raise ValueError(f"the number {text[:20]} is too large")
        return float(text)
    raise ValueError(f"the tag {node.tag} does not belong in a recipe")


@dataclass(slots=True)
class _Builder:
    """Turns PyYAML's nodes into ours and collects what is wrong with them."""

    origin: str
    faults: list[Fault] = field(default_factory=list)
    count: int = 0
    characters: int = 0

    def build(self, node: yaml.Node, path: tuple[str, ...], above: frozenset[int]) -> Node:
        place = f"{self.origin}:{node.start_mark.line + 1} {'.'.join(path)}".rstrip()
        self.count += 1
        self.characters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if self.count > MAX_VALUES or self.characters > 2 * LONGEST:
            what = f"holds more than {MAX_VALUES:,} values, or {2 * LONGEST:,} characters with its aliases"
            raise UserError(Fault(self.origin, what, remedy="drop the aliases"))
        if len(above) > MAX_DEPTH:
            what = f"is nested deeper than {MAX_DEPTH} levels"
            raise UserError(Fault(place, what, remedy="no field is nested so deep: check the brackets"))
        if id(node) in above:
            self.faults.append(Fault(place, "an alias that contains itself", remedy="drop the alias"))
            return Node(None, place)
        within = above | {id(node)}
        if not isinstance(node, yaml.ScalarNode) and node.tag not in (_MAP, _SEQ):
            what = f"unreadable value: the tag {node.tag} does not belong in a recipe"
            self.faults.append(Fault(place, what, remedy="write a plain list or mapping"))
            return Node(None, place)
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path, within), place)
        if isinstance(node, yaml.SequenceNode):
            items = enumerate(node.value)
            return Node([self.build(item, (*path, str(i)), within) for i, item in items], place)
        assert isinstance(node, yaml.ScalarNode)
        try:
            return Node(_scalar(node), place)
        except ValueError as error:
            remedy = "write a number, text in quotes, true, false or null"
            self.faults.append(Fault(place, f"unreadable value: {error}", remedy=remedy))
            return Node(None, place)

    def _mapping(
        self, node: yaml.MappingNode, path: tuple[str, ...], within: frozenset[int]
    ) -> dict[str, Node]:
        fields: dict[str, Node] = {}
        for key, value in node.value:
            here = f"{self.origin}:{key.start_mark.line + 1} {'.'.join(path)}".rstrip()
            if not isinstance(key, yaml.ScalarNode):
                self.faults.append(Fault(here, "a key must be plain text", remedy="write `name: value`"))
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
    if len(text) > LONGEST:
        what = f"has {len(text):,} characters, a recipe at most {LONGEST:,}"
        raise UserError(Fault(origin, what, remedy=ROWS_ELSEWHERE))
    if text.count(",") + text.count("\n") > MAX_VALUES:  # counted first: the library is slow
        what = f"holds more than {MAX_VALUES:,} values"
        raise UserError(Fault(origin, what, remedy=ROWS_ELSEWHERE))
    try:
        composed = yaml.compose(
            text.rstrip(), Loader=_Loader
        )  # a record of ours ends in white space with tabs
        root = builder.build(composed, (), frozenset()) if composed is not None else Node(None, origin)
    except RecursionError:
        remedy = "no field is nested so deep: check the brackets"
        raise UserError(Fault(origin, "is nested too deeply to be read", remedy=remedy)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{origin}:{mark.line + 1}" if mark else origin
        what = f"not readable as YAML: {error.problem or error.context}"
        raise UserError(Fault(where, what, remedy="check indentation, colons and quotes here")) from error
    except yaml.YAMLError as error:
        what = f"not readable as YAML: {' '.join(str(error).split())}"
        raise UserError(Fault(origin, what, remedy="save it as UTF-8, without control characters")) from error
    except (ValueError, TypeError, AttributeError) as error:  # what the library does not expect of a text
        what = f"not readable as YAML: {' '.join(str(error).split())[:200]}"
        raise UserError(Fault(origin, what, remedy="check tags, dates and directives")) from error
    if not isinstance(root.value, dict) and not builder.faults:
        builder.faults.append(Fault(origin, "holds no fields", remedy="begin with `preset: quickstart`"))
    if builder.faults:
        raise UserError(builder.faults)
    return root
