"""Rows of published sets with an answer to grade are read without flags, and their gold answers grade 1."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kascade.data.graded_formats import LETTER, NUMBER
from kascade.data.shapes import nemo_gym_rows
from kascade.environments import get_environment
from kascade.recipe.benchmark_presets import FILE
from kascade.recipe.schema import DataSource

MMLU = {"question": "2 + 2?", "choices": ["3", "4", "5", "6"], "answer": 1, "subject": "math"}
MMLU_PRO = {"question": "2 + 2?", "options": ["3", "4", "5"], "answer": "B", "answer_index": 1}
ARC = {"question": "2 + 2?", "choices": {"text": ["3", "4"], "label": ["1", "2"]}, "answerKey": "2"}
GSM8K = {"question": "Ann has 75 eggs, eats 3.", "answer": "75 - 3 = <<75-3=72>>72\n#### 72"}
MATH_500 = {"problem": "What is $70 + 2$?", "solution": "It is $\\boxed{72}$.", "answer": "72"}


def task_of(row: dict[str, Any], environment: str, **source: Any) -> Any:
    made = DataSource.model_validate({"environment": environment, "path": "rows.jsonl", **source})
    (found,) = nemo_gym_rows(row, made)
    return get_environment(environment).from_row(found)


@pytest.mark.parametrize("row", [MMLU, MMLU_PRO, ARC])
def test_multiple_choice_needs_no_flags(row: dict[str, Any]) -> None:
    task = task_of(row, "mcqa")
    (turn,) = task.messages
    assert "2 + 2?" in turn["content"] and "B: 4" in turn["content"] and "\\boxed{}" in turn["content"]
    right, wrong = get_environment("mcqa").grade(task, ["\\boxed{B}", "\\boxed{A}"])
    assert (right.reward, wrong.reward) == (1.0, 0.0)


@pytest.mark.parametrize("row", [GSM8K, MATH_500])
def test_math_needs_no_flags(row: dict[str, Any]) -> None:
    task = task_of(row, "math_with_judge")
    assert "\\boxed{}" in task.messages[-1]["content"]
    right, wrong = get_environment("math_with_judge").grade(task, ["\\boxed{72}", "\\boxed{75}"])
    assert (right.reward, wrong.reward) == (1.0, 0.0)


def test_an_own_prompt_replaces_the_usual_one() -> None:
    task = task_of(MMLU, "mcqa", prompt="Q: {question}\n{choices}")
    assert task.messages[-1]["content"] == "Q: 2 + 2?\nA: 3\nB: 4\nC: 5\nD: 6"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**MMLU, "answer": 9}, "answer: 9 is neither the index nor the letter"),
        ({**ARC, "answerKey": "7"}, "answerKey: '7' is not among the labels 1, 2"),
    ],
)
def test_an_answer_that_is_no_option_is_named(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        task_of(row, "mcqa")


def test_demonstrations_with_a_question_stay_demonstrations() -> None:
    source = DataSource.model_validate({"environment": "demonstrations", "path": "rows.jsonl"})
    (found,) = nemo_gym_rows(dict(GSM8K), source)
    assert "expected_answer" not in found and found["reference"]


def test_a_row_without_an_answer_of_its_environment_is_an_error_of_the_row() -> None:
    with pytest.raises(ValueError, match="expected_answer"):
        task_of({"question": "2 + 2?", "answerKey": "B"}, "math_with_judge")
    with pytest.raises(ValueError, match="answerKey"):
        task_of({**ARC, "choices": {"text": ["3", "4"], "label": None}}, "mcqa")


def test_published_benchmarks_ask_for_the_same_form_of_answer() -> None:
    """A YAML file cannot import the lines, so they stand in it, too."""
    presets = yaml.safe_load(FILE.read_text(encoding="utf-8"))["presets"]
    prompts = {name: str(one.get("source", {}).get("prompt")) for name, one in presets.items()}
    asked = {name: prompt.rpartition("\n")[2] for name, prompt in prompts.items() if "\\boxed" in prompt}
    letters = {name for name, line in asked.items() if line == LETTER}
    assert {"mmlu", "mmlu_pro", "gpqa_diamond"} <= letters and {"aime24", "aime25"} <= asked.keys() - letters
    assert set(asked.values()) == {LETTER, NUMBER}
