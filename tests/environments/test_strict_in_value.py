r"""What an answer says twice, in another dialect or another spelling: generous in form, strict in value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kascade.data.json_text import python_literal
from kascade.environments import get_environment
from kascade.environments.schema_patterns import as_read_here
from kascade.task import Grade


def graded(name: str, row: dict[str, Any], *answers: str) -> list[Grade]:
    environment = get_environment(name)
    task = environment.from_row({"responses_create_params": {"input": "q"}, **row})
    grades = environment.grade(task, answers)
    assert not [grade.error for grade in grades if grade.error]
    return grades


def rewards(name: str, row: dict[str, Any], *answers: str) -> list[float]:
    return [grade.reward for grade in graded(name, row, *answers)]


def valid(part: dict[str, Any], *values: Any) -> list[float]:
    schema = {"type": "object", "properties": {"a": part}}
    row = {"schema_str": json.dumps(schema), "schema_type": "json"}
    return rewards("structured_outputs", row, *(json.dumps({"a": value}) for value in values))


# a pattern as JavaScript has it, what it takes and what it does not
PATTERNS = [
    ("^a$", "a", "a\n"),
    (r"^\S+@\S+$", "a@b", "a@b\n"),
    (r"^\d+$", "12", "\u0661"),
    (r"^\w+$", "a_1", "\u00e9"),
    (r"^[\w.]+$", "a.1", "\u00e9"),
    (r"^\p{L}+$", "\u00e9", "1"),
    (r"^(?<year>\d{4})-\k<year>$", "2020-2020", "2020-2021"),
    (r"^[\w-.]+$", "a-.b", "a/b"),
    (r"^[+-]?\d$", "-1", "*1"),
    (r"^[a-c-]$", "-", "d"),
    ("^[^]$", "\n", ""),
    (r"^\u{1F600}\u0041$", "\U0001f600A", "A"),
    (r"^\ud83d\ude00$", "\U0001f600", "\ufffd"),
    (r"^\cJ$", "\n", "J"),
    (r"^\/$", "/", "\\"),
    (r"^[[]$", "[", "]"),
    (r"^[$]\$$", "$$", "$"),
    (r"^(?P<a>x)(?i:Y)\Z", "xy", "Xy"),
]


@pytest.mark.parametrize(("pattern", "right", "wrong"), PATTERNS)
def test_patterns_of_schemas_mean_what_they_mean_in_javascript(pattern: str, right: str, wrong: str) -> None:
    assert valid({"type": "string", "pattern": pattern}, right, wrong) == [1, 0]
    strict = {
        "type": "object",
        "patternProperties": {pattern: {"type": "string"}},
        "additionalProperties": False,
    }
    row = {"schema_str": json.dumps(strict), "schema_type": "json"}
    answers = [json.dumps({name: "x"}) for name in (right, wrong)]
    assert rewards("structured_outputs", row, *answers) == [1, 0]


def test_what_both_languages_write_alike_stays_as_it_is() -> None:
    for pattern in (r"^[A-Z]{2,3}(?:-\d)?".replace(r"\d", "[0-9]"), r"a\.b|c", r"(?=x)x+?", r"\bword\b"):
        assert as_read_here(pattern) == pattern


@pytest.mark.parametrize("where", ["pattern", "patternProperties"])
def test_a_pattern_that_nobody_can_use_is_an_error_of_the_row(where: str) -> None:
    part: dict[str, Any] = {"pattern": "("} if where == "pattern" else {"patternProperties": {"(": {}}}
    with pytest.raises(ValueError, match=r"schema_str: pattern '\(' cannot be used"):
        valid({"items": part}, [])
    assert valid({"type": "object", "properties": {"pattern": {"const": "("}}}, {"pattern": "("}) == [1]


def test_a_schema_that_says_one_thing_twice_is_refused() -> None:
    row = {"schema_str": '{"type": "object", "type": "array"}', "schema_type": "json"}
    with pytest.raises(ValueError, match="type: stands twice"):
        rewards("structured_outputs", row, "{}")


def test_numbers_are_compared_as_they_are_written() -> None:
    assert valid({"multipleOf": 0.1}, 0.3, 0.35, 1e15) == [1, 0, 1]
    assert valid({"multipleOf": 0.01}, 19.99, 1.13, 19.995) == [1, 1, 0]
    assert valid({"multipleOf": 3}, 9007199254740993, 9007199254740992, "x") == [1, 0, 1]
    assert valid({"uniqueItems": True}, [1, 1.0], [{"x": 1}, {"x": 1.0}], [1, True, "1"]) == [0, 0, 1]


@pytest.mark.parametrize(
    ("kind", "text"),
    [("json", '{"a": 1}'), ("yaml", "a: 1"), ("toml", "a = 1"), ("xml", "<a>1</a>"), ("csv", "a\n1")],
)
def test_a_byte_order_mark_is_no_part_of_a_value(kind: str, text: str) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
    schema = {"type": "array", "items": schema} if kind == "csv" else schema
    row = {"schema_str": json.dumps(schema), "schema_type": kind}
    assert rewards("structured_outputs", row, f"\ufeff{text}", f"\ufeff\ufeff{text}x") == [1, 0]


TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}


def called(value: Any, *answers: str, kind: str | None = None) -> list[float]:
    properties = {"a": {"type": kind} if kind else {}}
    tool = {**TOOL, "parameters": {"type": "object", "properties": properties}}
    action = {"type": "function_call", "name": "f", "arguments": json.dumps({"a": value})}
    row = {"responses_create_params": {"input": "q", "tools": [tool]}, "expected_action": action}
    return rewards("single_step_tool_use_with_argument_comparison", row, *answers)


def elements(*values: str) -> str:
    parameters = "".join(f"<parameter=a>{value}</parameter>" for value in values)
    return f"<tool_call><function=f>{parameters}</function></tool_call>"


def test_an_argument_with_two_values_makes_no_call() -> None:
    assert called(5, elements("5"), elements("4", "5"), elements("5", "5"), kind="integer") == [1, 0, 1]
    bodies = ('{"a": 5}', '{"a": 4, "a": 5}', '{"a": 5, "a": 5}')
    texts = [f'<tool_call>{{"name": "f", "arguments": {body}}}</tool_call>' for body in bodies]
    assert called(5, *texts) == [1, 0, 1]
    objects = ('{"k": 1}', "{'k': 1}", '{"k": 2, "k": 1}', "{'k': 2, 'k': 1}")
    assert called({"k": 1}, *map(elements, objects), kind="object") == [1, 1, 0, 0]


def test_python_objects_with_a_key_twice_stay_text() -> None:
    assert python_literal("[{'a': 1}, {'a': 2}]") == [{"a": 1}, {"a": 2}]
    for text in ("{'a': 1, 'a': 2}", "[{'b': {1: 2, 1: 3}}]", "[f()]", "[" * 300, "{'a': set()}"):
        assert python_literal(text) == text


def test_tiny_numbers_are_not_all_the_same() -> None:
    assert called(1e-9, elements("1e-9"), elements("2e-9"), elements("0"), kind="number") == [1, 0, 0]
    assert called(0.0, elements("0"), elements("1e-7"), kind="number") == [1, 0]
    assert called(0.3, elements("0.30000000000000004"), elements("0.3001"), kind="number") == [1, 0]
    assert called(1e6, elements("1000000.0000001"), elements("1000000.1"), kind="number") == [1, 0]


def test_only_plain_digits_write_a_number_also_in_what_is_expected() -> None:
    for expected in ("1_000\n", "\u0661\u0660\u0660\u0660\n"):
        row = {"unit_tests": {"inputs": [""], "outputs": [expected], "time_limit_secs": 5}}
        assert rewards("code_gen", row, "print(1000)", f"print({expected.strip()!r})") == [0, 1]


MONEY = [  # expected, given, equal
    ("12", "\u20ac12", 1), ("12", "12 \u20ac", 1), ("\u20ac1,200", "1200", 1), ("12.50", "\u00a3 12.5", 1),
    ("\u20ac12", r"12\text{ euros}", 1), (r"\$12", r"12\text{ dollars}", 1), (r"\$12", "12", 1),
    ("\u20ac12", "\u00a312", 0), (r"\$12", "\u20ac12", 0), (r"\$12", r"12\text{ cents}", 0),
    ("\u20ac12", "13", 0),    ("5", "`5`", 1), ("5", "`6`", 0),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "given", "equal"), MONEY)
def test_sums_of_money_and_code_marks(expected: str, given: str, equal: float) -> None:
    assert rewards("math_with_judge", {"expected_answer": expected}, f"\\boxed{{{given}}}") == [equal]
