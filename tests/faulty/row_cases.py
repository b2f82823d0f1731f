"""Faulty rows of every kind of environment and reader, and what the message about each must name.

Each is a file and the arguments of `kascade data check`. The first row of a JSONL file is sound, the second
is not, so messages must name line 2.
"""

# ruff: noqa: E501 (a case is one line)

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Write = Callable[[Path], None]
ABSENT = object()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@dataclass(frozen=True)
class Case:
    """file: its name in an empty folder. write: makes it. said: what the message must hold, in any case."""

    name: str
    file: str
    write: Write
    said: tuple[str, ...]
    arguments: tuple[str, ...] = ()


def _bytes(data: bytes) -> Write:
    return lambda path: _keep(path, data)


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _line(row: Any) -> bytes:
    if isinstance(row, bytes):
        return row + b"\n"
    return (row if isinstance(row, str) else json.dumps(row)).encode() + b"\n"


# Rows in the form of each environment: what is changed, and the field that the message must name.

ASKED: dict[str, Any] = {"responses_create_params": {"input": "What is it?"}}
TOOL = {
    "type": "function",
    "name": "f",
    "parameters": {"type": "object", "properties": {"p": {"type": "string"}}},
}
WITH_TOOL: dict[str, Any] = {"responses_create_params": {"input": "What is it?", "tools": [TOOL]}}
REPAIR = {
    "instance": {
        "instance_id": "i",
        "FAIL_TO_PASS": '["t"]',
        "PASS_TO_PASS": "[]",
        "unit_tests": {"fn_name": "f", "tests": {"t": {"input": "1", "output": "2"}}},
    },
    "metadata": {"relevant_file_contents": '{"a.py": "def f(x):\\n    return x\\n"}'},
    "mode": "eval",
}
ISSUE = {
    "files": {"a.py": "x = 1\n"},
    "FAIL_TO_PASS": '["t"]',
    "PASS_TO_PASS": "[]",
    "tests": {"t": {"module": "a", "function": "f", "arguments": [], "output": 1}},
}
SOUND: dict[str, dict[str, Any]] = {
    "mcqa": {**ASKED, "options": [{"A": "x"}, {"B": "y"}], "expected_answer": "A"},
    "instruction_following": {
        **ASKED,
        "instruction_id_list": ["count:numbers"],
        "kwargs": [{"N": 1}],
        "grading_mode": "binary",
    },
    "ifbench": {**ASKED, "instruction_id_list": ["ratio:stop_words"], "kwargs": [{"percentage": 5}]},
    "structured_outputs": {**ASKED, "schema_str": '{"type": "object"}', "schema_type": "json", "response_mode": "text"},
    "math_with_judge": {**ASKED, "question": "1 + 1?", "expected_answer": "2"},
    "code_gen": {**ASKED, "verifier_metadata": {"unit_tests": {"inputs": ["1"], "outputs": ["2"]}}},
    "competitive_coding_challenges": {**ASKED, "verifier_metadata": {"unit_tests": {"inputs": ["1"], "outputs": ["2"]}}},
    "swerl_gen": {**ASKED, **REPAIR},
    "swerl_llm_judge": {**ASKED, "options": [{"A": "x"}, {"B": "y"}], "expected_answer": "A", "instance_id": "i"},
    "bfcl": {**WITH_TOOL, "ground_truth": [{"f": {"p": ["x"]}}]},
    "single_step_tool_use_with_argument_comparison": {
        **WITH_TOOL,
        "expected_action": {"type": "function_call", "name": "f", "arguments": '{"p": "x"}'},
    },
    "workplace_assistant": {**WITH_TOOL, "ground_truth": [{"name": "f", "arguments": "{}"}], "category": "x"},
    "tool_dialogues": {**WITH_TOOL, "user": {"script": []}, "ground_truth": [[{"name": "f", "arguments": {}}]]},
    "ruler": {**ASKED, "expected_values": ["x"], "metric": "all"},
    "lc_niah": {**ASKED, "expected_answer": '["x"]', "problem_type": "x"},
    "reasoning_gym": {**ASKED, "metadata": {"source_dataset": "chain_sum"}, "question": "?", "answer": "2"},
    "equivalence_llm_judge": {**ASKED, "expected_answer": "x"},
    "genrm_compare": {**ASKED, "chosen": "a", "rejected": "b"},
    "math_with_code": {**ASKED, "expected_result": "2"},
    "ns_tools": {**ASKED, "verifier_type": "math", "expected_answer": "2"},
    "swe_agents": {
        "responses_create_params": {
            "input": [],
            "metadata": {"problem_statement": "It fails.", "instance_dict": json.dumps(ISSUE)},
        }
    },
    "demonstrations": {**ASKED, "reference": "It is so."},
}  # fmt: skip


def _issue(**changes: Any) -> dict[str, Any]:
    changed = {key: value for key, value in {**ISSUE, **changes}.items() if value is not ABSENT}
    metadata = {"problem_statement": "It fails.", "instance_dict": json.dumps(changed)}
    return {"responses_create_params": {"input": [], "metadata": metadata}}


def _tests(**changes: Any) -> dict[str, Any]:
    tests = {"inputs": ["1"], "outputs": ["2"], **changes}
    return {"verifier_metadata": {"unit_tests": {k: v for k, v in tests.items() if v is not ABSENT}}}


def _instance(**changes: Any) -> dict[str, Any]:
    instance = {**REPAIR["instance"], **changes}  # type: ignore[dict-item]
    return {"instance": {k: v for k, v in instance.items() if v is not ABSENT}}


