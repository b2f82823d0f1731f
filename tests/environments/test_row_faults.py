"""Any row is read or refused by ValueError, whatever stands in its fields; what is read can be graded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kascade.environments import get_environment
from kascade.environments.instructions import INSTRUCTIONS

VALID: dict[str, dict[str, Any]] = {
    "instruction_following": {"instruction_id_list": ["count:numbers"], "kwargs": [{"N": 1}]},
    "ifbench": {
        "instruction_id_list": ["ratio:stop_words"],
        "kwargs": [{"percentage": 5}],
        "grading_mode": "binary",
    },
    "mcqa": {
        "options": [{"A": "x"}, {"B": "y"}],
        "expected_answer": "A",
        "grading_mode": "lenient_boxed",
        "template_metadata": {"output_regex": "x"},
    },
    "structured_outputs": {
        "schema_str": '{"type": "object"}',
        "schema_type": "json",
        "response_mode": "text",
        "tool_name": "save",
        "tool_payload_key": "data",
    },
    "math_with_judge": {"question": "1 + 1?", "expected_answer": "2", "convention": "boxed"},
    "bfcl": {"ground_truth": [{"f": {"p": ["x", ""]}}], "any_call": False},
    "single_step_tool_use_with_argument_comparison": {
        "expected_action": {"type": "function_call", "name": "f", "arguments": "{}"}
    },
    "tool_dialogues": {
        "user": {"script": []},
        "ground_truth": [[{"name": "f", "arguments": {}}]],
        "communicate": ["x"],
        "involved_classes": None,
    },
    "workplace_assistant": {"ground_truth": [{"name": "f", "arguments": "{}"}], "category": "x"},
    "ruler": {"expected_values": ["x"], "metric": "all", "task": "qa_1"},
    "lc_niah": {"expected_answer": '["x"]', "problem_type": "x", "question": "?"},
    "reasoning_gym": {"metadata": {"source_dataset": "chain_sum"}, "question": "?", "answer": "2"},
    "swerl_llm_judge": {
        "options": [{"A": "x"}, {"B": "y"}],
        "expected_answer": "A",
        "grading_mode": "strict",
    },
}
CALL = '<tool_call>{"name": "f", "arguments": {"p": "x"}}</tool_call>'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def read_and_grade(name: str, row: dict[str, Any]) -> None:
    environment = get_environment(name)
    try:
        task = environment.from_row({"responses_create_params": {"input": "Answer."}, **row})
    except ValueError as error:
        assert str(error)
        return
    for grade in environment.grade(task, ["", "x", r"\boxed{A}", "{}", "2", CALL]):
        assert grade.error is not None or 0 <= grade.reward <= 1


@pytest.mark.parametrize("name", VALID)
def test_a_sound_row_is_read(name: str) -> None:
    get_environment(name).from_row({"responses_create_params": {"input": "Answer."}, **VALID[name]})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(list(VALID)), value=JSON, data=st.data())
def test_a_field_may_hold_anything(name: str, value: Any, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from([*VALID[name], "responses_create_params", "verifier_metadata"]))
    read_and_grade(name, {**VALID[name], field: value})


ODD = (
    None,
    5,
    "x",
    [],
    ["x"],
    [5],
    [[]],
    [{}],
    {},
    {"a": 1},
    [None],
    {"tools": 5},
    {"input": "?", "tools": 5},
)


@pytest.mark.parametrize("name", VALID)
def test_a_field_of_another_type_is_refused_or_read(name: str) -> None:
    for field in (*VALID[name], "responses_create_params", "verifier_metadata", "metadata"):
        for value in ODD:
            read_and_grade(name, {**VALID[name], field: value})
            if isinstance(VALID[name].get(field), dict):
                for inner in VALID[name][field]:
                    read_and_grade(name, {**VALID[name], field: {**VALID[name][field], inner: value}})


@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(sorted(INSTRUCTIONS)), data=st.data())
def test_an_argument_may_hold_anything(name: str, data: st.DataObject) -> None:
    needs = (*INSTRUCTIONS[name].needs, "relation", "let_relation", "capital_relation", "postscript_marker")
    plausible = JSON | st.integers(0, 3) | st.sampled_from(["tea", "at least", "en"])
    arguments = {need: data.draw(plausible) for need in needs}
    read_and_grade("instruction_following", {"instruction_id_list": [name], "kwargs": [arguments]})


KEYWORDS = ("type", "properties", "items", "required", "anyOf", "allOf", "$ref", "pattern", "enum", "minimum")


@settings(max_examples=150, deadline=None)
@given(schema=st.dictionaries(st.sampled_from(KEYWORDS), JSON, max_size=4))
def test_a_schema_may_hold_anything(schema: dict[str, Any]) -> None:
    read_and_grade("structured_outputs", {"schema_str": json.dumps(schema)})
