"""Rows and files at their edges: nothing is dropped or guessed, and no library's exception reaches a user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from kascade.cli import app
from kascade.data.byte_tokenizer import byte_tokenizer
from kascade.data.chat import ChatFormat
from kascade.data.json_text import JsonError, items, parse
from kascade.data.shapes import nemo_gym_rows
from kascade.environments.rows.tool_calls import ToolCall, gold_calls
from kascade.recipe.parts import DataSource
from kascade.task import Called, Task, final_answer

MATH = {"prompt": "1+1?", "expected_answer": "2"}


def checked(path: Path | str, *arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["data", "check", str(path), *arguments])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    text = " ".join((found.stdout + found.stderr).split())
    assert "Traceback" not in text
    return found.exit_code, text


def refused(path: Path | str, *said: str, environment: str = "math_with_judge") -> None:
    code, text = checked(path, "--environment", environment)
    assert code == 2, text
    assert [one for one in said if one.lower() not in text.lower()] == []


def lines(tmp_path: Path, *rows: Any, name: str = "r.jsonl") -> Path:
    file = tmp_path / name
    file.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows))
    return file


TURN = {"role": "user", "content": "u"}
SAID = {"role": "assistant", "content": "a"}


def test_an_older_function_call_is_a_tool_call(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "Well.", "function_call": {"name": "f", "arguments": '{"a": 1}'}}
    code, text = checked(lines(tmp_path, {"messages": [TURN, call]}))
    assert (code, "⟦Well.<tool_call><function=f>" in text) == (0, True)


def test_a_table_may_have_blanks_around_its_names(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt , expected_answer\nq,5\n")
    assert checked(tmp_path / "t.csv", "--environment", "math_with_judge")[0] == 0


def test_parquet_shows_no_other_tools_parameters_and_no_nan(tmp_path: Path) -> None:
    def row(name: str, parameter: str, value: int) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": name, "arguments": {parameter: value}}}
        schema = {"type": "object", "properties": {parameter: {"type": "integer"}}}
        tool = {"type": "function", "function": {"name": name, "parameters": schema}}
        turns = [{**TURN, "tool_calls": None}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        return {"messages": turns, "tools": [tool]}

    file = tmp_path / "t.parquet"
    parquet.write_table(arrow.Table.from_pylist([row("f", "a", 1), row("g", "b", 2)]), file)
    code, text = checked(file, "--model", "builtin://mini-nemotron-h")
    assert code == 0
    assert "<parameter=a>" in text and "<parameter=b>" not in text and '"b"' not in text
    missing = arrow.table({"prompt": ["q", "r"], "expected_answer": [float("nan"), 2.0]})
    parquet.write_table(missing, file)
    refused(file, "row 1 expected_answer", "missing")


def test_a_prompt_template_shows_no_null(tmp_path: Path) -> None:
    file = lines(tmp_path, {"a": "x", "b": None, "expected_answer": "1"})
    code, text = checked(file, "--environment", "math_with_judge", "--prompt", "{a} {b}")
    assert code == 2 and "r.jsonl:1 b" in text


def test_lists_in_json_are_read_item_by_item(tmp_path: Path) -> None:
    assert list(items(' [ {"a": [1, "]"]} , 2,"x" ] ')) == ['{"a": [1, "]"]}', "2", '"x"']
    for bad in ("{}", "[1 2]", "[1,", "[1", "", "[nope]"):
        with pytest.raises(JsonError):
            list(items(bad))
    assert parse(b"\xef\xbb\xbf{}") == {}
    file = tmp_path / "r.json"
    file.write_text(json.dumps([MATH, {"prompt": "q"}, 3]) + " x")
    refused(file, "r.json row 2", "r.json row 3", "int")
    file.write_text("[" + json.dumps(MATH) + ", {")
    refused(file, "r.json row 2", "not JSON")


def own_form(template: str) -> ChatFormat:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return ChatFormat(tokenizer)


BODY = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}CALLS<|im_end|>\n{% endfor %}"
BODY += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
JSON_CALLS = (
    "{% for c in m.tool_calls or [] %}{{ '\n<tool_call>\n' }}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}{{ '' }}"
)


@pytest.mark.parametrize("words", ["", "Well.", "hm</think>Well.", "hm</think>"])
def test_a_learnt_call_is_written_as_the_models_own_template_writes_it(words: str) -> None:
    call = gold_calls([ToolCall("f", {"a": 1}), ToolCall("g", {"b": "x"})], words)
    assert isinstance(final_answer(call), Called)
    task = Task("t", "tool_use", ({"role": "user", "content": "?"},), {})
    chat = own_form(BODY.replace("CALLS", JSON_CALLS))
    written = chat.decode(chat.completion_ids(task, call))
    opened = "<think>\n" if "</think>" in words else ""  # this template opens no think block
    assert written == opened + words + (
        '\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
        '\n<tool_call>\n{"name": "g", "arguments": {"b": "x"}}\n</tool_call>'
    )
    silent = own_form(BODY.replace("CALLS", ""))  # a template without calls: nothing is lost
    assert silent.decode(silent.completion_ids(task, call)) == opened + call
    shipped = ChatFormat(byte_tokenizer(), "nemotron-cascade-2")
    assert "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>" in shipped.learnt_text(call)


def test_a_template_that_refuses_a_row_is_an_error_of_that_row(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    for bad, said in (
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('No system here') }}{% endif %}",
            "No system",
        ),
        ("{% if messages[0].role == 'system' %}{{ messages[7].content }}{% endif %}", "to do:"),
        ("{% if messages[0].role == 'system' %}{{ 1 // 0 }}{% endif %}", "division"),
    ):
        tokenizer.chat_template = bad + byte_tokenizer().chat_template
        tokenizer.save_pretrained(str(tmp_path / "tok"))
        system = {"role": "system", "content": "s"}
        file = lines(tmp_path, {"messages": [system, TURN, SAID]}, {"messages": [TURN, SAID]})
        code, text = checked(file, "--model", str(tmp_path / "tok"))
        assert (
            code == 2 and "r.jsonl:1 chat template" in text and said in text and "r.jsonl:2 chat" not in text
        )


HUGE = {
    "one row": lambda: b'{"prompt": "' + b"a b, " * 10_000_000 + b'"}\n',
    "no line breaks": lambda: b"x" * 50_000_000,
    "many values": lambda: b'{"prompt": [' + b"{}," * 16_000_000 + b"{}]}\n",
    "open brackets": lambda: b"[" * 50_000_000,
    "faulty lines": lambda: b"x\n" * 25_000_000,
    "a list of nothing": lambda: b"[" + b"{}," * 16_000_000 + b"{}]",
    "digits": lambda: b'{"prompt": ' + b"9" * 50_000_000 + b"}",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGE)
def test_fifty_megabytes_of_nonsense_take_under_a_gigabyte_and_ten_seconds(name: str, tmp_path: Path) -> None:
    file = tmp_path / ("r.json" if "list" in name else "r.jsonl")
    file.write_bytes(HUGE[name]())
    # VmHWM is this program's own peak; ru_maxrss would begin at the size of the process that started it.
    code = (
        "import sys\nfrom kascade.cli import app\n"
        f"try:\n    app(['data', 'check', {str(file)!r}])\n"
        "finally:\n    sys.stderr.writelines(line for line in open('/proc/self/status') if 'VmHWM' in line)\n"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    after = os.times()
    peak = int(done.stderr.decode().partition("VmHWM:")[2].split()[0])  # KiB
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 10 and peak < 2**20


def test_a_gold_answer_that_stands_for_none_is_reported(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "expected_answer": "proof" if n % 3 else str(n)} for n in range(30)]
    rows += [{"prompt": "x", "expected_answer": "n/a"}, {"prompt": "y", "expected_answer": "Yes"}]
    code, text = checked(lines(tmp_path, *rows), "--environment", "math_with_judge")
    assert code == 0
    assert "the gold answer 'proof' stands in 20 of 32 rows" in text
    assert "the gold answer 'n/a' stands in 1 of 32 rows" in text
    assert "'yes'" not in text


def test_turns_of_weight_zero_are_read_and_not_learnt(tmp_path: Path) -> None:
    turns = [TURN, {**SAID, "weight": 0}, TURN, {**SAID, "content": "b", "weight": 1}]
    file = lines(tmp_path, {"messages": turns}, {"messages": [TURN, {**SAID, "content": ""}]})
    code, text = checked(file)
    assert code == 2 and "r.jsonl:2 reference" in text and "nothing to learn" in text
    source = DataSource(environment="any", path="rows.jsonl", turns="all")
    assert [row["reference"]["content"] for row in nemo_gym_rows({"messages": turns}, source)] == ["b"]
