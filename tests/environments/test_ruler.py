"""Long contexts: the asked length, one right answer, and no way to pass by listing everything."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from kascade.environments import get_environment
from kascade.environments.base import generate_tasks
from kascade.environments.long_context.haystacks import KINDS, frequent_words, graph_walk, variable_tracking
from kascade.environments.long_context.ruler import Ruler
from kascade.models.load import resolve_source
from kascade.task import Task


def ruler(**options: object) -> Ruler:
    found = get_environment("ruler").with_options(options)
    assert isinstance(found, Ruler)
    return found


def reward(task: Task, answer: str) -> float:
    (grade,) = get_environment("ruler").grade(task, [answer])
    assert grade.error is None
    return grade.reward


@pytest.mark.parametrize("kind", KINDS)
def test_gold_answers_pass_and_neither_silence_nor_everything_does(kind: str) -> None:
    environment = ruler(kinds=[kind], length=600, shortest=400)
    for task in generate_tasks(environment, split="train", count=5, seed=0):
        prompt = task.messages[0]["content"]
        assert reward(task, f"looking\n{task.reference}") == 1
        assert reward(task, f"{task.reference}</think>none") == 0
        assert reward(task, "") == 0
        everything = ", ".join(dict.fromkeys(re.findall(r"\w+", prompt)))
        assert reward(task, f"Final Answer: [{everything}]") < 0.6
        assert reward(task, prompt) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_have_the_length_that_was_asked_for(kind: str) -> None:
    tokenizer = resolve_source("builtin://mini-nemotron-h") / "tokenizer.json"
    environment = ruler(kinds=kind, length=3000, shortest=3000, tokenizer=str(tokenizer))
    from tokenizers import Tokenizer

    counting = Tokenizer.from_file(str(tokenizer))
    task = environment.pose(random.Random(1), 1.0)
    length = len(counting.encode(task.messages[0]["content"]).ids)
    assert 2700 <= length <= 3000


def test_a_level_is_a_length() -> None:
    environment = ruler(length=4000, shortest=500)
    short, long = (environment.pose(random.Random(0), level) for level in (0.0, 1.0))
    words = [len(task.messages[0]["content"].split()) * 1.5 for task in (short, long)]
    assert words[0] <= 500
    assert 3000 < words[1] <= 4000


def test_answers_follow_from_the_texts() -> None:
    for seed in range(20):
        tracked = variable_tracking(random.Random(seed), 5)
        values: dict[str, str] = {}
        for name, value in re.findall(r"Set (\w+) to (\w+)\.", tracked.text):
            values[name] = values.get(value, value)
        (start,) = re.findall(r"\d+", tracked.question)
        assert sorted(name for name, value in values.items() if value == start) == sorted(tracked.expected)
        words = frequent_words(random.Random(seed), 5).text.split()
        counts = sorted({words.count(word) for word in words}, reverse=True)
        assert len(counts) >= 4
        walked = graph_walk(random.Random(seed), 30)
        edges = re.findall(r"(\w+) -> (\w+)", walked.text)
        if "have an edge" in walked.question:
            end = walked.question.rstrip("?").split()[-1]
            assert {a for a, b in edges if b == end} == set(walked.expected)


def test_published_rows_are_graded_by_rulers_own_measures() -> None:
    environment = get_environment("ruler")
    row = {"responses_create_params": {"input": "long text"}, "expected_values": ["123", "456"]}
    task = environment.from_row(row)
    assert [reward(task, text) for text in ("it is 123 and 456", "123", "none")] == [1, 0.5, 0]
    either = environment.from_row({**row, "task": "qa_1"})
    assert reward(either, "456, I think") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"kinds": ["double"]},
        {"kinds": []},
        {"length": 10, "shortest": 20},
        {"depth": 3},
        {"tokenizer": "/none"},
        {"tokenizer": 5},
        {"kinds": 5},
        {"length": None},
        {"shortest": "x"},
        {"tokens_per_word": [1]},
    ],
)
def test_options_at_fault_are_named(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ruler(**options)
