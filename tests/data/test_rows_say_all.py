"""Rows that say two things, or say one where no reader looked: all of it is read, or the row is refused."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from kascade.cli import app
from kascade.data.packed_tests import LARGEST, unpacked
from kascade.data.shapes import nemo_gym_rows
from kascade.environments.rows.nemo_gym import response_text
from kascade.recipe.parts import DataSource

ASKED = {"role": "user", "content": "q"}
SAID = {"role": "assistant", "content": "a"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": ""}}]}
CHOICE = {"question": "q", "answer": "A"}
CODE = {"question_content": "q", "public_test_cases": [{"input": "1", "output": "1"}]}
IFEVAL = {"prompt": "p", "instruction_id_list": ["punctuation:no_comma"]}
ISSUE = {"problem_statement": "p", "responses_create_params": {"input": []}}
DEEP = "[" * 100_000


def checked(path: Path, *arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["data", "check", str(path), *arguments])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, " ".join((found.stdout + found.stderr).split())


def call(arguments: str) -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return {"messages": [ASKED, {**CALL, "tool_calls": [{"type": "function", "function": function}]}]}


def by(layout: str, environment: str) -> tuple[str, ...]:
    return ("--layout", layout, "--environment", environment)


# the row, what the message must name, and how the row is read
TWICE = [
    ({"messages": [ASKED, SAID], "system": ["Be brief."]}, "system: is a list"),
    ({"messages": [{"role": "system", "content": "A"}, ASKED, SAID], "system": "B"}, "system: differs"),
    ({"messages": [{**ASKED, "from": "gpt"}, SAID]}, "messages[0]: has the role 'user' and is from 'gpt'"),
    ({"prompt": "x", "chosen": [ASKED, SAID], "rejected": [ASKED, SAID]}, "prompt: differs"),
    (
        {"prompt": "q", "chosen": [{"role": "system", "content": "S"}, ASKED, SAID], "rejected": "b"},
        "prompt: differs",
    ),
    (call('{"a": 1, "a": 2}'), "reference.arguments: a: stands twice"),
    (call('{"a": NaN}'), "reference.arguments: holds NaN"),
    (call(DEEP), "reference.arguments: is nested deeper"),
    ({"messages": [ASKED, {**SAID, "reasoning_content": {"text": "t"}}]}, "reasoning_content: is a dict"),
    ({"messages": [ASKED, {**SAID, "thinking": [{"type": "image"}]}]}, "thinking[0]: a part of type"),
    ({"prompt": "q", "completion": None}, "completion: is empty (null)"),
    ({"question": "q", "answer": None}, "answer: is empty (null)"),
    ({"text": "<|im_start|>user\nq"}, "text: a turn that <|im_start|> opens never ends"),
    (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": DEEP}]},
        "deeper",
    ),
]
LAID_OUT = [
    ({**CHOICE, "choices": ["a", "b"], "answer": "AB"}, "answer: 'AB'", ("--environment", "mcqa")),
    ({**CHOICE, "choices": ["a", "b"], "answer": True}, "answer: True", ("--environment", "mcqa")),
    ({**CHOICE, "choices": ["a", "b"], "answer": "²"}, "answer: '²'", ("--environment", "mcqa")),
    (
        {**CHOICE, "choices": ["a"] * 30, "answer": 28},
        "choices: a list of 2 to 26",
        ("--environment", "mcqa"),
    ),
    ({**CHOICE, "choices": ["a", None]}, "choices[1]: is missing (null)", by("multiple_choice", "mcqa")),
    ({"question": "q", "answer": float("nan")}, "answer: nan", by("math", "math_with_judge")),
    ({"question": "q", "answer": ["1"]}, "answer: ['1']", by("math", "math_with_judge")),
    ({"question": "q", "answer": True}, "answer: True", by("math", "math_with_judge")),
    ({**IFEVAL, "kwargs": 5}, "kwargs: is a int", by("ifeval", "instruction_following")),
    ({**IFEVAL, "kwargs": ["{"]}, "kwargs[0]: is not JSON", by("ifeval", "instruction_following")),
    ({**CODE, "public_test_cases": [{"input": "1"}]}, "{input, output}", by("live_code_bench", "code_gen")),
    ({**CODE, "metadata": "x"}, "metadata: is not JSON", by("live_code_bench", "code_gen")),
    ({**CODE, "metadata": [1]}, "metadata: an object", by("live_code_bench", "code_gen")),
    (
        {"question": [[ASKED], ["x"]], "ground_truth": [], "involved_classes": []},
        "question[1][0]: a message",
        by("bfcl_multi_turn", "tool_dialogues"),
    ),
    ({"input": "q", "outputs": [None]}, "outputs[0]: is missing", by("ruler", "ruler")),
    (
        {"documents": ["a", None], "question": "q", "answer": "x"},
        "documents[1]: is missing",
        by("document_qa", "lc_judge"),
    ),
    (
        {"instance_id": "i", "problem_statement": "p", "FAIL_TO_PASS": "[]", "relevant_file_contents": DEEP},
        "relevant_file_contents: is nested deeper",
        by("swe_bench", "swerl_gen"),
    ),
    (
        {**ISSUE, "responses_create_params": {"input": [], "metadata": {"instance_dict": 5}}},
        "instance_dict: an object",
        by("nemotron_cascade_2", "swe_agents"),
    ),
]


@pytest.mark.parametrize(("row", "said", "how"), [*((row, said, ()) for row, said in TWICE), *LAID_OUT])
def test_a_row_that_would_lose_something_is_refused_by_its_field(
    row: dict[str, Any], said: str, how: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    code, text = checked(tmp_path / "r.jsonl", *how)
    assert (code, "r.jsonl:1" in text, said in text) == (2, True, True), text


def test_blanks_and_names_of_turns_do_not_make_two_prompts() -> None:
    chosen = [{**ASKED, "content": "q\n", "name": "mara"}, SAID]
    row = {"prompt": " q", "chosen": chosen, "rejected": "b"}
    assert nemo_gym_rows(row, DataSource(environment="demonstrations", path="r"))


def test_a_prompt_template_names_columns_with_blanks_and_at_least_one(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("Question text,ans\nx,1\n")
    how = ("--environment", "math_with_judge", "--column", "expected_answer=ans", "--prompt")
    assert "[user] x in {R}?" in checked(tmp_path / "r.csv", *how, "{Question text} in {R}?")[1]
    code, text = checked(tmp_path / "r.csv", *how, "{question}?")
    assert (code, "is one of the row's: Question text, ans" in text) == (2, True), text


def test_cells_of_tables_may_hold_lists_as_python_writes_them(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(f'messages\n"{[ASKED, SAID]}"\n')
    assert "[user] q ⟦a⟧" in checked(tmp_path / "r.csv")[1]
    (tmp_path / "r.csv").write_text(f'messages\n"{DEEP}"\n')
    code, text = checked(tmp_path / "r.csv")
    assert (code, "messages: is nested deeper" in text) == (2, True), text


def test_dates_decimals_and_bytes_of_parquet_are_text(tmp_path: Path) -> None:
    columns = {
        "q": [b"How long"],
        "day": [datetime.date(2020, 1, 31)],
        "expected_answer": [decimal.Decimal("1.50")],
        "picture": [b"\xff\xd8"],
    }
    parquet.write_table(arrow.table(columns), tmp_path / "r.parquet")
    how = ("--environment", "math_with_judge", "--prompt")
    code, text = checked(tmp_path / "r.parquet", *how, "{q} on {day}?")
    assert (code, "[user] How long on 2020-01-31?" in text) == (0, True), text
    code, text = checked(tmp_path / "r.parquet", *how, "{picture}")
    assert (code, "row 1 prompt: shows what is no text" in text) == (2, True), text


def test_thinking_in_parts_is_kept(tmp_path: Path) -> None:
    turn = {**SAID, "reasoning_content": [{"type": "text", "text": "so "}, "it is"]}
    (tmp_path / "r.jsonl").write_text(json.dumps({"messages": [ASKED, turn]}) + "\n")
    assert "⟦so it is</think>a⟧" in checked(tmp_path / "r.jsonl")[1]


def test_an_answer_may_be_a_chat_completion() -> None:
    choice = {"message": {"role": "assistant", "content": "5", "reasoning_content": "so"}}
    assert response_text({"response": {"choices": [choice]}}) == "so</think>5"
    with pytest.raises(ValueError, match="several answers"):
        response_text({"response": {"choices": [choice, choice]}})
    with pytest.raises(ValueError, match="response: is a dict without an answer"):
        response_text({"response": {"id": "x"}})


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def test_packed_tests_are_read_without_unpickling_and_within_bounds() -> None:
    tests = [{"input": "1é", "output": "2"}]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert unpacked(packed(pickle.dumps(json.dumps(tests), protocol)), "t") == tests
    hostile = [
        pickle.dumps(print),
        pickle.dumps(["[]"]),
        b"\x80\x04\x8c\x02[]r\xff\xff\xff\x7f0.",  # a memo of two thousand million places
        b"",
        b"\x80\x04\x8c\xff",
    ]
    for data in (*map(packed, hostile), packed(bytes(LARGEST + 1)), "no base64", packed(pickle.dumps(DEEP))):
        with pytest.raises(ValueError, match="t: cannot be unpacked"):
            unpacked(data, "t")