FIELDS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "mcqa": [
        ({"expected_answer": "C"}, "expected_answer"),
        ({"expected_answer": ABSENT}, "expected_answer"),
        ({"expected_answer": None}, "expected_answer"),
        ({"expected_answer": ["A"]}, "expected_answer"),
        ({"expected_answer": 1}, "expected_answer"),
        ({"options": []}, "options"),
        ({"options": [{"A": "x"}]}, "options"),
        ({"options": "A: x, B: y"}, "options"),
        ({"options": ["x", 5]}, "options"),
        ({"options": [{"A": None}, {"B": "y"}], "expected_answer": "B"}, "options"),
        ({"options": [{"A": "x"}, {"A": "z"}, {"B": "y"}]}, "options"),
        ({"options": [{"A": "x"}, {"a": "z"}, {"B": "y"}]}, "options"),
        ({"options": [{"A": {"text": "x"}}, {"B": "y"}]}, "options"),
        ({"grading_mode": "letters"}, "grading_mode"),
        ({"grading_mode": ["lenient_boxed"]}, "grading_mode"),
        ({"template_metadata": "x"}, "template_metadata"),
        ({"template_metadata": {"output_regex": "("}}, "template_metadata.output_regex"),
        ({"template_metadata": {"output_regex": [5]}}, "template_metadata.output_regex"),
        ({"template_metadata": {"output_regex": {"a": 1}}}, "template_metadata.output_regex"),
    ],
    "instruction_following": [
        ({"instruction_id_list": ABSENT}, "instruction_id_list"),
        ({"instruction_id_list": []}, "instruction_id_list"),
        ({"instruction_id_list": ["count:number"]}, "instruction_id_list"),
        ({"instruction_id_list": [5]}, "instruction_id_list"),
        ({"kwargs": [{"N": 1}, {}]}, "kwargs"),
        ({"kwargs": "none"}, "kwargs"),
        ({"kwargs": [5]}, "kwargs[0]"),
        ({"kwargs": [{}]}, "kwargs[0].N"),
        ({"kwargs": [{"N": "many"}]}, "kwargs[0]"),
        ({"kwargs": [{"N": 1.5}]}, "kwargs[0]"),
        ({"kwargs": [{"N": None}]}, "kwargs[0].N"),
        ({"grading_mode": "all"}, "grading_mode"),
        ({"strictness": "very"}, "strictness"),
        (
            {
                "instruction_id_list": ["length_constraints:number_words"],
                "kwargs": [{"num_words": 5, "relation": "at most"}],
            },
            "kwargs[0]",
        ),
    ],
    "ifbench": [
        ({"instruction_id_list": ["ratio:stopwords"]}, "instruction_id_list"),
        ({"kwargs": [{"percentage": "five"}]}, "kwargs[0]"),
        ({"kwargs": ABSENT}, "kwargs"),
        ({"kwargs": [[]]}, "kwargs[0]"),
    ],
    "structured_outputs": [
        ({"schema_str": ABSENT}, "schema_str"),
        ({"schema_str": {"type": "object"}}, "schema_str"),
        ({"schema_str": "{"}, "schema_str"),
        ({"schema_str": "[]"}, "schema_str"),
        ({"schema_str": "5"}, "schema_str"),
        ({"schema_str": '{"type": "objekt"}'}, "schema_str"),
        ({"schema_str": '{"properties": []}'}, "schema_str"),
        ({"schema_str": '{"pattern": "("}'}, "schema_str"),
        ({"schema_str": '{"not":' * 3000 + "{}" + "}" * 3000}, "schema_str"),
        ({"schema_str": '{"items": {"$ref": "#/properties/a/b"}, "properties": {"a": {}}}'}, "schema_str"),
        ({"schema_str": '{"$ref": "#/$defs/nothing"}'}, "schema_str"),
        ({"schema_type": "ini"}, "schema_type"),
        ({"schema_type": ["json"]}, "schema_type"),
        ({"response_mode": "file"}, "response_mode"),
        ({"response_mode": "tool_call", "tool_payload_key": 5}, "tool_payload_key"),
        ({"response_mode": "tool_call", "tool_name": 5}, "tool_name"),
    ],
    "math_with_judge": [
        ({"expected_answer": ABSENT}, "expected_answer"),
        ({"expected_answer": {"value": 2}}, "expected_answer"),
        ({"expected_answer": False}, "expected_answer"),
        ({"expected_answer": " \t"}, "expected_answer"),
        ({"expected_answer": []}, "expected_answer"),
        ({"convention": "circled"}, "convention"),
        ({"convention": 5}, "convention"),
    ],
    "code_gen": [
        ({"verifier_metadata": ABSENT}, "unit_tests"),
        ({"verifier_metadata": {"unit_tests": "none"}}, "unit_tests"),
        (_tests(inputs=[], outputs=[]), "unit_tests.inputs"),
        (_tests(outputs=["2", "3"]), "unit_tests"),
        (_tests(inputs="1"), "unit_tests.inputs"),
        (_tests(outputs=[2]), "unit_tests.outputs"),
        (_tests(outputs=[None]), "unit_tests.outputs"),
        (_tests(inputs=ABSENT), "unit_tests.inputs"),
        (_tests(fn_name=5), "unit_tests.fn_name"),
        (_tests(fn_name="f", inputs=["one"]), "unit_tests.inputs"),
        (_tests(fn_name="f", outputs=["{"]), "unit_tests.outputs"),
        (_tests(time_limit_secs="soon"), "unit_tests.time_limit_secs"),
        (_tests(memory_limit_mb=-5), "unit_tests.memory_limit_mb"),
    ],
    "competitive_coding_challenges": [
        (_tests(outputs=[]), "unit_tests"),
        ({"verifier_metadata": {"unit_tests": []}}, "unit_tests"),
        (_tests(inputs=[{"a": 1}]), "unit_tests.inputs"),
    ],
    "swerl_gen": [
        ({"instance": ABSENT}, "instance"),
        ({"instance": "i"}, "instance"),
        ({"metadata": ABSENT}, "metadata"),
        ({"metadata": {}}, "metadata.relevant_file_contents"),
        ({"metadata": {"relevant_file_contents": "{"}}, "metadata.relevant_file_contents"),
        ({"metadata": {"relevant_file_contents": "[1]"}}, "metadata.relevant_file_contents"),
        ({"metadata": {"relevant_file_contents": '{"a.py": 5}'}}, "metadata.relevant_file_contents"),
        ({"mode": "train"}, "mode"),
        ({"mode": ABSENT}, "mode"),
        (_instance(FAIL_TO_PASS="[t]"), "instance.FAIL_TO_PASS"),
        (_instance(FAIL_TO_PASS='{"t": 1}'), "instance.FAIL_TO_PASS"),
        (_instance(PASS_TO_PASS=ABSENT), "instance.PASS_TO_PASS"),
        (_instance(PASS_TO_PASS="[1]"), "instance.PASS_TO_PASS"),
        (_instance(FAIL_TO_PASS='["other"]'), "instance"),
        (_instance(unit_tests={"tests": {"t": {"input": "1", "output": "2"}}}), "instance"),
    ],
    "swerl_llm_judge": [
        ({"options": ABSENT}, "options"),
        ({"options": [{"AB": "x"}]}, "options"),
        ({"options": {"A": "x", "B": "y"}}, "options"),
        ({"options": [{"A": "x"}, {"A": "y"}]}, "options"),
        ({"expected_answer": "Z"}, "expected_answer"),
        ({"expected_answer": []}, "expected_answer"),
        ({"expected_answer": None}, "expected_answer"),
        ({"expected_answer": {"A": 1}}, "expected_answer"),
        ({"grading_mode": "loose"}, "grading_mode"),
    ],
    "bfcl": [
        ({"ground_truth": ABSENT}, "ground_truth"),
        ({"ground_truth": "["}, "ground_truth"),
        ({"ground_truth": {"f": {"p": ["x"]}}}, "ground_truth"),
        ({"ground_truth": [{"f": {"p": "x"}}]}, "ground_truth"),
        ({"ground_truth": [{"f": ["x"]}]}, "ground_truth"),
        ({"ground_truth": [{}]}, "ground_truth"),
        ({"any_call": "yes", "ground_truth": ABSENT}, "any_call"),
        ({"any_call": True}, "any_call"),
        ({"any_call": True, "ground_truth": [], **ASKED}, "any_call"),
        ({"responses_create_params": ABSENT, "question": [["?"]], "function": [TOOL]}, "input[0]"),
        ({"responses_create_params": ABSENT, "question": [[{"role": "user", "content": "?"}]], "function": "f"}, "function"),
        ({"responses_create_params": ABSENT, "question": [[{"role": "user", "content": "?"}]], "function": ["f"]}, "function"),
    ],
    "single_step_tool_use_with_argument_comparison": [
        ({"expected_action": ABSENT}, "expected_action"),
        ({"expected_action": {"type": "call", "name": "f"}}, "expected_action"),
        ({"expected_action": {"type": "function_call", "arguments": "{}"}}, "expected_action.name"),
        ({"expected_action": {"type": "function_call", "name": "f", "arguments": "{"}}, "expected_action.arguments"),
        ({"expected_action": {"type": "function_call", "name": "f", "arguments": [1]}}, "expected_action.arguments"),
        ({"expected_action": {"type": "function_call", "name": "f"}}, "expected_action.arguments"),
        ({"expected_action": {"type": "function_call_batch", "calls": []}}, "expected_action"),
        ({"expected_action": {"type": "function_call_batch", "calls": [5]}}, "expected_action.calls[0]"),
    ],
    "workplace_assistant": [
        ({"ground_truth": ABSENT}, "ground_truth"),
        ({"ground_truth": "{"}, "ground_truth"),
        ({"ground_truth": [{"arguments": "{}"}]}, "ground_truth[0].name"),
        ({"ground_truth": [{"name": "f"}]}, "ground_truth[0].arguments"),
        ({"ground_truth": [{"name": "f", "arguments": "f(1)"}]}, "ground_truth[0].arguments"),
        ({"ground_truth": [{"name": "f", "arguments": [1]}]}, "ground_truth[0].arguments"),
    ],
    "tool_dialogues": [
        ({"user": ABSENT}, "user"),
        ({"user": {"script": [], "instructions": "x"}}, "user"),
        ({"user": {"script": "x"}}, "user.script"),
        ({"user": {"instructions": 5}}, "user.instructions"),
        ({"ground_truth": 5}, "ground_truth"),
        ({"ground_truth": [["f("]]}, "ground_truth[0]"),
        ({"communicate": [1]}, "communicate"),
        ({"communicate": "x"}, "communicate"),
        ({"involved_classes": ["Nobody"]}, "involved_classes"),
        ({"involved_classes": []}, "involved_classes"),
        ({"involved_classes": "MathAPI"}, "involved_classes"),
    ],
    "ruler": [
        ({"expected_values": ABSENT}, "expected_values"),
        ({"expected_values": []}, "expected_values"),
        ({"expected_values": "x"}, "expected_values"),
        ({"expected_values": [None]}, "expected_values"),
        ({"expected_values": [{"v": 1}]}, "expected_values"),
        ({"metric": "most"}, "metric"),
    ],
    "lc_niah": [
        ({"expected_answer": ABSENT}, "expected_answer"),
        ({"expected_answer": ["x"]}, "expected_answer"),
        ({"expected_answer": 5}, "expected_answer"),
        ({"expected_answer": ""}, "expected_answer"),
    ],
    "reasoning_gym": [
        ({"metadata": ABSENT}, "metadata"),
        ({"metadata": {}}, "metadata.source_dataset"),
        ({"metadata": {"source_dataset": "chain_sums"}}, "metadata.source_dataset"),
        ({"metadata": {"source_dataset": 5}}, "metadata.source_dataset"),
        ({"question": ABSENT}, "question"),
    ],
    "equivalence_llm_judge": [
        ({"expected_answer": ABSENT}, "expected_answer"),
        ({"expected_answer": " "}, "expected_answer"),
        ({"expected_answer": ["x"]}, "expected_answer"),
        ({"template_metadata": [1]}, "template_metadata"),
        ({"template_metadata": {"output_regex": "[z-a]"}}, "template_metadata.output_regex"),
    ],
    "genrm_compare": [
        ({"principle": 5}, "principle"),
        ({"baseline": ["x"]}, "baseline"),
        ({"responses_create_params": {"input": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}}, "input"),
        ({"chosen": 5}, "chosen"),
        ({"rejected": []}, "rejected"),
        ({"chosen": {"role": "assistant", "content": None}}, "chosen"),
    ],
    "math_with_code": [
        ({"expected_result": ABSENT}, "expected_result"),
        ({"expected_result": None}, "expected_result"),
        ({"expected_result": [2]}, "expected_result"),
    ],
    "ns_tools": [
        ({"expected_answer": ABSENT}, "expected_answer"),
        ({"expected_answer": True}, "expected_answer"),
        ({"expected_answer": ""}, "expected_answer"),
    ],
    "swe_agents": [
        (ASKED, "metadata"),
        ({"responses_create_params": {"input": [], "metadata": {"instance_dict": "{}"}}}, "problem_statement"),
        ({"responses_create_params": {"input": [], "metadata": {"problem_statement": "x", "instance_dict": "{"}}}, "instance_dict"),
        ({"responses_create_params": {"input": [], "metadata": {"problem_statement": "x", "instance_dict": "[]"}}}, "instance_dict"),
        (_issue(files=[]), "instance_dict.files"),
        (_issue(files={"a.py": 1}), "instance_dict.files"),
        (_issue(tests=ABSENT), "instance_dict.tests"),
        (_issue(tests={"t": {"module": "a"}}), "tests.t"),
        (_issue(FAIL_TO_PASS='["u"]'), "tests.u"),
        (_issue(FAIL_TO_PASS=5), "FAIL_TO_PASS"),
    ],
    "demonstrations": [
        ({"reference": ABSENT}, "reference"),
        ({"reference": ""}, "reference"),
        ({"reference": 5}, "reference"),
        ({"reference": {"role": "assistant"}}, "reference"),
        ({"reference": {"role": "assistant", "content": [{"type": "image_url"}]}}, "reference"),
    ],
}  # fmt: skip


