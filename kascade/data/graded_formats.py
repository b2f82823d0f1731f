"""The usual formats of rows whose answers are graded, recognised by their environment and fields.

    question, options or choices, answer    multiple choice, as MMLU, MMLU-Pro and ARC have it
    question or problem, answer             math, as GSM8K (`#### 72` at the end), MATH-500 and AIME have it

The prompt then says in which form the answer is graded. A data source's own `prompt` or `layout` replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kascade.data.layouts import math, multiple_choice

Row = dict[str, Any]
# A row with one of them is laid out already, or belongs to another format.
LAID_OUT = ("responses_create_params", "messages", "conversations", "prompt", "expected_answer", "agent_ref")
MATH = ("math_with_judge", "math_with_code", "ns_tools")
LETTER = "Put the letter of the right option within \\boxed{}."
NUMBER = "Put the final answer, and nothing else, within \\boxed{}."
FINAL = "####"  # before the final answer of a GSM8K row


def graded_row(row: Row, environment: str) -> Row:
    """The row with `prompt` and `expected_answer` where it has one of these formats, else the row itself.

    Raises ValueError ("field: what is wrong").
    """
    if any(row.get(name) is not None for name in LAID_OUT) or row.get("answer", row.get("answerKey")) is None:
        return row
    if environment == "mcqa" and _is_listed(row):
        return _asked(multiple_choice(_with_lists(row)), LETTER)
    answer = row.get("answer")
    if environment in MATH and answer is not None and (row.get("question") or row.get("problem")):
        final = answer.rpartition(FINAL)[2].strip() if isinstance(answer, str) else answer
        return _asked(math({**row, "answer": final}), NUMBER)
    return row


def _asked(row: Row, instruction: str) -> Row:
    return {**row, "prompt": f"{row['prompt']}\n{instruction}"}


def _is_listed(row: Mapping[str, Any]) -> bool:
    """Whether the options are a list of texts, or ARC's texts beside their labels."""
    options = row.get("choices") or row.get("options")
    texts = options.get("text") if isinstance(options, Mapping) else options
    return isinstance(texts, list) and all(isinstance(text, str | int | float) for text in texts)


def _with_lists(row: Row) -> Row:
    """ARC's `choices: {text, label}` and `answerKey` as a list of options and an index."""
    options = row.get("choices") or row.get("options")
    if not isinstance(options, Mapping):
        return row
    labels = [str(label) for label in options.get("label") or []]
    key = str(row.get("answerKey", row.get("answer")))
    if key not in labels or len(labels) != len(options["text"]):
        raise ValueError(f"answerKey: {key!r} is not among the labels {', '.join(labels)}")
    return {**row, "choices": list(options["text"]), "answer": labels.index(key)}
