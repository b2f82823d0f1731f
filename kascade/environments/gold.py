"""A right answer to a task: its reference, or one written from what its grader expects."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from kascade.environments.base import THINK_END, Task
from kascade.environments.tool_calls import render_tool_call

Fields = Mapping[str, Any]


def gold_answer(task: Task) -> str | None:
    """None where the row holds no answer that could be written down (chat, instructions, repositories).

    Where the task opens a think block, the answer ends it.
    """
    write = WRITERS.get(task.environment)
    answer = task.reference if task.reference is not None else write(task.fields) if write else None
    if answer is None or not task.thinking or THINK_END in answer:
        return answer
    return f"{THINK_END}{answer}"


def _choice(fields: Fields) -> str | None:
    letter, mode = fields["expected_answer"], fields.get("grading_mode", "")
    if fields.get("output_regex") and "boxed" not in fields["output_regex"]:
        return None  # a pattern cannot be run backwards
    return f"Answer: {letter}" if "colon" in mode else f"\\boxed{{{letter}}}"


def _calls(fields: Fields) -> str | None:
    calls = fields.get("ground_truth")
    if not isinstance(calls, (list, tuple)) or not all(isinstance(call, Mapping) for call in calls):
        return None
    return "".join(render_tool_call(str(call["name"]), _arguments(call.get("arguments"))) for call in calls)


def _arguments(value: Any) -> Mapping[str, Any]:
    found = json.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, Mapping) else {}


def _listed(fields: Fields) -> str:
    expected = str(fields["expected_answer"])
    return f"Final Answer: {expected}" if expected.startswith("[") else expected


WRITERS: dict[str, Callable[[Fields], str | None]] = {
    "mcqa": _choice,
    "math_with_judge": lambda fields: f"\\boxed{{{fields['expected_answer']}}}",
    "math_with_code": lambda fields: f"\\boxed{{{fields['expected_answer']}}}",
    "ns_tools": lambda fields: f"\\boxed{{{fields['expected_answer']}}}",
    "lc_niah": _listed,
    "workplace_assistant": _calls,
    "reasoning_gym": lambda fields: (
        None if fields.get("answer") is None else f"<answer>{fields['answer']}</answer>"
    ),
}
