"""No grader reads an answer that stands in thinking which never ended."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kascade.environment_names import OF_OTHER_TOOLS
from kascade.environments import get_environment, known_environments
from kascade.environments.rows.gold import gold_answer
from kascade.task import Task

GENERATED = [
    name
    for name in known_environments()
    if name not in ("demonstrations", "equivalence_llm_judge", "lc_judge", "genrm_compare")
    and not (get_environment(name).behind_server or name in OF_OTHER_TOOLS)
]


def _posed(name: str) -> Task:
    return get_environment(name).pose(random.Random(3), 0.5)


@pytest.mark.parametrize("name", GENERATED)
def test_thinking_that_never_ends_answers_nothing(name: str) -> None:
    environment = get_environment(name)
    task = replace(_posed(name), thinking=True)
    gold = (gold_answer(task) or "").rpartition("</think>")[2]
    assert gold
    thought, own, told = environment.grade(task, [gold, f"<think>\n{gold}", f"§</think>{gold}"])
    if told.error is not None:
        pytest.skip(f"NOT RUN: {told.error}")
    assert (thought.reward, own.reward) == (0, 0)
    assert told.reward > 0.9
    (opened,) = environment.grade(replace(task, thinking=False), [f"<think>\n{gold}"])
    assert opened.reward == 0


def test_what_an_answer_is_judged_by_has_no_thinking() -> None:
    task = Task("demonstrations", "chat", ({"role": "user", "content": "?"},), {}, "Yes.", thinking=True)
    grades = get_environment("demonstrations").grade(task, ["Yes.", "hm</think>Yes."])
    assert [grade.reward for grade in grades] == [0, 1]