def sound_file(environment: str, path: Path) -> Path:
    """The sound row of an environment alone: a fault of it would hide those of the cases."""
    _keep(path, _line(SOUND[environment]))
    return path


def environment_cases() -> Iterator[Case]:
    for environment, faults in FIELDS.items():
        sound = SOUND[environment]
        for number, (change, field) in enumerate(faults):
            row = {key: value for key, value in {**sound, **change}.items() if value is not ABSENT}
            yield Case(
                f"{environment} {number}: {field}",
                "rows.jsonl",
                _bytes(_line(sound) + _line(row)),
                ("rows.jsonl:2", field, "to do:"),
                ("--environment", environment, "--graded", "0"),
            )


# Conversations and the usual forms of rows.

USER = {"role": "user", "content": "u"}
SAID = {"role": "assistant", "content": "a"}
PICTURE = {"type": "image_url", "image_url": {"url": "x.png"}}
ANSWER = {"expected_answer": "1"}
MATH = {"prompt": "1+1?", "expected_answer": "2"}
FORMS: list[tuple[Any, tuple[str, ...]]] = [
    ('{"prompt": "q", "expected_answer": "5", "expected_answer": "7"}', ("expected_answer", "twice")),
    ('{"prompt": "q", "a": {"b": 1, "b": 2}, "expected_answer": "7"}', ("b", "twice")),
    ('{"prompt": "a \\ud83d b", "expected_answer": "1"}', ("prompt", "half a character")),
    ('{"\\udc00": "x", "prompt": "q", "expected_answer": "1"}', ("key", "half a character")),
    ('{"prompt": "q", "expected_answer": NaN}', ("expected_answer", "nan")),
    ('{"prompt": "q", "expected_answer": -Infinity}', ("expected_answer", "inf")),
    ('{"prompt": "q", "expected_answer": 1e999}', ("expected_answer", "inf")),
    ('{"prompt": "q", "expected_answer": ' + "9" * 5000 + "}", ("4,300 digits",)),
    ("[" * 5000 + "]" * 5000, ("nested deeper",)),
    ('{"a":' * 300 + "1" + "}" * 300, ("nested deeper",)),
    ('{"a":' * 90_000, ("nested deeper",)),
    ('{"prompt": "q" "expected_answer": "1"}', ("not JSON", "character")),
    ('{"prompt": "q", "expected_answer": "1",}', ("not JSON", "character")),
    ("{'prompt': 'q'}", ("not JSON", "character")),
    ('{prompt: "q"}', ("not JSON", "character")),
    ('{"prompt": "q"} {"prompt": "r"}', ("not JSON", "character")),
    ('{"prompt": "q"} // why', ("not JSON", "character")),
    ('{"prompt": "q\tr"}', ("not JSON", "character")),
    ('{"prompt": "\\x41"}', ("not JSON", "character")),
    ('{"prompt": "q", "expected_answer": 01}', ("not JSON", "character")),
    ('{"prompt": "q"', ("not JSON", "character")),
    ('"prompt"', ("is a str",)),
    ("5", ("is a int",)),
    ("null", ("is a NoneType",)),
    ("[1, 2]", ("is a list",)),
    (b'{"prompt": "\xff"}', ("UTF-8", "0xff")),
    (b'{"prompt": "q\x00"}', ("not JSON",)),
    (b"\x00\x00\x00", ("not JSON",)),
    ("{}", ("responses_create_params", "messages")),
    ('{"prompt": "' + "x" * (17 * 2**20) + '"}', ("longer than",)),
    ('{"prompt": "q", "a": [' + "1," * 2_100_000 + "1]}", ("more than", "values")),
    ({"prompt": "q", "expected_answer": None}, ("expected_answer", "missing")),
    ({"prompt": "q", "expected_answer": ["1"]}, ("expected_answer", "list")),
    ({"prompt": "q", "expected_answer": True}, ("expected_answer", "bool")),
    ({"prompt": "q", "expected_answer": "\u200b"}, ("expected_answer", "empty")),
    ({"prompt": "", **ANSWER}, ("prompt", "empty")),
    ({"prompt": "\u200b \ufeff", **ANSWER}, ("prompt", "empty")),
    ({"prompt": None, **ANSWER}, ("prompt",)),
    ({"prompt": 7, **ANSWER}, ("prompt",)),
    ({"prompt": [], **ANSWER}, ("prompt", "empty")),
    ({"prompt": ["q"], **ANSWER}, ("prompt[0]",)),
    ({"prompt": {"text": "q"}, **ANSWER}, ("prompt",)),
    ({"question": "q", **ANSWER}, ("question", "messages")),
    ({"messages": [], **ANSWER}, ("messages", "empty")),
    ({"messages": "Hello", **ANSWER}, ("messages",)),
    ({"messages": {"role": "user", "content": "u"}, **ANSWER}, ("messages",)),
    ({"messages": [5], **ANSWER}, ("messages[0]",)),
    ({"messages": [["user", "u"]], **ANSWER}, ("messages[0]",)),
    ({"messages": [{"content": "u"}], **ANSWER}, ("messages[0].role",)),
    ({"messages": [{"role": "user"}], **ANSWER}, ("content", "null")),
    ({"messages": [{**USER, "content": 5}], **ANSWER}, ("content", "int")),
    ({"messages": [{**USER, "content": {"text": "u"}}], **ANSWER}, ("content", "dict")),
    ({"messages": [{**USER, "content": [None]}], **ANSWER}, ("content[0]",)),
    ({"messages": [{**USER, "content": [{"type": "text"}]}], **ANSWER}, ("content[0]", "text")),
    ({"messages": [{**USER, "content": [{"type": "text", "text": 5}]}], **ANSWER}, ("content[0]",)),
    ({"messages": [{**USER, "content": [PICTURE]}], **ANSWER}, ("image",)),
    ({"messages": [{**USER, "content": [{"type": "input_audio"}]}], **ANSWER}, ("input_audio",)),
    ({"messages": [{**USER, "content": [{"type": "file", "file": {}}]}], **ANSWER}, ("file",)),
    ({"messages": [{**USER, "images": ["x"]}], **ANSWER}, ("images",)),
    ({"messages": [{**USER, "video": "x.mp4"}], **ANSWER}, ("video",)),
    ({"prompt": "<image>what?", "image": "x.png", **ANSWER}, ("image",)),
    ({"prompt": "what?", "audios": ["x.wav"], **ANSWER}, ("audios",)),
    ({"messages": [{**USER, "content": None}], **ANSWER}, ("content", "null")),
    ({"messages": [{**USER, "role": "narrator"}], **ANSWER}, ("narrator",)),
    ({"messages": [{**USER, "role": None}], **ANSWER}, ("role",)),
    ({"messages": [{**USER, "role": 5}], **ANSWER}, ("role",)),
    ({"messages": [USER, {"role": "tool", "content": None}], **ANSWER}, ("result",)),
    ({"messages": [USER, {"role": "tool"}], **ANSWER}, ("result",)),
    ({"messages": [USER], "tools": ["f"], **ANSWER}, ("tools[0]",)),
    ({"messages": [USER], "tools": "f", **ANSWER}, ("tools",)),
    ({"messages": [USER], "tools": {"name": "f"}, **ANSWER}, ("tools",)),
    ({"messages": [USER], "tools": [{"type": "function"}], **ANSWER}, ("tools[0]", "name")),
    ({"messages": [USER], "tools": [{"type": "function", "function": "f"}], **ANSWER}, ("tools[0]",)),
    ({"messages": [USER], "tools": [TOOL, {**TOOL, "parameters": {}}], **ANSWER}, ("tools[1]", "twice")),
    ({"messages": [{**SAID, "tool_calls": ["f"]}, USER], **ANSWER}, ("tool_calls",)),
    ({"messages": [{**SAID, "tool_calls": "f"}, USER], **ANSWER}, ("tool_calls",)),
    ({"messages": [{**USER, "tool_calls": [{"name": "f"}]}], **ANSWER}, ("tool_calls",)),
    ({"messages": [USER, {**SAID, "tool_calls": [{"name": "f", "arguments": "{"}]}], **ANSWER}, ("arguments", "JSON")),
    ({"messages": [USER, {**SAID, "tool_calls": [{"name": "f", "arguments": 5}]}], **ANSWER}, ("object of arguments",)),
    ({"messages": [USER, {**SAID, "tool_calls": [{"name": ""}]}], **ANSWER}, ("needs a name",)),
    ({"messages": [USER, {**SAID, "tool_calls": [{"function": "f"}]}], **ANSWER}, ("tool call",)),
    ({"messages": [{**USER, "value": "other"}], **ANSWER}, ("messages[0]", "another value")),
    ({"messages": [USER, {**SAID, "refusal": "no"}], **ANSWER}, ("refusal", "lost")),
    ({"messages": [USER, {**SAID, "weight": 0}], **ANSWER}, ("messages[1]", "weight is 0")),
    ({"messages": [USER, {**SAID, "weight": 0.5}], **ANSWER}, ("messages[1].weight", "0.5")),
    ({"messages": [USER, {**SAID, "weight": "high"}], **ANSWER}, ("messages[1].weight", "high")),
    ({"messages": [USER, {**SAID, "train": False}], **ANSWER}, ("messages[1]", "nothing")),
    ({"conversations": [{"from": "human"}], **ANSWER}, ("content", "null")),
    ({"conversations": [{"value": "u"}], **ANSWER}, ("conversations[0].role",)),
    ({"conversations": [{"from": "alien", "value": "u"}], **ANSWER}, ("alien",)),
    ({"prompt": "q", "create_params": [1], **ANSWER}, ("create_params",)),
    ({"prompt": "q", "chosen": "a", "rejected": None, **ANSWER}, ("rejected", "null")),
    ({"prompt": 7, "chosen": "a", "rejected": "b", **ANSWER}, ("prompt", "int")),
    ({"chosen": "a", "rejected": "b", **ANSWER}, ("prompt", "missing")),
    ({"prompt": "q", "chosen": [USER], "rejected": [USER, SAID], **ANSWER}, ("chosen", "assistant")),
    ({"chosen": [USER, SAID], "rejected": [{**USER, "content": "v"}, SAID], **ANSWER}, ("rejected", "another prompt")),
    ({"responses_create_params": [], **ANSWER}, ("responses_create_params",)),
    ({"responses_create_params": {}, **ANSWER}, ("responses_create_params.input",)),
    ({"responses_create_params": {"input": None}, **ANSWER}, ("responses_create_params.input",)),
    ({"responses_create_params": {"input": 5}, **ANSWER}, ("responses_create_params.input",)),
    ({"responses_create_params": {"input": [{"type": "reasoning"}]}, **ANSWER}, ("responses_create_params.input", "reasoning")),
    ({"responses_create_params": {"input": "q", "tools": "f"}, **ANSWER}, ("responses_create_params.tools",)),
    ({**MATH, "agent_ref": {"name": "math_with_juge"}}, ("agent_ref.name", "math_with_judge")),
    ({**MATH, "environment": "nobody"}, ("environment", "nobody")),
    ({**MATH, "environment_name": "mqca"}, ("environment_name", "mcqa")),
]  # fmt: skip


