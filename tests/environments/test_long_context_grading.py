"""Lists found in long contexts: F1, and what copying the context into the reasoning costs."""

from __future__ import annotations

import json
import random
import time
from difflib import SequenceMatcher
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.environments import Task, get_environment
from kascade.environments.long_context.copying import longest_common, ngram_share
from kascade.environments.rows.loading import row_task
from kascade.task import Grade

EDGES = "\n".join(f"{n:04x} -> {n * 7 % 64:04x}" for n in range(64))
PROMPT = f"Here is a graph of directed edges.\n{EDGES}\nFind the parents of node 0007. Final Answer: [a, b]"


def row(expected: list[str], **fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": PROMPT}
    params = {"input": [{"role": "system", "content": "Think first."}, message]}
    own = {"expected_answer": json.dumps(expected), "problem_type": "parents", "source": "graphwalks"}
    return {"responses_create_params": params, **own, **fields}


def task(expected: list[str], **options: Any) -> Task:
    return row_task(get_environment("lc_niah").with_options(options), row(expected))


def graded(asked: Task, answer: str) -> Grade:
    (grade,) = get_environment("lc_niah").grade(asked, [answer])
    assert grade.error is None
    return grade


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Final Answer: [0001, 0002]", 1),
        ('so:\nFinal Answer: ["0002", "0001", "0001"]\n', 1),
        ("**Final Answer: [0001, 0002]**", 1),
        ("Final Answer: [0001], or [0002]", 0),
        ("Final Answer: [0001]", 2 / 3),
        ("Final Answer: [0001, 0002, 0003, 0004]", 2 / 3),
        ("Final Answer: [0003]", 0),
        ("Final Answer: []", 0),
        ("Final Answer: [0001, 0002]\nI think.", 0),
        ("[0001, 0002]", 0),
        ("Final Answer: 0001, 0002", 0),
        ("<think>Final Answer: [0001, 0002]", 0),
        ("Final Answer: [0001, 0002]</think>none", 0),
        ("Final Answer: [0001, 0\u0660\u06602]", 0.5),  # Arabic digits are no node
        ("", 0),
    ],
)
def test_the_list_on_the_last_line_is_graded_by_f1(answer: str, score: float) -> None:
    assert graded(task(["0001", "0002"]), answer).reward == pytest.approx(score)


def test_an_empty_set_is_answered_by_an_empty_list_only() -> None:
    asked = task([])
    assert [graded(asked, text).reward for text in ("Final Answer: []", "Final Answer: [0001]", "none")] == [
        1,
        0,
        0,
    ]


COPIED = EDGES[:200]
REASONING = f"I looked.   {COPIED.upper()}"  # case and spacing do not hide a copy


def test_copying_costs_by_the_rule_and_the_metric_that_the_recipe_names() -> None:
    answer = f"<think>{REASONING}</think>Final Answer: [0001]"
    share = len(" ".join(COPIED.split())) / len(" ".join(REASONING.split()))
    plain, lcs = graded(task(["0001"], overlap_grading_rule="base"), answer), graded(task(["0001"]), answer)
    assert plain.reward == 1
    assert lcs.components["overlap"] == pytest.approx(share, abs=0.02)
    assert lcs.reward == pytest.approx(1 - lcs.components["overlap"])
    minus = graded(task(["0001", "0002"], overlap_grading_rule="minus"), answer)
    assert minus.reward == pytest.approx(2 / 3 - lcs.components["overlap"])
    assert minus.reward < 0
    words = graded(task(["0001"], overlap_metric_rule="ngram16"), answer)
    total = len(REASONING.split()) - 15
    assert words.components["overlap"] == pytest.approx((total - 2) / total)  # all but those of "I looked."
    like = graded(task(["0001"], overlap_metric_rule="seq_match"), answer)
    assert 0 <= like.components["overlap"] < 1
    assert graded(task(["0001"]), "Final Answer: [0001]").components["overlap"] == 0


def test_an_option_that_is_none_is_refused() -> None:
    for options in ({"overlap_metric_rule": "ngram8"}, {"overlap_grading_rule": "divide"}, {"n": 1}):
        with pytest.raises(ValueError, match=r"options\."):
            get_environment("lc_niah").with_options(options)


SMALL = st.text(alphabet="abcA \n", max_size=60)


@settings(max_examples=200, deadline=None)
@given(SMALL, SMALL)
def test_the_longest_common_stretch_is_that_of_an_exhaustive_search(text: str, source: str) -> None:
    match = SequenceMatcher(None, text, source, autojunk=False).find_longest_match()
    assert longest_common(text, source) == match.size


def test_a_long_context_is_read_in_seconds() -> None:
    rng = random.Random(0)
    source = "".join(rng.choice("0123456789abcdef ->\n") for _ in range(100_000))
    text = source[1000:1500] + "".join(rng.choice("0123456789abcdef") for _ in range(10_000))
    started = time.process_time()
    assert 500 <= longest_common(text, source) < 520
    assert time.process_time() - started < 5


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.sampled_from(["lcs", "ngram16", "seq_match"]))
def test_no_answer_crashes_the_grader(answer: str, metric: str) -> None:
    asked = task(["0001"], overlap_metric_rule=metric)
    for text in (answer, f"{answer}</think>Final Answer: [0001]", f"Final Answer: [{answer}]"):
        assert 0 <= graded(asked, text).reward <= 1


def test_runs_shorter_than_sixteen_words_are_no_copies() -> None:
    assert ngram_share("a b c", "a b c") == 0
    assert ngram_share(" ".join("abcdefghijklmnop"), " ".join("abcdefghijklmnopq")) == 1
