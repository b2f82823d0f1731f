"""Calls matched by arguments and by allowed values: right, wrong, malformed, and trying it on."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kascade.data.layouts import bfcl
from kascade.environments import get_environment
from kascade.environments.base import generate_tasks
from kascade.environments.rows.tool_calls import ToolCall, parse_tool_calls, render_tool_call
from kascade.environments.tools.call_matching import (
    matched_reward,
    max_matching,
    num_matched,
    same_argument,
    same_call,
)
from kascade.task import Task

SINGLE = "single_step_tool_use_with_argument_comparison"
BOTH = (SINGLE, "bfcl")
TOOLS = [
    {
        "type": "function",
        "name": "area",
        "parameters": {
            "type": "object",
            "properties": {
                "base": {"type": "integer"},
                "unit": {"type": "string"},
                "half": {"type": "boolean"},
            },
            "required": ["base"],
        },
    },
    {"type": "function", "name": "at", "parameters": {"properties": {"place": {"type": "string"}}}},
]


def task_of(environment: str, **fields: Any) -> Task:
    row = {"responses_create_params": {"input": "Do it.", "tools": TOOLS}, **fields}
    return get_environment(environment).from_row(row)


def action(*calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    made = [{"type": "function_call", "name": n, "arguments": json.dumps(a)} for n, a in calls]
    return made[0] if len(made) == 1 else {"type": "function_call_batch", "calls": made}


def said(*calls: tuple[str, dict[str, Any]]) -> str:
    return "\n".join(render_tool_call(name, arguments) for name, arguments in calls)


def rewards(task: Task, *answers: str) -> list[float]:
    grades = get_environment(task.environment).grade(task, answers)
    assert not any(grade.error for grade in grades)
    return [grade.reward for grade in grades]


@pytest.mark.parametrize("name", BOTH)
def test_references_grade_one_and_others_do_not(name: str) -> None:
    for task in generate_tasks(get_environment(name), split="test", count=16, seed=0):
        assert rewards(task, str(task.reference), "")[:2] == [1.0, 0.0]
        thinking = f"<think>{said(('weather', {'city': 'Rome'}))}</think>{task.reference}"
        spoilt = f"{task.reference}\n{said(('weather', {'city': 'Rome', 'day': 'Monday'}))}"
        assert rewards(task, thinking, spoilt) == [1.0, 0.0]


def test_single_step_compares_arguments() -> None:
    task = task_of(
        SINGLE, expected_action=action(("area", {"base": 10, "unit": "square metres", "half": True}))
    )
    right = said(("area", {"base": 10, "unit": "square metres", "half": True}))
    assert rewards(
        task,
        right,
        said(("area", {"base": 10, "unit": "metres, square", "half": True})),
        said(("area", {"base": 11, "unit": "square metres", "half": True})),
        said(("area", {"base": 10, "unit": "square metres", "half": 1})),
        said(("area", {"base": 10, "unit": "square metres"})),
        said(("area", {"base": 10, "unit": "square metres", "half": True, "more": 1})),
        said(("at", {"base": 10, "unit": "square metres", "half": True})),
        "I would call area with base 10.",
        f"<think>{right}</think>",
        right.replace("</function>", ""),
        right + right,
        right.replace("</tool_call>", ""),  # the end of the answer ends its last call
    ) == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_a_number_in_a_text_argument_stays_text() -> None:
    task = task_of(SINGLE, expected_action=action(("at", {"place": "00000057"})))
    assert rewards(task, said(("at", {"place": "00000057"}))) == [1.0]
    task = task_of(SINGLE, expected_action=action(("at", {"place": "57"})))
    assert rewards(task, said(("at", {"place": "57"})), said(("at", {"place": "57.0"}))) == [1.0, 0.0]


def test_surplus_calls_pass_only_where_the_recipe_lets_them() -> None:
    environment = get_environment(SINGLE).with_options({"surplus": True})
    row = {"responses_create_params": {"input": "?", "tools": TOOLS}}
    task = environment.from_row({**row, "expected_action": action(("at", {"place": "x"}))})
    two = said(("at", {"place": "x"}), ("at", {"place": "y"}))
    assert [g.reward for g in environment.grade(task, [two])] == [1.0]
    assert rewards(task_of(SINGLE, expected_action=action(("at", {"place": "x"}))), two) == [0.0]


@pytest.mark.parametrize(("mode", "half"), [("binary_strict", 0.0), ("fractional", 0.5), ("f1", 0.5)])
def test_batches_by_mode_in_any_order(mode: str, half: float) -> None:
    environment = get_environment(SINGLE).with_options({"mode": mode})
    row = {"responses_create_params": {"input": "?", "tools": TOOLS}}
    a, b, c = (("at", {"place": place}) for place in "abc")
    task = environment.from_row({**row, "expected_action": action(a, b)})
    grades = environment.grade(task, [said(b, a), said(a, c), ""])
    assert [grade.reward for grade in grades] == [1.0, half, 0.0]


def test_a_message_is_expected_and_any_words_will_do() -> None:
    task = task_of(SINGLE, expected_action={"type": "message", "content": "Which one?"})
    assert rewards(task, "Which do you mean?", "", said(("at", {"place": "x"}))) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "bad", [None, {}, {"type": "x"}, {"type": "function_call"}, {"type": "function_call_batch", "calls": []},
            {"type": "function_call", "name": "f", "arguments": "["}],
)  # fmt: skip
def test_bad_actions_name_the_field(bad: Any) -> None:
    with pytest.raises(ValueError, match="expected_action"):
        task_of(SINGLE, expected_action=bad)
    with pytest.raises(ValueError, match=r"options\.mode"):
        get_environment(SINGLE).with_options({"mode": "most"}).pose(random.Random(0), 0)
    with pytest.raises(ValueError, match=r"options\.moods"):
        get_environment(SINGLE).with_options({"moods": "most"})


def test_bfcl_simple_multiple_parallel_and_irrelevant() -> None:
    allowed = {"area": {"base": [10], "unit": ["m²", "units", ""], "half": [True, ""]}}
    task = task_of("bfcl", ground_truth=[allowed])
    assert rewards(
        task,
        said(("area", {"base": 10})),
        said(("area", {"base": 10, "unit": "Units", "half": True})),
        said(("area", {"base": 10, "half": False})),
        said(("area", {"base": 10.0})),
        said(("area", {"base": "10"})),
        said(("area", {"unit": "units"})),
        said(("area", {"base": 10, "height": 3})),
        said(("at", {"place": "x"})),
    ) == [1, 1, 0, 0, 1, 0, 0, 0]
    both = task_of("bfcl", ground_truth=[{"at": {"place": ["New York"]}}, {"at": {"place": ["Oslo"]}}])
    assert rewards(both, said(("at", {"place": "oslo"}), ("at", {"place": "new york"}))) == [1.0]
    assert rewards(both, said(("at", {"place": "Oslo"}), ("at", {"place": "Oslo"}))) == [0.0]
    none = task_of("bfcl", ground_truth=[])
    assert rewards(none, "None of these helps.", said(("at", {"place": "x"})), "") == [1.0, 0.0, 0.0]


def test_bfcl_reads_its_own_rows() -> None:
    row = {
        "id": "simple_0",
        "question": [[{"role": "user", "content": "Area of base 10?"}]],
        "function": [
            {"name": "area", "parameters": {"type": "dict", "properties": {"base": {"type": "float"}}}}
        ],
        "ground_truth": [{"area": {"base": [10]}}],
    }
    task = get_environment("bfcl").from_row(row)
    assert task.tools[0]["name"] == "area"
    assert rewards(task, said(("area", {"base": 10})), said(("area", {"base": 10.0}))) == [1.0, 1.0]


def bfcl_row(category: str, **more: Any) -> Task:
    row = bfcl(
        {
            "id": f"{category}_0-0-0",
            "question": [[{"role": "user", "content": "Area of base 10?"}]],
            "function": [{"name": f["name"], "parameters": f["parameters"]} for f in TOOLS],
            **more,
        }
    )
    return get_environment("bfcl").from_row(
        {**row, "responses_create_params": {"input": row["prompt"], "tools": row["tools"]}}
    )


def test_bfcl_relevance_wants_any_call_and_irrelevance_none() -> None:
    answers = (
        said(("area", {"base": 3})),
        said(("area", {"base": 3}), ("at", {"place": "x"})),
        said(("volume", {"base": 3})),  # no function of the row
        "I would call area(base=3).",
        "<tool_call><function=area>",
        f"<think>{said(('area', {'base': 3}))}</think>No.",
        "",
    )
    assert rewards(bfcl_row("live_relevance"), *answers) == [1, 1, 0, 0, 0, 0, 0]
    for category in ("irrelevance", "live_irrelevance"):
        assert rewards(bfcl_row(category), *answers) == [0, 0, 0, 1, 1, 1, 0]
    with pytest.raises(ValueError, match="ground_truth"):
        bfcl_row("live_simple")
    with pytest.raises(ValueError, match="any_call"):
        task_of("bfcl", any_call="yes")
    with pytest.raises(ValueError, match="any_call"):
        task_of("bfcl", any_call=True, ground_truth=[{"area": {"base": [1]}}])
    with pytest.raises(ValueError, match="bfcl_multi_turn"):
        bfcl_row("multi_turn_base", involved_classes=["MathAPI"])


def test_bfcl_takes_a_variables_name_and_what_xml_cannot_tell() -> None:
    parameters = {
        "properties": {"data": {"type": "array"}, "flag": {"type": "string"}, "key": {"type": "any"}},
        "required": ["flag"],
    }
    row = {"responses_create_params": {"input": "?", "tools": [{"name": "f", "parameters": parameters}]}}
    allowed = {"data": ["rows", ""], "flag": [True, ""], "key": ["42", ""]}
    task = get_environment("bfcl").from_row({**row, "ground_truth": [{"f": allowed}]})
    assert task.reference is not None and "flag" in task.reference  # required, though it may be left out
    assert rewards(
        task,
        task.reference,
        said(("f", {"data": "rows", "flag": True, "key": 42})),
        said(("f", {"data": ["rows"], "flag": True})),
        said(("f", {"flag": "yes"})),
        said(("f", {"flag": True, "key": 43})),
        said(("f", {"data": "rows"})),
    ) == [1, 1, 0, 0, 0, 0]


def test_bfcl_gold_calls_are_written_as_one_would() -> None:
    conditions = [[{"field": ["age"], "value": ["25", ""]}]]
    task = task_of("bfcl", ground_truth=[{"query": {"where": conditions, "limit": [], "order": [""]}}])
    assert task.reference is not None and '[{"field": "age", "value": "25"}]' in task.reference


def test_matching_finds_pairs_that_greed_would_miss() -> None:
    assert max_matching([[0, 1], [0]]) == {0: 1, 1: 0}
    loose, strict = ToolCall("f", {"t": "a b c"}), ToolCall("f", {"t": "a b"})
    actual = [ToolCall("f", {"t": "a b"}), ToolCall("f", {"t": "a b c"})]
    assert num_matched([loose, strict], actual, lambda e, a: same_call(e, a, 0.4)) == 2
    assert matched_reward(1, 2, 2, "f1") == 0.5 and matched_reward(0, 0, 0, "f1") == 0.0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(values, values)
@example(math.inf, None)
@example(1.5, 10**400)
def test_arguments_equal_themselves_and_comparison_never_fails(one: Any, other: Any) -> None:
    assert same_argument(one, one, 0.1)
    assert same_argument(one, other, 0.1) in (True, False)
    if type(one) is not type(other) and not isinstance(one, float):
        assert not same_argument(one, other, 0.1)


@settings(max_examples=50, deadline=None)
@given(
    st.text() | st.text().map(lambda text: f"<tool_call><function=area>{text}</function></tool_call>"), values
)
def test_no_answer_breaks_a_grader(text: str, value: Any) -> None:
    single = task_of(SINGLE, expected_action=action(("area", {"base": 10})))
    bfcl = task_of("bfcl", ground_truth=[{"area": {"base": [10]}}])
    body = f"<tool_call>{json.dumps({'name': 'area', 'arguments': {'base': value}})}</tool_call>"
    for task in (single, bfcl):
        assert rewards(task, text, body)[0] == 0.0


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), values, max_size=3))
def test_rendered_calls_read_back(arguments: dict[str, Any]) -> None:
    properties = {k: {"type": "string" if isinstance(v, str) else "object"} for k, v in arguments.items()}
    plain = all("\n" not in v and "</parameter>" not in v for v in arguments.values() if isinstance(v, str))
    (call,) = parse_tool_calls(
        render_tool_call("f", arguments), [{"name": "f", "parameters": {"properties": properties}}]
    ) or [None]
    if plain and call is not None and "<" not in json.dumps(arguments):
        assert json.dumps(call.arguments, sort_keys=True) == json.dumps(arguments, sort_keys=True)