def form_cases() -> Iterator[Case]:
    for number, (row, said) in enumerate(FORMS):
        yield Case(
            f"form {number}: {said[0]}",
            "rows.jsonl",
            _bytes(_line(MATH) + _line(row)),
            ("rows.jsonl:2", *said, "to do:"),
            ("--environment", "math_with_judge", "--graded", "0"),
        )


# Files: encodings, archives, tables, Parquet, what is no file.

ROWS = b"".join(_line({**MATH, "n": number}) for number in range(500))
WHOLE = gzip.compress(ROWS)
JSON_LIST = json.dumps([MATH, MATH], indent=1).encode()


def _zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows.jsonl", ROWS)


def _parquet(columns: Mapping[str, Any], **options: Any) -> Write:
    def write(path: Path) -> None:
        import pyarrow as arrow
        from pyarrow import parquet

        parquet.write_table(arrow.table(dict(columns)), path, **options)

    return write


def _parquet_of(make: Callable[[], Any], damage: Callable[[bytes], bytes] = lambda data: data) -> Write:
    def write(path: Path) -> None:
        from pyarrow import parquet

        out = io.BytesIO()
        parquet.write_table(make(), out)
        path.write_bytes(damage(out.getvalue()))

    return write


def _plain_table() -> Any:
    import pyarrow as arrow

    return arrow.table({"prompt": ["q"] * 300, "expected_answer": [str(n) for n in range(300)]})


