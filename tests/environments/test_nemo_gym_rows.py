"""Published NeMo-Gym rows, where they lie beside the checkout; our own rows cover the same ground."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kascade.environments import get_environment
from kascade.environments.rows.tool_calls import render_tool_call

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "nemo-gym"
SERVERS = (
    "instruction_following",
    "ifbench",
    "mcqa",
    "structured_outputs",
    "math_with_judge",
    "lc_niah",
    "code_gen",
)


@pytest.mark.parametrize("server", SERVERS)
def test_published_rows_load_and_an_empty_answer_earns_nothing(server: str) -> None:
    files = sorted((PUBLISHED / server).glob("*.jsonl"))
    if not files:
        pytest.skip(f"NOT RUN: no published NeMo-Gym rows of {server} beside the checkout")
    environment = get_environment(server)
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        (grade,) = environment.grade(environment.from_row(row), [""])
        assert grade.error is None, grade.error
        assert grade.reward == 0


def test_a_tool_call_row_is_graded_by_its_payload() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "year": {"type": "integer"}}}
    row = {
        "responses_create_params": {
            "input": [
                {"role": "system", "content": "Use the tool."},
                {"role": "user", "content": "Oslo, 1048"},
            ],
            "tools": [{"type": "function", "name": "answer", "parameters": schema}],
        },
        "schema_str": json.dumps(schema),
        "schema_type": "json",
        "response_mode": "tool_call",
        "tool_name": "answer",
        "tool_payload_key": None,
    }
    environment = get_environment("structured_outputs")
    task = environment.from_row(row)
    right = render_tool_call("answer", {"city": "Oslo", "year": 1048})
    as_json = '<tool_call>{"name": "answer", "arguments": {"city": "Oslo", "year": 1048}}</tool_call>'
    lacking = right.replace("<parameter=year>1048</parameter>", "")
    assert [g.reward for g in environment.grade(task, [right, as_json, lacking, "Oslo"])] == [1, 1, 0, 0]


def test_instruction_rows_are_read_in_both_places() -> None:
    fields = {
        "instruction_id_list": ["keywords:existence", "punctuation:no_comma"],
        "kwargs": [{"keywords": ["tea"]}, None],
    }
    params = {"responses_create_params": {"input": "Write."}}
    environment = get_environment("instruction_following")
    older = environment.from_row({**params, **fields})
    newer = environment.from_row({**params, "verifier_metadata": {**fields, "grading_mode": "fraction"}})
    answers = ["I like tea.", "I like tea, a lot.", "No."]
    assert [g.reward for g in environment.grade(older, answers)] == [1, 0, 0]
    assert [g.reward for g in environment.grade(newer, answers)] == [1, 0.5, 0.5]
