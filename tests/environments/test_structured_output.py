"""Structured output in five formats and as tool calls, and what must not pass or hang."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.environments import Task, get_environment
from kascade.environments.rows.tool_calls import render_tool_call
from kascade.environments.structured_output.strict import strict_schema
from kascade.task import Grade

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "open": {"type": ["boolean", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
FLAT: dict[str, Any] = {
    "type": "array",
    "items": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}},
}
KINDS = ("json", "yaml", "xml", "toml", "csv")


def task(schema: Any, kind: str = "json", **fields: Any) -> Task:
    row = {
        "responses_create_params": {"input": "Fill it in."},
        "schema_str": json.dumps(schema),
        "schema_type": kind,
    }
    return get_environment("structured_outputs").from_row({**row, **fields})


def graded(posed: Task, answer: str) -> Grade:
    (grade,) = get_environment("structured_outputs").grade(posed, [answer])
    return grade


def fault(grade: Grade) -> str | None:
    """The error type of a grade."""
    assert grade.error is None, grade.error
    return next((name.split("/")[1] for name in grade.components if "/" in name), None)


ROOTED = {"type": "object", "properties": {"person": PERSON}}
ROWS = [  # format, schema, answer, error type
    ("json", PERSON, '{"name": "A", "age": 3, "open": null, "tags": []}', None),
    ("json", PERSON, '```json\n{"name": "A", "age": 3, "open": true, "tags": ["x"]}\n```', None),
    ("json", PERSON, '{"name": "A", "age": 3, "open": null, "tags": []} Hope it helps!', "parse_error"),
    ("json", PERSON, 'Here: {"name": "A", "age": 3, "open": null, "tags": []}', "parse_error"),
    ("json", PERSON, '{"name": "A", "name": "B", "age": 3, "open": null, "tags": []}', "parse_error"),
    ("json", PERSON, '{"name": "A", "age": NaN, "open": null, "tags": []}', "parse_error"),
    ("json", PERSON, '{"name": "A", "age": "3", "open": null, "tags": []}', "validation_error"),
    ("json", PERSON, '{"name": "A", "age": 3, "open": null}', "validation_error"),
    ("json", PERSON, '{"name": "A", "age": 3, "open": null, "tags": [], "more": 1}', "validation_error"),
    ("json", PERSON, '{“name”: “A”}', "parse_error"),
    ("json", PERSON, " \n", "empty_response"),
    ("json", PERSON, '{"name": "A", "age": 3, "open": null, "tags": []}</think>', "empty_response"),
    ("yaml", PERSON, "name: A\nage: 3\nopen: null\ntags:\n- x\n- y\n", None),
    ("yaml", PERSON, "```yml\nname: A\nage: 3\nopen: no\ntags: []\n```", None),
    ("yaml", PERSON, "name: 2024-01-01\nage: 3\nopen: null\ntags: []\n", None),  # no date in YAML 1.2
    ("yaml", PERSON, "name: 7\nage: 3\nopen: null\ntags: []\n", "validation_error"),
    ("yaml", PERSON, "name: A\nage: 3\nage: 4\nopen: null\ntags: []\n", "parse_error"),
    ("yaml", PERSON, "name: [A\nage: 3", "parse_error"),
    ("yaml", PERSON, "name: !!python/object/apply:os.system [id]\nage: 3\n", "parse_error"),
    ("yaml", PERSON, "1: A\n", "parse_error"),
    ("yaml", PERSON, "age: .nan\n", "parse_error"),
    ("xml", ROOTED, "<person><name>A</name><age>3</age><open/><tags><t>x</t><t>y</t></tags></person>", None),
    ("xml", ROOTED, "<person><name/><age>3</age><open>1</open><tags>x</tags><tags>y</tags></person>", None),
    ("xml", ROOTED, "<person><name>A</name><age>three</age><open/><tags/></person>", "validation_error"),
    ("xml", ROOTED, '<person id="1"><name>A</name><age>3</age><open/><tags/></person>', "validation_error"),
    ("xml", ROOTED, "<person><name>A</name></person> Done.", "parse_error"),
    ("toml", PERSON, 'name = "A"\nage = 3\nopen = true\ntags = ["x"]\n', None),
    ("toml", PERSON, 'name = "A"\nage = 3.0\nopen = true\ntags = []\n', None),  # 3.0 is an integer
    ("toml", PERSON, 'name = "A"\nname = "B"\n', "parse_error"),
    ("toml", PERSON, "age = nan\n", "parse_error"),
    ("csv", FLAT, 'name,age\n"A, B",3\nC,4\n', None),
    ("csv", FLAT, "name,age\nA\n", "validation_error"),
    ("csv", FLAT, "name,age\nA,3,4\n", "parse_error"),
    ("csv", FLAT, "name,name\nA,3\n", "parse_error"),
    ("csv", FLAT, "name,age\nA,\uff13\n", "validation_error"),  # a full-width digit
]  # fmt: skip


@pytest.mark.parametrize(("kind", "schema", "answer", "error_type"), ROWS)
def test_formats(kind: str, schema: Any, answer: str, error_type: str | None) -> None:
    grade = graded(task(schema, kind), answer)
    assert fault(grade) == error_type
    assert grade.reward == float(error_type is None)
    assert grade.components["parsed"] == float(error_type in (None, "validation_error"))


LAUGHS = "\n".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))


def doubled(form: str) -> str:
    """Nine lines of YAML, each ten times the one before."""
    return "".join(f"a{n + 1}: &a{n + 1} " + form.format(", ".join([f"*a{n}"] * 10)) + "\n" for n in range(9))


BOMBS = {
    "json nesting": ("json", "[" * 100_000),
    "json closed nesting": ("json", "[" * 5_000 + "]" * 5_000),
    "json digits": ("json", "9" * 100_000),
    "yaml flow": ("yaml", "[" * 100_000),
    "yaml block": ("yaml", "- " * 50_000),
    "yaml aliases": ("yaml", "a0: &a0 [x]\n" + doubled("[{}]")),
    "yaml merges": ("yaml", "a0: &a0 {x: 1}\n" + doubled("{{<<: [{}]}}")),
    "yaml circle": ("yaml", "&a [*a]"),
    "xml entities": ("xml", f'<!DOCTYPE r [<!ENTITY e0 "ha">{LAUGHS}]><r>&e9;</r>'),
    "xml outside": ("xml", '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>'),
    "xml nesting": ("xml", "<a>" * 50_000),
    "toml nesting": ("toml", "a = " + "[" * 50_000),
    "toml dots": ("toml", "a" + ".a" * 20_000 + " = 1"),
    "toml quoted dots": ("toml", '"a"' + '."a"' * 20_000 + " = 1"),
    "toml tables": ("toml", "[[a]]\n" * 20_000),
    "toml inline": ("toml", "a = {b = " * 20_000),
    "csv field": ("csv", "a\n" + "x" * 1_000_000),
    "csv quotes": ("csv", '"' * 200_000),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_zero_at_once(name: str) -> None:
    kind, answer = BOMBS[name]
    start = time.process_time()
    grade = graded(task(PERSON, kind), answer)
    assert grade.error is None
    assert grade.reward == 0
    assert time.process_time() - start < 5


def test_tool_calls_name_what_is_wrong() -> None:
    wrapped = task(PERSON, response_mode="tool_call", tool_name="save", tool_payload_key="extraction")
    person = {"name": "A", "age": 3, "open": None, "tags": []}
    right = render_tool_call("save", {"extraction": person})
    broken = '<tool_call>{"name": "save", "arguments": {"extraction": NaN}}</tool_call>'
    cases = {
        right: None,
        f"I will.\n{right}": None,
        right + right: "multiple_tool_calls",
        render_tool_call("load", {"extraction": person}): "wrong_tool_name",
        render_tool_call("save", person): "missing_tool_payload_key",
        render_tool_call("save", {"extraction": {**person, "x": 1}}): "validation_error",
        json.dumps(person): "missing_tool_call",
        right.replace("</function>", ""): "tool_arguments_parse_error",
        broken: "tool_arguments_parse_error",
        f"{right}</think>": "empty_response",
    }
    assert {answer: fault(graded(wrapped, answer)) for answer in cases} == cases


def test_text_parameters_may_look_like_numbers() -> None:
    schema = {"type": "object", "properties": {"zip": {"type": "string"}, "age": {"type": "integer"}}}
    direct = task(schema, response_mode="tool_call", tool_name="save")
    assert graded(direct, render_tool_call("save", {"zip": "90210", "age": 3})).reward == 1
    assert (
        graded(
            direct, '<tool_call>{"name": "save", "arguments": {"zip": 90210, "age": 3}}</tool_call>'
        ).reward
        == 0
    )


def test_the_schema_is_made_strict_where_it_is_a_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "properties": {"type": "object", "properties": {"a": {}}},
            "kind": {"enum": [{"properties": {}}]},
            "either": {"anyOf": [{"type": "object", "properties": {"b": {}}}, {"type": "null"}]},
        },
        "required": ["kind"],
    }
    strict = strict_schema(schema)
    assert strict["required"] == ["either", "kind", "properties"]
    assert strict["properties"]["properties"]["additionalProperties"] is False
    assert strict["properties"]["kind"] == schema["properties"]["kind"]
    assert strict["properties"]["either"]["anyOf"][0]["required"] == ["b"]
    good = {"properties": {"a": 1}, "kind": {"properties": {}}, "either": None}
    assert graded(task(schema), json.dumps(good)).reward == 1


def test_a_schema_that_cannot_be_used_is_an_error_and_not_a_zero() -> None:
    slow = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    grade = graded(task(slow), json.dumps({"a": "a" * 5_000 + "!"}))
    assert grade.error is not None or grade.reward == 0  # an engine may see through the pattern
    slow["properties"] = {"a": {"type": "string", "pattern": "(a+)" * 9 + r"\1b"}}
    assert "took longer" in str(graded(task(slow), json.dumps({"a": "a" * 200})).error)
    elsewhere = {"type": "object", "properties": {"a": {"$ref": "https://example.com/schema.json"}}}
    assert "example.com" in str(graded(task(elsewhere), '{"a": 1}').error)
    for schema_str in ("[", "3", '{"type": "strin"}', '{"pattern": "("}'):
        with pytest.raises(ValueError, match="schema_str"):
            get_environment("structured_outputs").from_row(
                {"responses_create_params": {"input": "x"}, "schema_str": schema_str}
            )


def test_unique_items_are_compared_in_linear_time() -> None:
    schema = {"type": "array", "uniqueItems": True}
    start = time.process_time()
    assert graded(task(schema), json.dumps([{"n": n} for n in range(30_000)])).reward == 1
    assert graded(task(schema), json.dumps([{"n": 1, "m": 2}, {"m": 2, "n": 1}])).reward == 0
    assert time.process_time() - start < 10


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(value=PLAIN)
def test_whatever_json_holds_is_valid_under_an_open_schema(value: Any) -> None:
    assert graded(task({}), json.dumps(value)).reward == 1


PIECES = [*'{}[]:,1\t#%é"\x00', "'", "\n", '"a"', "null", "- ", "a: ", "&x ", "*x", "<a>", "</a>", "<a/>",
          "<!--", "]]>", "= ", "[[a]]", "!!", "? ", "| ", "<<: "]  # fmt: skip
FRAGMENTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@settings(max_examples=400, deadline=None)
@given(answer=st.text(max_size=60) | FRAGMENTS, kind=st.sampled_from(KINDS))
def test_no_answer_crashes_a_reader(answer: str, kind: str) -> None:
    grade = graded(task(PERSON if kind != "csv" else FLAT, kind), answer)
    assert grade.error is None
    assert grade.reward in (0, 1)