def _twice_named() -> Any:
    import pyarrow as arrow

    arrays = [arrow.array(["q"]), arrow.array(["1"]), arrow.array(["2"])]
    return arrow.Table.from_arrays(arrays, names=["prompt", "expected_answer", "expected_answer"])


def _no_utf8() -> Any:
    import pyarrow as arrow

    offsets = arrow.py_buffer(b"\0\0\0\0\2\0\0\0")
    text = arrow.StringArray.from_buffers(1, offsets, arrow.py_buffer(b"\xff\xfe"))
    return arrow.Table.from_arrays([text, arrow.array(["1"])], names=["prompt", "expected_answer"])


def _binary_prompt() -> Any:
    import pyarrow as arrow

    return arrow.table({"prompt": arrow.array([b"\x00\xff"]), "expected_answer": ["1"]})


def _timestamps() -> Any:
    import datetime

    import pyarrow as arrow

    return arrow.table({"prompt": ["q"], "expected_answer": [datetime.datetime(2026, 1, 1)]})


def _decimals() -> Any:
    import decimal

    import pyarrow as arrow

    return arrow.table({"prompt": [decimal.Decimal("1.5")], "expected_answer": ["1"]})


def _map_twice() -> Any:
    import pyarrow as arrow

    pairs = arrow.array([[("a", "1"), ("a", "2")]], arrow.map_(arrow.string(), arrow.string()))
    return arrow.table({"prompt": ["q"], "expected_answer": ["1"], "extra": pairs})


