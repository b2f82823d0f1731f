r"""Further forms of the same answers, and further answers that only look the same, kind by kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kascade.environments import get_environment

ECHO = "print(input())"
FENCE = "```"


def rewards(name: str, row: dict[str, Any], *answers: str) -> list[float]:
    environment = get_environment(name)
    grades = environment.grade(
        environment.from_row({"responses_create_params": {"input": "q"}, **row}), answers
    )
    assert not [grade.error for grade in grades if grade.error]
    return [grade.reward for grade in grades]


def stdin(given: str, wanted: str, **more: Any) -> dict[str, Any]:
    return {"unit_tests": {"inputs": [given], "outputs": [wanted], "time_limit_secs": 5, **more}}


def differing(name: str, row: dict[str, Any], expected: dict[str, float]) -> dict[str, float]:
    """The answers whose reward is not the expected one, with what they earn."""
    found = dict(zip(expected, rewards(name, row, *expected), strict=True))
    return {answer: reward for answer, reward in found.items() if reward != expected[answer]}


FENCED = {
    f'{FENCE}python title="a.py"\n{ECHO}\n{FENCE}': 1,
    f"{FENCE}python {{linenos=true}}\n{ECHO}\n{FENCE}": 1,
    f"{FENCE}python:solution.py\n{ECHO}\n{FENCE}": 1,
    f"> {FENCE}python\n> {ECHO}\n> {FENCE}": 1,
    f">{FENCE}python\n>{ECHO}\n>{FENCE}": 0,
    f"\t{FENCE}python\n\t{ECHO}\n\t{FENCE}": 1,
    f"- {FENCE}python\n  {ECHO}\n  {FENCE}": 1,
    f"1) {FENCE}python\n   {ECHO}\n   {FENCE}": 1,
    f"* Step\n  - {FENCE}python\n    {ECHO}\n    {FENCE}": 1,
    f"{FENCE}python\n{ECHO}\n{FENCE} That is all.": 1,
    f"{FENCE}python\n{ECHO}\n{FENCE} That is all.\n{FENCE}text\n7\n{FENCE}": 1,
    f"{FENCE}python\nx = 1\n{FENCE}\n{FENCE}python\nprint(8)\n{FENCE}": 0,
    f"- {FENCE}\n  {ECHO}\n  {FENCE}": 0,
}


def test_a_program_is_found_in_quotes_lists_and_before_words() -> None:
    assert differing("code_gen", stdin("7\n", "7\n"), FENCED) == {}


@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
def test_only_plain_digits_write_a_number(tolerance: float) -> None:
    answers = {"print('5_')": 0, "print('\u0665')": 0, "print('0x5')": 0, "print('5.0')": 1, "print('+5')": 1}
    assert differing("code_gen", stdin("1\n", "5\n", float_tolerance=tolerance), answers) == {}


SHOWN_ALIKE = [
    r"\boxed{\color{red}5}", r"\boxed{\textcolor{red}{5}}", r"\boxed{\bm{5}}", r"\boxed{\boldsymbol{5}}",
    r"\boxed{\underline{5}}", r"\boxed{**5**}", r"\boxed{5~}", "\\boxed{5\\ }", r"\boxed{5\\}",
    r"\boxed{\hspace{1em}5}", r"\boxed{\phantom{1}5}", r"\boxed{5\quad}", r"\boxed{{5}}",
]  # fmt: skip


def test_how_an_answer_is_shown_does_not_change_it() -> None:
    assert differing("math_with_judge", {"expected_answer": "5"}, dict.fromkeys(SHOWN_ALIKE, 1)) == {}
    assert differing("math_with_judge", {"expected_answer": "6"}, dict.fromkeys(SHOWN_ALIKE, 0)) == {}


VALUES = [  # expected, given, equal
    ("1 1/2", "3/2", 1), ("3/2", "1 1/2", 1), ("1 1/2", r"1\frac{1}{2}", 1), ("-1 1/2", "-1.5", 1),
    ("11/2", "1 1/2", 0), (r"1\frac{1}{2}", r"\frac{11}{2}", 0), ("1 3/2", "1.5", 0),
    (r"5\text{ cm}^2", r"5\text{ cm}", 0), (r"5\text{ cm}^2", r"5\text{ square cm}", 1),
    (r"5\text{ cm}^2", r"5\,\mathrm{cm^2}", 1), (r"5\text{ cm}^3", r"5\text{ cm}^2", 0),
    (r"5\text{ m}^3", r"5\text{ cubic meters}", 1), (r"5\text{ cm}^2", "5", 1), ("5x^2", "5x", 0),
    ("1234", "1,2,3,4", 0), ("12", "1;2", 0), ("3", "3.0000000001", 0), ("10^{-20}", "0", 0),
    ("2^{100}", "2^{100}+1", 0), ("(1,2)", "(1,2.0000001)", 0), (r"\{1,2,3\}", r"\{1,2\}", 0),
    ("[0,1]", "(0,1)", 0), (r"\pm\sqrt{2}", r"\sqrt{2}", 0), (r"\frac{1}{2}x", r"\frac{1}{2x}", 0),
    ("1<x<2", "(1,2)", 1), ("1<x<2", "(1,3)", 0), (r"\sqrt[3]{8}", r"\sqrt{8}", 0), ("12:30", "1230", 0),
    (r"2\text{ hours}", r"2\text{ minutes}", 0), ("100000000000000000000", "100000000000000000001", 0),
]  # fmt: skip


def test_further_values() -> None:
    found = [
        rewards("math_with_judge", {"expected_answer": expected}, rf"\boxed{{{given}}}")[0]
        for expected, given, _ in VALUES
    ]
    assert [value for value, reward in zip(VALUES, found, strict=True) if reward != value[2]] == []


THOUGHTS = {
    r"<THINK>\boxed{5}": 0, r"<thinking>\boxed{5}": 0, r"<think >\boxed{5}": 0,
    r"<thinking>\boxed{4}</thinking>\boxed{5}": 1, r"<Think>a</Think>\boxed{5}": 1,
    r"\boxed{5}</THINK>\boxed{4}": 0, r"\boxed{5}<Thinking>\boxed{4}": 1,
}  # fmt: skip


def test_thinking_is_thinking_however_its_tag_is_spelt() -> None:
    assert differing("math_with_judge", {"expected_answer": "5"}, THOUGHTS) == {}


def repair(text: str) -> dict[str, Any]:
    tests = {"t": {"input": "1", "output": "2"}}
    instance = {"instance_id": "i", "FAIL_TO_PASS": '["t"]', "PASS_TO_PASS": "[]", "patch": ""}
    return {
        "mode": "eval",
        "metadata": {"relevant_file_contents": json.dumps({"f.py": text})},
        "instance": {**instance, "unit_tests": {"fn_name": "f", "tests": tests}},
    }


OLD, NEW = "    return x", "    return x + 1"
EDITS = {
    f"<<<<<<<< SEARCH\n{OLD}\n========\n{NEW}\n>>>>>>>> REPLACE": 1,
    f"<<<<< SEARCH\n{OLD}\n=====\n{NEW}\n>>>>> REPLACE": 1,
    f"<<<<<<< search\n{OLD}\n=======\n{NEW}\n>>>>>>> replace": 1,
    f"<<<<<<< SEARCH:\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE": 1,
    f"  <<<<<<< SEARCH\n  {OLD}\n  =======\n  {NEW}\n  >>>>>>> REPLACE": 1,
    f"  <<<<<<< SEARCH\n{OLD}\n  =======\n{NEW}\n  >>>>>>> REPLACE": 1,
    f"<<<<<<< SEARCH\n{OLD}\n=====\n{NEW}\n>>>>>>> REPLACE": 0,
    f"<<<<<<< SEARCH\n{OLD}\n=======\n{OLD}\n>>>>>>> REPLACE": 0,
}


@pytest.mark.parametrize("breaks", ["\n", "\r\n"])
def test_markers_of_an_edit_may_be_written_otherwise(breaks: str) -> None:
    row = repair(f"def f(x):\n{OLD}\n".replace("\n", breaks))
    assert differing("swerl_gen", row, EDITS) == {}


SINGLE = "single_step_tool_use_with_argument_comparison"


def call(value: str) -> str:
    body = f"<function=f>\n<parameter=a>\n{value}\n</parameter>\n</function>"
    return f"<tool_call>\n{body}\n</tool_call>"


def asked(schema: Any, gold: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"a": schema}, "$defs": {"S": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    action = {"type": "function_call", "name": "f", "arguments": json.dumps({"a": gold})}
    return {"responses_create_params": {"input": "q", "tools": [tool]}, "expected_action": action}


def called(schema: Any, gold: Any, expected: dict[str, float]) -> dict[str, float]:
    environment = get_environment(SINGLE)
    grades = environment.grade(environment.from_row(asked(schema, gold)), list(expected))
    pairs = zip(expected.items(), grades, strict=True)
    return {answer: grade.reward for (answer, wanted), grade in pairs if grade.reward != wanted}


OPEN = [{}, {"default": "x"}, {"not": {"type": "integer"}}, {"type": "any"}, {"type": "Optional[str]"}]


@pytest.mark.parametrize("schema", [*OPEN, {"if": {"const": "5"}, "then": {"type": "string"}}])
def test_an_argument_of_no_declared_type_may_be_text_or_not(schema: Any) -> None:
    assert called(schema, "5", {call("5"): 1, call("6"): 0}) == {}
    assert called(schema, 5, {call("5"): 1, call("6"): 0}) == {}
    assert called(schema, {"k": 1}, {call('{"k": 1}'): 1, call("{'k': 1}"): 1, call("k"): 0}) == {}


def test_numbers_in_pythons_spelling_are_read_where_numbers_are_declared() -> None:
    assert called({"type": "integer"}, 5, {call("+5"): 1, call("5"): 1, call("5_"): 0}) == {}
    assert (
        called({"type": "number"}, 0.5, {call(".5"): 1, call("+.5"): 1, call("5e-1"): 1, call("5."): 0}) == {}
    )
    assert called({"type": "string"}, "+5", {call("+5"): 1, call("5"): 0}) == {}


ONE = '{"name": "f", "arguments": {"a": "5"}}'
WRITTEN = {
    f"<tool_call>{ONE}": 1,
    f"<tool_call>[{ONE}]</tool_call>": 1,
    f'<tool_call>{{"type": "function", "function": {ONE}}}</tool_call>': 1,
    "<tool_call><function=f><parameter=a>5</parameter></function>": 1,
    "<tool_call><function=f><parameter=a>5</parameter>": 0,
    f"<tool_call>[{ONE}, {ONE}]</tool_call>": 0,
    f"<tool_call>{ONE[:-1]}</tool_call>": 0,
}


def test_a_call_may_be_in_a_list_under_function_or_end_the_answer() -> None:
    assert called({"type": "string"}, "5", WRITTEN) == {}


def test_a_csv_row_that_is_too_short_lacks_a_field() -> None:
    items = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
    row = {"schema_str": json.dumps({"type": "array", "items": items}), "schema_type": "csv"}
    answers = {"a,b\n1,x\n": 1, "a,b\n1,\n": 1, "a,b\n1\n": 0, "a,b\n1,x,y\n": 0}
    assert differing("structured_outputs", {**row, "response_mode": "text"}, answers) == {}
