"""Values in any usual spelling are read by the type that is declared for them, wherever it is declared."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.environments import get_environment
from kascade.environments.json_types import Bare, kinds_of, property_schema, read_as
from kascade.environments.rows.tool_calls import parse_tool_calls, render_tool_call

CALLS = get_environment("single_step_tool_use_with_argument_comparison")
OUTPUTS = get_environment("structured_outputs")
ID = {"$defs": {"Id": {"type": "string"}, "Deep": {"$ref": "#/$defs/Id"}}}


def call_reward(schema: Any, gold: Any, written: str, **more: Any) -> float:
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"id": schema}, **more}}
    action = {"type": "function_call", "name": "f", "arguments": json.dumps({"id": gold})}
    row = {"responses_create_params": {"input": "q", "tools": [tool]}, "expected_action": action}
    answer = f"<tool_call><function=f><parameter=id>{written}</parameter></function></tool_call>"
    (grade,) = CALLS.grade(CALLS.from_row(row), [answer])
    assert grade.error is None
    return grade.reward


TEXT = [
    {"type": "string"},
    {"type": ["string", "null"]},
    {"anyOf": [{"type": "string"}, {"type": "null"}]},
    {"oneOf": [{"type": "null"}, {"type": "string", "pattern": "1+"}]},
    {"allOf": [{"type": ["string", "integer"]}, {"type": "string"}]},
    {"$ref": "#/$defs/Id"},
    {"$ref": "#/$defs/Deep"},
    {"anyOf": [{"$ref": "#/$defs/Id"}, {"type": "null"}]},
    {"enum": ["12345", "1"]},
    {"const": "12345"},
    {"type": "string", "nullable": True},
    {"type": "str"},
]


@pytest.mark.parametrize("schema", TEXT)
def test_a_parameter_that_may_be_text_stays_text_wherever_its_type_is_declared(schema: Any) -> None:
    assert call_reward(schema, "12345", "12345", **ID) == 1
    assert call_reward(schema, "12345", "12346", **ID) == 0


OTHERS = [
    ({"type": "boolean"}, True, "True", 1),
    ({"type": "boolean"}, False, "false", 1),
    ({"type": "boolean"}, True, "False", 0),
    ({"type": ["integer", "null"]}, None, "None", 1),
    ({"type": ["string", "null"]}, None, "null", 1),
    ({"type": "string"}, "None", "None", 1),
    ({"type": "string"}, "True", "True", 1),
    ({"type": "array"}, ["a", True, None], "['a', True, None]", 1),
    ({"type": "object"}, {"a": "b"}, "{'a': 'b'}", 1),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 5, "5", 1),
    ({"type": "number"}, 5, "5.0", 1),
    ({"type": "number"}, 1000.0, "1e3", 1),
    ({"enum": [1, 2]}, 1, "1", 1),
    ({"type": ["string", "integer"]}, 5, "5", 1),
    ({"type": ["string", "integer"]}, "5", "5", 1),
    ({}, True, "True", 1),
    ({}, "True", "True", 1),
    ({"type": "integer"}, 5, "five", 0),
    ({"type": "integer"}, 5, "True", 0),
]


@pytest.mark.parametrize(("schema", "gold", "written", "earned"), OTHERS)
def test_pythons_spellings_are_read_by_the_declared_type(
    schema: Any, gold: Any, written: str, earned: int
) -> None:
    assert call_reward(schema, gold, written) == earned


def test_what_is_said_of_properties_without_a_name_counts_too() -> None:
    for more in (
        {"additionalProperties": {"type": "string"}},
        {"patternProperties": {"^i": {"type": "string"}}},
    ):
        tool = {"name": "f", "parameters": {"type": "object", **more}}
        (call,) = parse_tool_calls(render_tool_call("f", {"id": "5"}), [tool])
        assert call.arguments == {"id": "5"}


def test_calls_as_objects_in_json_or_pythons_form_with_arguments_in_text() -> None:
    for body in (
        '{"name": "f", "arguments": {"a": true}}',
        "{'name': 'f', 'arguments': {'a': True}}",
        '{"name": "f", "arguments": "{\\"a\\": true}"}',
        '{"name": "f", "parameters": {"a": true}}',
    ):
        (call,) = parse_tool_calls(f"<tool_call>\n{body}\n</tool_call>")
        assert (call.name, call.arguments) == ("f", {"a": True})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text("ab1 ", min_size=1, max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b"]), JSON, min_size=1))
def test_a_rows_own_gold_call_earns_everything_whatever_its_values(arguments: dict[str, Any]) -> None:
    kinds = {None: "null", bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    properties = {
        key: {"anyOf": [{"type": kinds[None if value is None else type(value)]}, {"type": "null"}]}
        for key, value in arguments.items()
    }
    tool = {"name": "f", "parameters": {"properties": properties}}
    action = {"type": "function_call", "name": "f", "arguments": json.dumps(arguments)}
    row = {"responses_create_params": {"input": "q", "tools": [tool]}, "expected_action": action}
    task = CALLS.from_row(row)
    python = "".join(f"<parameter={key}>{value}</parameter>" for key, value in arguments.items())
    answers = [render_tool_call("f", arguments), f"<tool_call><function=f>{python}</function></tool_call>"]
    assert [grade.reward for grade in CALLS.grade(task, answers)] == [1, 1]


@pytest.mark.parametrize(
    "text",
    [
        *("<tool_call>" + " " * 200_000, "<tool_call>" * 20_000, "<parameter=a>" * 20_000),
        *("[" * 100_000, "-" * 90_000),
    ],
)
def test_hostile_calls_take_no_time(text: str) -> None:
    start = time.process_time()
    parse_tool_calls(text)
    parse_tool_calls(f"<tool_call><function=f>{text}</function></tool_call>")
    read_as(f"[{text}", frozenset({"array"}))
    assert time.process_time() - start < 2


def test_schemas_that_refer_to_themselves_are_followed_once() -> None:
    loop = {"anyOf": [{"$ref": "#"}, {"$ref": "#"}], "properties": {"a": {"type": "string"}}}
    chain: dict[str, Any] = {"type": "string"}
    for _ in range(100):
        chain = {"anyOf": [chain, chain]}
    start = time.process_time()
    assert kinds_of(loop, loop) is None
    assert property_schema(loop, "b", loop) is None
    kinds_of(chain, chain)
    assert time.process_time() - start < 1
    assert isinstance(read_as("1", frozenset({"string", "integer"})), Bare)


def structure(kind: str, properties: dict[str, Any], answer: str, **more: Any) -> float:
    schema = {"type": "object", "properties": properties, **more}
    row = {"responses_create_params": {"input": "q"}, "schema_str": json.dumps(schema), "schema_type": kind}
    (grade,) = OUTPUTS.grade(OUTPUTS.from_row(row), [answer])
    assert grade.error is None
    return grade.reward


@pytest.mark.parametrize(
    ("kind", "declared", "written", "earned"),
    [
        ("yaml", "string", "a: 2021-02-02", 1),
        ("yaml", "string", "a: NO", 1),
        ("yaml", "string", "a: 12:30", 1),
        ("yaml", "string", "a: y", 1),
        ("yaml", "string", "a: 2001-12-14t21:59:43.10-05:00", 1),
        ("yaml", "number", "a: 1e3", 1),
        ("yaml", "integer", "a: 0o17", 1),
        ("yaml", "boolean", "a: yes", 1),
        ("yaml", "boolean", "a: off", 1),
        ("yaml", ["boolean", "null"], "a: on", 1),
        ("yaml", "integer", "a: 0b11", 1),
        ("yaml", "string", "a: 7", 0),
        ("yaml", "integer", "a: yes", 0),
        ("yaml", "string", "no: x\na: y", 0),
        ("toml", "string", "a = 2021-02-02", 1),
        ("toml", "string", "a = 1979-05-27T07:32:00Z", 1),
        ("xml", ["integer", "null"], "<a>5</a>", 1),
    ],
)
def test_formats_read_values_by_their_declared_type(
    kind: str, declared: Any, written: str, earned: int
) -> None:
    assert structure(kind, {"a": {"type": declared}}, written) == earned
    whole = {"$defs": {"A": {"type": declared}}}
    assert structure(kind, {"a": {"$ref": "#/$defs/A"}}, written, **whole) == earned
    assert structure(kind, {"a": {"anyOf": [{"type": declared}]}}, written) == earned


KIND = {"kind": {"enum": ["a", "b"]}, "n": {"type": "integer"}}
IF = {"properties": {"kind": {"const": "a"}}}
BIG = {"properties": {"n": {"minimum": 10}}}


@pytest.mark.parametrize(
    ("more", "answer", "earned"),
    [
        ({"if": IF, "then": BIG}, {"kind": "a", "n": 1}, 0),
        ({"if": IF, "then": BIG}, {"kind": "a", "n": 10}, 1),
        ({"if": IF, "then": BIG}, {"kind": "b", "n": 1}, 1),
        ({"if": IF, "then": BIG}, {"kind": "a", "n": 10, "z": 1}, 0),
        ({"if": {"$ref": "#/$defs/A"}, "then": BIG, "$defs": {"A": IF}}, {"kind": "a", "n": 1}, 0),
        ({"if": {"$ref": "#/$defs/A"}, "then": BIG, "$defs": {"A": IF}}, {"kind": "a", "n": 10}, 1),
        ({"not": IF}, {"kind": "a", "n": 1}, 0),
        ({"not": IF}, {"kind": "b", "n": 1}, 1),
        ({"anyOf": [IF, BIG]}, {"kind": "a", "n": 1}, 1),
        ({"anyOf": [IF, BIG]}, {"kind": "b", "n": 1}, 0),
        ({"oneOf": [IF, BIG]}, {"kind": "a", "n": 10}, 0),
        ({"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": IF}}, {"kind": "a", "n": 1}, 1),
        ({"allOf": [{"if": IF, "then": BIG}]}, {"kind": "a", "n": 1}, 0),
        ({"dependentSchemas": {"kind": BIG}}, {"kind": "b", "n": 1}, 0),
        ({"dependentSchemas": {"kind": BIG}}, {"kind": "b", "n": 10}, 1),
        ({"if": IF, "then": {"properties": {"x": {}}, "required": ["x"]}}, {"kind": "a", "n": 1, "x": 2}, 1),
        ({"if": IF, "then": {"properties": {"x": {}}, "required": ["x"]}}, {"kind": "a", "n": 1}, 0),
        ({"if": IF, "then": {"properties": {"x": {}}}}, {"kind": "b", "n": 1, "x": 2}, 0),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"x": {}}}}}, {"kind": "a", "n": 1, "x": 2}, 1),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"x": {}}}}}, {"kind": "a", "n": 1, "y": 2}, 0),
    ],
)
def test_strictness_does_not_change_what_conditions_mean(more: Any, answer: Any, earned: int) -> None:
    assert structure("json", KIND, json.dumps(answer), **more) == earned


def test_what_a_list_must_contain_stays_a_condition() -> None:
    items = {"type": "object", "properties": {"kind": {}, "n": {}}}
    listed = {"a": {"type": "array", "items": items, "contains": IF}}
    for kind, earned in (("a", 1), ("b", 0)):
        assert structure("json", listed, json.dumps({"a": [{"kind": kind, "n": 1}]})) == earned
    assert structure("json", listed, json.dumps({"a": [{"kind": "a", "n": 1, "z": 1}]})) == 0


def test_alternatives_that_alone_describe_an_object_are_closed() -> None:
    either = [{"type": "object", "properties": {name: {}}} for name in "ab"]
    schema = {"x": {"anyOf": either}}
    assert structure("json", schema, '{"x": {"a": 1}}') == 1
    assert structure("json", schema, '{"x": {"a": 1, "b": 1}}') == 0