def _arrow_file(path: Path) -> None:
    import pyarrow as arrow

    with arrow.OSFile(str(path), "wb") as out, arrow.ipc.new_file(out, _plain_table().schema) as writer:
        writer.write_table(_plain_table())


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def _zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _gone(path: Path) -> None:
    path.symlink_to("nowhere")


def _nothing(path: Path) -> None:
    """The file is not there."""


def _folder(path: Path) -> None:
    path.mkdir()


def _folder_with(**files: bytes) -> Write:
    def write(path: Path) -> None:
        path.mkdir()
        for name, data in files.items():
            _keep(path / name.replace("_dot_", "."), data)

    return write


def _gzip_bomb(path: Path) -> None:
    """One line of 400 MB, as 400 kB."""
    with gzip.open(path, "wb", compresslevel=1) as out:
        block = b"a" * 2**20
        for _ in range(400):
            out.write(block)


def _blank_bomb(path: Path) -> None:
    """Three million empty lines, as 3 kB."""
    with gzip.open(path, "wb", compresslevel=1) as out:
        block = b"\n" * 2**20
        for _ in range(3):
            out.write(block)


HEAD = b"prompt,expected_answer\n"
FILES: list[tuple[str, Write, tuple[str, ...]]] = [
    ("cut.jsonl.gz", _bytes(WHOLE[:200]), ("cut off or damaged", "to do:")),
    ("half.jsonl.gz", _bytes(WHOLE[:-4]), ("cut off or damaged", "to do:")),
    ("check.jsonl.gz", _bytes(WHOLE[:-8] + b"\0\0\0\0" + WHOLE[-4:]), ("damaged", "to do:")),
    ("after.jsonl.gz", _bytes(WHOLE + b"garbage"), ("damaged", "to do:")),
    ("inside.jsonl.gz", _bytes(WHOLE[:60] + b"\xff" * 40 + WHOLE[100:]), ("damaged", "to do:")),
    ("no.jsonl.gz", _bytes(b"{}\n"), ("damaged", "to do:")),
    ("empty.jsonl.gz", _bytes(b""), ("holds no rows", "to do:")),
    ("nothing.jsonl.gz", _bytes(gzip.compress(b"")), ("holds no rows", "to do:")),
    ("wide.jsonl.gz", _bytes(gzip.compress('{"prompt": "q"}'.encode("utf-16"))), ("UTF-16", "to do:")),
    ("cut.csv.gz", _bytes(gzip.compress(HEAD + b"q,1\n" * 900)[:60]), ("damaged", "to do:")),
    ("list.json.gz", _bytes(gzip.compress(JSON_LIST)[:40]), ("damaged", "to do:")),
    ("bomb.jsonl.gz", _gzip_bomb, ("bomb.jsonl.gz:1", "longer than", "to do:")),
    ("blank.jsonl.gz", _blank_bomb, ("empty lines", "to do:")),
    ("unnamed.jsonl", _bytes(WHOLE), ("gzip", "to do:")),
    ("unnamed.csv", _bytes(WHOLE), ("gzip", "to do:")),
    ("archive.zip", _zipped, ("format", ".jsonl", "to do:")),
    ("archive.jsonl", _zipped, ("zip", "to do:")),
    ("sheet.csv", _zipped, ("zip", "to do:")),
    ("rows.jsonl.bz2", _bytes(b"BZh9"), ("format", "to do:")),
    ("rows.jsonl.zst", _bytes(b"\x28\xb5\x2f\xfd"), ("format", "to do:")),
    ("rows.txt", _bytes(ROWS), ("format", "to do:")),
    ("rows", _bytes(ROWS), ("format", "to do:")),
    ("rows.arrow", _arrow_file, ("format", "to do:")),
    ("arrow.jsonl", _arrow_file, ("UTF-8", "to do:")),
    ("table.jsonl", _parquet_of(_plain_table), ("Parquet", "to do:")),
    ("table.csv", _parquet_of(_plain_table), ("Parquet", "to do:")),
    ("page.jsonl", _bytes(b"<!DOCTYPE html>\n<html></html>\n"), ("not JSON", "to do:")),
    ("wide.jsonl", _bytes(json.dumps(MATH).encode("utf-16")), ("UTF-16", "save it as UTF-8")),
    ("wider.jsonl", _bytes(json.dumps(MATH).encode("utf-32")), ("UTF-", "to do:")),
    ("bare.jsonl", _bytes(json.dumps(MATH).encode("utf-16-le")), ("not JSON", "to do:")),
    ("latin.jsonl", _bytes('{"prompt": "é"}'.encode("latin-1")), ("latin.jsonl:1", "UTF-8", "to do:")),
    ("sjis.jsonl", _bytes('{"prompt": "日本"}'.encode("shift-jis")), ("sjis.jsonl:1", "UTF-8", "to do:")),
    ("middle.jsonl", _bytes(_line(MATH) + b"\xef\xbb\xbf" + _line(MATH) + b"{\xef\xbb\xbf}"), ("middle.jsonl:3", "to do:")),
    ("lfs.jsonl", _bytes(LFS), ("Git LFS", "git lfs pull")),
    ("lfs.parquet", _bytes(LFS), ("Git LFS", "git lfs pull")),
    ("lfs.csv", _bytes(LFS), ("Git LFS", "git lfs pull")),
    ("lfs.json", _bytes(LFS), ("Git LFS", "git lfs pull")),
    ("list.jsonl", _bytes(JSON_LIST), ("over several lines", "name it .json")),
    ("spread.jsonl", _bytes(json.dumps(MATH, indent=1).encode()), ("over several lines", "on one line")),
    ("none.jsonl", _bytes(b"\n\n"), ("holds no rows", "to do:")),
    ("empty.jsonl", _bytes(b""), ("holds no rows", "to do:")),
    ("mark.jsonl", _bytes(b"\xef\xbb\xbf"), ("mark.jsonl", "to do:")),
    ("object.json", _bytes(json.dumps(MATH, indent=1).encode()), ("no list", "a list of objects", "to do:")),
    ("cut.json", _bytes(JSON_LIST[:-8]), ("row 2", "not JSON", "to do:")),
    ("number.json", _bytes(b"5"), ("list", "to do:")),
    ("numbers.json", _bytes(b"[5]"), ("row 1", "not an object", "to do:")),
    ("deep.json", _bytes(b"[" + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"]"), ("nested", "to do:")),
    ("twice.json", _bytes(b'[{"prompt": "q", "prompt": "r"}]'), ("row 1", "prompt", "twice", "to do:")),
    ("nan.json", _bytes(b'[{"prompt": "q", "expected_answer": NaN}]'), ("row 1", "expected_answer", "to do:")),
    ("long.json", _bytes(b'[{"prompt": "q", "n": ' + b"9" * 5000 + b"}]"), ("number", "to do:")),
    ("empty.json", _bytes(b""), ("list", "to do:")),
    ("wide.json", _bytes(json.dumps([MATH]).encode("utf-16")), ("UTF-16", "to do:")),
    ("latin.json", _bytes('[{"prompt": "é"}]'.encode("latin-1")), ("UTF-8", "to do:")),
    ("twice.csv", _bytes(b"prompt,expected_answer,expected_answer\nq,5,7\n"), ("twice.csv:1", "expected_answer", "2 columns", "to do:")),
    ("unnamed_column.csv", _bytes(b"prompt,expected_answer,\nq,5,7\n"), (":1", "column 3", "no name", "to do:")),
    ("bare.csv", _bytes(b"1+1?,2\n"), ("one line", "1+1?, 2", "to do:")),
    ("open.csv", _bytes(HEAD + b'"q,5\n'), ("open.csv:2", "cannot be read as a table", "to do:")),
    ("open_late.csv", _bytes(HEAD + b'q,1\n"r,5\n' + b"s,2\n" * 50), ("open_late.csv:3", "table", "to do:")),
    ("few.csv", _bytes(HEAD + b"q\n"), ("few.csv:2", "has 1 cells", "to do:")),
    ("many.csv", _bytes(HEAD + b"q,1,2\n"), ("many.csv:2", "has 3 cells", "to do:")),
    ("wide.csv", _bytes((HEAD + b"q,1\n").decode().encode("utf-16")), ("UTF-16", "to do:")),
    ("latin.csv", _bytes("prompt,expected_answer\né,1\n".encode("latin-1")), ("UTF-8", "to do:")),
    ("blank.csv", _bytes(HEAD + b"q,\n"), ("blank.csv:2", "expected_answer", "to do:")),
    ("blank_prompt.csv", _bytes(HEAD + b" ,1\n"), ("blank_prompt.csv:2", "prompt", "to do:")),
    ("empty.csv", _bytes(b""), ("empty.csv", "to do:")),
    ("head.csv", _bytes(HEAD), ("one line", "to do:")),
    ("long.csv", _bytes(HEAD + b"q" * (17 * 2**20) + b",1\n"), ("long.csv:2", "to do:")),
    ("broad.csv", _bytes(HEAD + b"," * 3_000_000 + b"\n"), ("broad.csv:2", "cells", "to do:")),
    ("quote.csv", _bytes(HEAD + b'q "r" s",1\n"t" u,2\n'), ("quote.csv:3", "to do:")),
    ("json.csv", _bytes(b'messages,expected_answer\n"[{""role"": ",1\n'), ("json.csv:2", "messages", "to do:")),
    ("few.tsv", _bytes(b"prompt\texpected_answer\nq\n"), ("few.tsv:2", "has 1 cells", "to do:")),
    ("twice.tsv", _bytes(b"prompt\tprompt\nq\tr\n"), ("twice.tsv:1", "prompt", "to do:")),
    ("half.parquet", _bytes(b"PAR1 and no more"), ("not a readable Parquet file", "to do:")),
    ("empty.parquet", _bytes(b""), ("Parquet", "to do:")),
    ("text.parquet", _bytes(ROWS), ("not a readable Parquet file", "to do:")),
    ("cut.parquet", _parquet_of(_plain_table, lambda data: data[:-20]), ("Parquet", "to do:")),
    ("foot.parquet", _parquet_of(_plain_table, lambda d: d[:-200] + b"\xff" * 100 + d[-100:]), ("Parquet", "to do:")),
    ("page.parquet", _parquet_of(_plain_table, lambda d: d[:4] + b"\xff" * 60 + d[64:]), ("Parquet", "to do:")),
    ("twice.parquet", _parquet_of(_twice_named), ("expected_answer", "two columns", "to do:")),
    ("nan.parquet", _parquet({"prompt": ["q"], "expected_answer": [float("nan")]}), ("row 1", "expected_answer", "to do:")),
    ("null.parquet", _parquet({"prompt": ["q"], "expected_answer": [None]}), ("row 1", "expected_answer", "to do:")),
    ("lists.parquet", _parquet({"prompt": ["q"], "expected_answer": [[1, 2]]}), ("row 1", "expected_answer", "to do:")),
    ("numbers.parquet", _parquet({"prompt": [5], "expected_answer": ["1"]}), ("row 1", "prompt", "to do:")),
    ("norows.parquet", _parquet({"prompt": [], "expected_answer": []}), ("holds no rows", "to do:")),
    ("nocolumns.parquet", _parquet({}), ("holds no rows", "to do:")),
    ("bytes.parquet", _parquet_of(_binary_prompt), ("row 1", "prompt", "to do:")),
    ("noutf8.parquet", _parquet_of(_no_utf8), ("UTF-8", "to do:")),
    ("time.parquet", _parquet_of(_timestamps), ("row 1", "expected_answer", "to do:")),
    ("decimal.parquet", _parquet_of(_decimals), ("row 1", "prompt", "to do:")),
    ("map.parquet", _parquet_of(_map_twice), ("Parquet", "to do:")),
    ("loop.jsonl", _loop, ("cannot be read", "to do:")),
    ("loop", _loop, ("cannot be read", "to do:")),
    ("gone.jsonl", _gone, ("gone.jsonl", "neither a file", "to do:")),
    ("absent.jsonl", _nothing, ("absent.jsonl", "neither a file")),
    ("pipe.jsonl", _pipe, ("pipe.jsonl", "no regular file", "to do:")),
    ("socket.jsonl", _socket, ("socket.jsonl", "no regular file", "to do:")),
    ("zero.jsonl", _zeros, ("zero.jsonl", "no regular file", "to do:")),
    ("folder.jsonl", _folder, ("no data files", "to do:")),
    ("folder", _folder, ("no data files", "to do:")),
    ("mixed", _folder_with(a_dot_jsonl=_line(MATH), b_dot_jsonl=b"{\n"), ("b.jsonl", "over several lines", "to do:")),
    ("texts", _folder_with(a_dot_txt=ROWS), ("no data files", "to do:")),
    ("saved", _folder_with(state_dot_json=b"{}", dataset_info_dot_json=b"{"), ("saved", "to do:")),
    ("splits", _folder_with(dataset_dict_dot_json=b"{"), ("splits", "to do:")),
]  # fmt: skip


