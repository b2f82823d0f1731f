"""Generators by name with a level; answers graded by the library, and never run as code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.environments import get_environment
from kascade.environments.base import generate_tasks
from kascade.environments.reasoning_gym import (
    EXPRESSION_ANSWERS,
    LITERAL_ANSWERS,
    is_plain_expression,
)
from kascade.recipe.parts import DataSource
from kascade.rollout.pools import source_tasks
from kascade.task import Task


def tasks(dataset: str, count: int = 6, levels: tuple[float, float] = (0.0, 1.0)) -> list[Task]:
    environment = get_environment("reasoning_gym").with_options({"dataset": dataset})
    return generate_tasks(environment, split="train", count=count, seed=0, levels=levels)


def reward(task: Task, answer: str) -> float:
    (grade,) = get_environment("reasoning_gym").grade(task, [answer])
    assert grade.error is None, grade.error
    return grade.reward


@pytest.mark.parametrize(
    "dataset",
    [
        "chain_sum",
        "knights_knaves",
        "countdown",
        "spiral_matrix",
        "simple_integration",
        "number_sorting",
        "n_queens",
    ],
)
def test_gold_answers_pass_and_others_fail(dataset: str) -> None:
    for task in tasks(dataset, 4, (0.0, 0.5)):
        assert reward(task, f"hm</think>So <answer>{task.fields['answer']}</answer>") >= 0.99
        assert reward(task, "") == 0
        assert reward(task, "<answer>banana</answer>") < 0.1


def test_a_level_is_a_place_on_the_curriculum() -> None:
    easy, hard = (tasks("chain_sum", 20, (level, level)) for level in (0.0, 1.0))
    terms = [
        sum(task.fields["metadata"]["difficulty"]["num_terms"][1] for task in one) for one in (easy, hard)
    ]
    assert terms[0] < terms[1]
    assert [task.id for task in easy] == [task.id for task in tasks("chain_sum", 20, (0.0, 0.0))]


def test_options_come_from_the_data_source() -> None:
    source = DataSource(environment="reasoning_gym", options={"dataset": ["word_sorting", "leg_counting"]})
    drawn = source_tasks(source, split="train", seed=0, count=12)
    assert {task.fields["metadata"]["source_dataset"] for task in drawn} == {"word_sorting", "leg_counting"}
    for options, wanted in (({"dataset": "chain_sums"}, "did you mean 'chain_sum'"), ({"size": 3}, "size")):
        with pytest.raises(ValueError, match=wanted):
            get_environment("reasoning_gym").with_options(options)
    with pytest.raises(ValueError, match=r"no such option"):
        get_environment("mcqa").with_options({"dataset": "chain_sum"})


def row(name: str, answer: str, **metadata: Any) -> dict[str, Any]:
    return {
        "responses_create_params": {"input": [{"role": "user", "content": "?"}]},
        "question": "?",
        "answer": answer,
        "metadata": {"source_dataset": name, **metadata},
    }


def test_rows_are_graded_by_their_own_scorer_and_read_as_nemo_gym_reads_them() -> None:
    task = get_environment("reasoning_gym").from_row(row("chain_sum", "12"))
    answers = {
        "<answer>12</answer>": 1,
        "\\boxed{12}": 1,
        "12": 1,
        "<answer>1</answer> <answer>12</answer>": 1,
    }
    assert {answer: reward(task, answer) for answer in answers} == answers
    assert reward(task, "<answer>12</answer></think>13") == 0


ATTACKS = (
    "__import__('os').system('touch {}')",
    "[open('{}', 'w')]",
    "[x for x in [open('{}', 'w')]]",
    "(lambda: open('{}', 'w'))()",
    "exec(\"open('{}', 'w')\")",
    "x.__class__.__base__.__subclasses__()",
    "9**9**9**9",
    "((((9**99)**99)**99)**99)**99",
    "9 ** 9 ** 9 ** 9 ** 9",
)


@pytest.mark.parametrize("name", sorted(LITERAL_ANSWERS | EXPRESSION_ANSWERS))
@pytest.mark.timeout(60)
def test_an_answer_is_never_run(name: str, tmp_path: Path) -> None:
    (task,) = tasks(name, 1, (0.0, 0.2))
    mark = tmp_path / "mark"
    for attack in ATTACKS:
        assert reward(task, f"<answer>{attack.format(mark)}</answer>") < 0.1
    assert not mark.exists()


def test_rows_that_would_be_run_are_refused(tmp_path: Path) -> None:
    code = f"open('{tmp_path}/mark', 'w')"
    for bad in (
        row("countdown", code, numbers=[1], target=1),
        row("simple_integration", "x", integrand=code, variable="x"),
        row("number_sorting", code),
        row("bitwise_arithmetic", "0x1", problem=code),
        row("none_such", "1"),
    ):
        with pytest.raises(ValueError, match=r"^(answer|metadata)[\w.]*:"):
            get_environment("reasoning_gym").from_row(bad)


def test_every_scorer_that_evaluates_is_known() -> None:
    """A new version of the library must be looked through again."""
    import reasoning_gym

    root = Path(reasoning_gym.__file__).parent
    evaluating = set()
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        called = re.search(r"(?<![\w.])eval\(\s*answer|parse_expr\(\s*(?:user_)?answer|sympify\(", text)
        if called:
            evaluating.add(path.stem)
    assert evaluating == LITERAL_ANSWERS | EXPRESSION_ANSWERS


@given(st.text(alphabet="0123456789xyC+-*/() .sincoexp", max_size=40))
@settings(deadline=None, max_examples=150)
def test_what_is_admitted_can_be_worked_out(text: str) -> None:
    if is_plain_expression(text):
        assert not re.search(r"\*\*\s*\d+\s*\*\*", text)
        assert "." not in re.sub(r"\d\.\d", "", text)
        for task in tasks("countdown", 1, (0.0, 0.0)):
            assert 0 <= reward(task, f"<answer>{text}</answer>") <= 1


def test_generated_rows_survive_json() -> None:
    for task in tasks("knights_knaves", 3):
        again = json.loads(json.dumps(dict(task.fields)))
        restored = get_environment("reasoning_gym").from_row(
            {**again, "responses_create_params": {"input": list(task.messages)}}
        )
        assert reward(restored, f"<answer>{again['answer']}</answer>") == 1
