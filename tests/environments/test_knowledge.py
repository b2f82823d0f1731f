"""Multiple choice: the four grading modes, the row's own pattern, and what must not pass or hang."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.environments import Task, get_environment
from kascade.environments.knowledge import MODES
from kascade.environments.rows.gold import gold_answer
from kascade.task import Grade

ROW = {
    "responses_create_params": {"input": "Which?"},
    "options": [{"A": "red"}, {"B": "Dark blue"}, {"C": "blue"}, {"D": None}],
    "expected_answer": "B",
}
STRICT, LENIENT, COLON, MARKED = MODES


def task(mode: str, **fields: Any) -> Task:
    return get_environment("mcqa").from_row({**ROW, "grading_mode": mode, **fields})


def graded(posed: Task, answer: str) -> Grade:
    (grade,) = get_environment("mcqa").grade(posed, [answer])
    return grade


CASES = [  # answer, modes under which it is right
    (r"\boxed{B}", (STRICT, LENIENT)),
    (r"\boxed{ (B) }", (STRICT, LENIENT)),
    (r"\boxed{\text{B}}", (STRICT, LENIENT)),
    (r"\boxed{B: Dark blue}", (STRICT, LENIENT)),
    (r"\boxed{B) red}", (STRICT, LENIENT)),
    (r"\boxed{A} no, \boxed{B}", (STRICT, LENIENT)),
    (r"\boxed{B} or \boxed{A}", ()),
    (r"\boxed{A, B}", ()),
    (r"\boxed{b}", ()),
    (r"\boxed{D}", ()),
    (r"\boxed{AB}", ()),
    ("\\boxed{\u0412}", ()),  # a Cyrillic letter
    (r"\boxed{B}</think>I do not know.", ()),
    (r"\boxed{red}</think>\boxed{B}", (STRICT, LENIENT)),
    (r"\boxed{dark blue}", ()),  # holds "blue" too
    (r"\boxed{B", ()),
    ("Answer: B", (COLON, MARKED)),
    ("answer : b", (COLON, MARKED)),
    ("Answer: Dark  BLUE", (COLON,)),
    ("Answer: A\nAnswer: B", (COLON, MARKED)),
    ("Answer: B\nAnswer: A", ()),
    ("**Answer**: B", (MARKED,)),
    ("**Answer:** **B**", (MARKED,)),
    ("Answer: B because it is", (MARKED,)),
    ("Answer: it is B", (MARKED,)),
    ("Answer: \uff22", (MARKED,)),  # a full-width letter
    ("Answer: A, B", ()),
    ("Answer: B or C", ()),
    ("Answer: A/B/C", ()),
    ("The answer is B", ()),
    ("B", ()),
    ("", ()),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "right"), CASES)
def test_grading_modes(answer: str, right: tuple[str, ...]) -> None:
    assert tuple(mode for mode in MODES if graded(task(mode), answer).reward == 1) == right


def test_the_rows_own_pattern_comes_first() -> None:
    own = task(STRICT, template_metadata={"output_regex": r"final:\s*\(?(\w[\w ]*)"})
    answers = {
        "Final: b": 1,
        "final: A, then final: B": 1,
        "final: B, then final: A": 0,
        "final: dark blue": 1,
        "final: E": 0,
        r"final: A \boxed{B}": 0,
        r"\boxed{B}": 1,
        "final: nothing": 0,
    }
    assert {answer: graded(own, answer).reward for answer in answers} == answers
    several = task(STRICT, template_metadata={"output_regex": [r"<a>(\w)</a>", r"<b>(\w)</b>|<c>(\w)</c>"]})
    assert [graded(several, answer).reward for answer in ("<a>B</a>", "<c>B</c>", "<b>A</b>")] == [1, 1, 0]


def test_a_pattern_that_backtracks_without_end_is_an_error_and_not_a_zero() -> None:
    slow = task(STRICT, template_metadata={"output_regex": "(a+)" * 9 + r"\1b"})
    start = time.process_time()
    assert "took longer" in str(graded(slow, "a" * 300).error)
    assert time.process_time() - start < 15
    assert graded(slow, r"\boxed{B}").reward == 1


def test_an_answer_in_thinking_that_never_ends_is_none() -> None:
    thoughtful = replace(task(STRICT), thinking=True)
    answers = {r"\boxed{B}": 0, r"B it is</think>\boxed{B}": 1, r"\boxed{B}</think>": 0}
    assert {answer: graded(thoughtful, answer).reward for answer in answers} == answers


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"template_metadata": {"output_regex": "("}}, "output_regex"),
        ({"template_metadata": {"output_regex": [3]}}, "output_regex"),
        ({"options": ["A", "B"]}, "options"),
        ({"options": [{"A": "x"}, {"B": None}]}, "options"),
        ({"expected_answer": "E"}, "expected_answer"),
        ({"grading_mode": "lenient"}, "grading_mode"),
    ],
)
def test_a_row_that_cannot_be_graded_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_environment("mcqa").from_row({**ROW, **fields})


PIECES = st.lists(
    st.sampled_from([r"\boxed{", r"\text{", *"{}AB: \n*,", "Answer", "or", "blue"]), max_size=20
).map("".join)


@settings(max_examples=400, deadline=None)
@given(answer=st.text(max_size=100) | PIECES, mode=st.sampled_from(list(MODES)))
def test_no_answer_crashes_the_grader(answer: str, mode: str) -> None:
    grade = graded(task(mode), answer)
    assert grade.error is None
    assert grade.reward in (0, 1)


@pytest.mark.parametrize("piece", [r"\boxed{", r"\text{", "Answer: ", " ", "*", "A ", r"\boxed ", "answer"])
def test_long_answers_are_graded_in_bounded_time(piece: str) -> None:
    start = time.process_time()
    for mode in MODES:
        assert graded(task(mode), piece * 30_000).error is None
    assert time.process_time() - start < 10


def test_a_limit_on_patterns_leaves_a_rows_options_alone() -> None:
    environment = get_environment("mcqa").with_options({"regex_seconds": 0.5})
    task = environment.from_row(ROW)
    assert [grade.reward for grade in environment.grade(task, [gold_answer(task) or "", ""])] == [1, 0]
