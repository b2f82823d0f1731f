"""Differences that are kept on purpose, as docs/graders.md lists them."""

from __future__ import annotations

from typing import Any

import pytest

from kascade.environments import get_environment


def reward(name: str, row: dict[str, Any], answer: str) -> float:
    environment = get_environment(name)
    asked = {"responses_create_params": {"input": "q"}}
    (grade,) = environment.grade(environment.from_row({**asked, **row}), [answer])
    assert grade.error is None
    return grade.reward


def test_of_several_boxes_the_last_complete_one_counts() -> None:
    for answer, earned in (
        (r"\boxed{4} \boxed{5}", 1),
        (r"\boxed{5} \boxed{4}", 0),
        (r"\boxed{5} \boxed{4", 1),
    ):
        assert reward("math_with_judge", {"expected_answer": "5"}, answer) == earned


@pytest.mark.parametrize(("mode", "earned"), [("strict_single_letter_boxed", 0), ("lenient_boxed", 0)])
def test_a_letter_in_another_wrapper_than_text_is_unreadable(mode: str, earned: int) -> None:
    row = {"options": [{"A": "x"}, {"B": "y"}], "expected_answer": "A", "grading_mode": mode}
    assert reward("mcqa", row, r"\boxed{\text{A}}") == 1
    assert reward("mcqa", row, r"\boxed{\mathbf{A}}") == earned


LOOSE = [
    *(("5", r"5\%"), ("A", "a"), (r"\{5\}", "5"), (r"5\text{ cm}", "5"), ("x=3", "3")),
    *(("\u20ac5", "5"), ("101_2", "101")),
]


@pytest.mark.parametrize(("expected", "given"), LOOSE)
def test_math_verifys_loose_equalities_are_kept(expected: str, given: str) -> None:
    assert reward("math_with_judge", {"expected_answer": expected}, rf"\boxed{{{given}}}") == 1


def test_a_relation_is_no_interval_but_an_interval_may_be_the_relation() -> None:
    assert reward("math_with_judge", {"expected_answer": r"(-\infty, 3)"}, r"\boxed{x<3}") == 0
    assert reward("math_with_judge", {"expected_answer": "x<3"}, r"\boxed{(-\infty, 3)}") == 1


def test_ifbench_counts_keywords_within_words() -> None:
    words = {f"keyword{n}": word for n, word in enumerate(("oak", "elm", "ash", "fir", "yew"), 1)}
    row = {"instruction_id_list": ["count:keywords_multiple"], "kwargs": [words]}
    others = "elm elm ash ash ash" + " fir" * 5 + " yew" * 7
    assert reward("ifbench", row, f"oak {others}") == reward("ifbench", row, f"oaken {others}") == 1
    assert reward("ifbench", row, f"oak oaken {others}") == 0


# Of each difference from the published code: an answer that follows here, and one that does not.
OTHERWISE: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["a.c"]}, "It is a.c here.", "It is abc here."),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Text\nP.S. x", "Text\nPxSx x"),
    ("length_constraints:number_words", {"num_words": 2}, "one two three", "one"),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        "Dr. Smith left.",
        "Dr. Smith left. He ran.",
    ),
    ("words:start_verb", {}, "Walk home now.", "Water is wet."),
    ("format:line_indent", {}, "a\n\n\n b\n  c", "a\n\n\nb\n  c"),
    ("count:count_unique", {}, "One, two, three, four.", "One and one and"),
    ("keywords:keyword_specific_position", {"keyword": "tea", "n": 1, "m": 2}, "I, tea now.", "I, a tea."),
    ("words:keywords_specific_position", {"keyword": "tea", "n": 1, "m": 2}, 'I "tea"?! now.', "I a tea."),
    (
        "count:counting_composition",
        {"n_sent": 2, "n_words": 2},
        "***".join(["Go, on. Sit - down!"] * 3),
        "***".join(["Go, on. Sit!"] * 3),
    ),
    (
        "copy:repeat_phrase",
        {"phrase": "I really like tea", "small_n": 2},
        "I truly like tea. I really love tea",
        "I really like tea. I really love tea",
    ),
    ("detectable_format:sentence_hyphens", {}, "Go home.-Sit down.", "Go home.-Sit down.- Now."),
    (
        "change_case:english_lowercase",
        {},
        "this is plain english text",
        "das ist ein deutscher satz und nichts",
    ),
    # as the published code: blank paragraphs count in the index, and bold text breaks sub-bullets
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 3, "nth_paragraph": 3, "first_word": "b"},
        "a\n\n\n\nb\n\ntea",
        "a\n\nb\n\ntea",
    ),
    ("format:sub-bullets", {}, "* a\n- b\n* c\n- d", "* **a**\n- b\n* c\n- d"),
    ("words:words_position", {"keyword": "tea"}, "One tea is a tea here.", 'One tea is a "tea" here.'),
]


@pytest.mark.parametrize(("name", "kwargs", "follows", "does_not"), OTHERWISE, ids=[c[0] for c in OTHERWISE])
def test_instructions_that_are_read_otherwise(
    name: str, kwargs: dict[str, Any], follows: str, does_not: str
) -> None:
    row = {"instruction_id_list": [name], "kwargs": [kwargs]}
    assert reward("ifbench", row, follows) == 1
    assert reward("ifbench", row, does_not) == 0


def test_a_missing_argument_refuses_the_row_and_a_language_is_always_the_same() -> None:
    with pytest.raises(ValueError, match="num_words: missing"):
        reward("ifbench", {"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{}]}, "a")
    row = {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "en"}]}
    assert {reward("ifbench", row, "I go no more so in it") for _ in range(8)} in ({0.0}, {1.0})
    any_language = {
        "instruction_id_list": ["change_case:english_lowercase"],
        "kwargs": [{"any_language": True}],
    }
    assert reward("ifbench", any_language, "das ist ein deutscher satz und nichts") == 1