def file_cases() -> Iterator[Case]:
    for file, write, said in FILES:
        environment = ("--environment", "math_with_judge", "--graded", "0")
        yield Case(f"file {file}", file, write, (file, *said), environment)


# Arguments and settings of a source.

GIVEN: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("--column", "prompt=question"), ("question", "no such column", "prompt")),
    (("--column", "prompt"), ("--column prompt", "FIELD=COLUMN")),
    (("--column", "=prompt"), ("--column", "FIELD=COLUMN")),
    (("--column", "prompt=prompt.0.text"), ("prompt.0.text", "no such column")),
    (("--layout", "mine"), ("layout", "mine", "auto")),
    (("--layout", "live_code_bench"), ("rows.jsonl:1",)),
    (("--prompt", "{prompt} {hint}", "--column", "hint=tip"), ("tip", "no such column")),
    (("--row", "9"), ("--row 9", "1 to 1")),
    (("--environment", "maths"), ("environment", "maths")),
    (("--option", "judge=perhaps"), ("options.judge", "perhaps")),
    (("--option", "verify_second=3"), ("options.verify_second", "verify_seconds")),
    (("--option", "verify_seconds=-1"), ("options.verify_seconds", "-1")),
    (("--option", "judge"), ("--option", "judge")),
    (("--benchmark", "nowhere.jsonl"), ("nowhere.jsonl", "is not there")),
    (("--recipe", "quickstrat"), ("quickstrat", "quickstart")),
    (("--model", "builtin://mini"), ("builtin://mini", "mini-nemotron-h")),
    (("--model", "./nowhere"), ("nowhere",)),
    (("--set", "sft.steps=3"), ("--set", "name a recipe")),
]
PATHS: list[tuple[str, tuple[str, ...]]] = [
    ("x" * 5000, ("to do:",)),
    ("nul\0.jsonl", ("nul", "to do:")),
    ("a" * 300 + ".jsonl", ("to do:",)),
    ("caf\udce9.jsonl", ("to do:",)),
    ("ftp://host/rows.jsonl", ("ftp", "to do:")),
    ("s3:///rows.jsonl", ("s3", "to do:")),
    ("s3://user:word@bucket/rows.jsonl", ("to do:",)),
    ("~nobody-here/rows.jsonl", ("nobody-here", "to do:")),
    ("hf://", ("hf://", "to do:")),
    ("rows.jsonl/rows.jsonl", ("to do:",)),
]


def argument_cases() -> Iterator[Case]:
    usual = ("--environment", "math_with_judge")
    for arguments, said in GIVEN:
        name = " ".join(arguments)
        yield Case(f"argument {name}", "rows.jsonl", _bytes(_line(MATH)), said, (*usual, *arguments))
    for path, said in PATHS:
        yield Case(f"path {path[:30]!r}", path, _nothing, said, usual)


def row_cases() -> list[Case]:
    return [*environment_cases(), *form_cases(), *file_cases(), *argument_cases()]
