"""Duplicates and contamination: found where they were planted, and nowhere else."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kascade.data.contamination import find_contamination
from kascade.data.duplicates import find_duplicates
from kascade.data.lengths import measure_lengths

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on shared cores

WORDS = [f"word{number}" for number in range(3000)]

WORDING = "Solve the following problem and put the answer and only the answer inside a box please"


def text(rng: random.Random, length: int = 60) -> list[str]:
    return rng.choices(WORDS, k=length)


def test_planted_near_duplicates_are_found_and_no_others() -> None:
    rng = random.Random(0)
    originals = [text(rng) for _ in range(200)]
    copies = []
    for original in originals[:50]:
        copy = list(original)
        copy[rng.randrange(len(copy))] = "changed"  # 5 of 56 shingles: Jaccard 0.84 or more
        copies.append(copy)
    found = find_duplicates([" ".join(words) for words in originals + copies])
    assert {(i, j) for i, j, _ in found.near} == {(i, 200 + i) for i in range(50)}
    assert all(share >= 0.8 for _, _, share in found.near)
    assert found.exact == ()


def test_case_space_and_punctuation_do_not_hide_a_copy() -> None:
    found = find_duplicates(["How tall is it?", "how  tall\nis IT", "How tall was it?", "", "?"])
    assert found.exact == ((0, 1),)
    assert found.num_surplus == 1


@PATIENT
@given(st.lists(st.text(max_size=40), max_size=12))
def test_any_texts_are_compared(texts: list[str]) -> None:
    found = find_duplicates(texts + texts)
    grouped = {index for group in found.exact for index in group}
    for index, one in enumerate(texts):
        if any(char.isalnum() for char in one):
            assert {index, index + len(texts)} <= grouped


def test_a_leaked_exam_task_is_found_although_it_is_reworded_at_its_ends() -> None:
    rng = random.Random(1)
    wording = WORDING.split()
    exam = [" ".join(wording + text(rng)) for _ in range(40)]
    leaked = " ".join(["Yesterday", "we", "saw", *exam[3].split()[20:], "right"])
    training = [leaked, *(" ".join(wording + text(rng)) for _ in range(100))]
    (found,) = find_contamination(training, {"exam": exam})
    assert (found.benchmark, found.task) == ("exam", 3)
    assert 0.5 <= found.share < 1


def test_a_short_task_is_seen_only_in_its_own_words() -> None:
    exams = {"sums": ["What is 3 + 4?", "What is 5 + 6?"]}
    assert [one.task for one in find_contamination(["what is 3 + 4"], exams)] == [0]
    assert find_contamination(["He asked: what is 3 + 4, and she said 7"], exams) == []
    assert find_contamination([], exams) == []


def test_a_short_question_is_seen_in_another_wrapper() -> None:
    asked = ["Who painted the ceiling of that chapel", "Which river runs past the royal town", "Why is it so"]
    exams = {"quiz": [f"Answer in one word: {question}? Be brief." for question in asked]}
    training = ["Q: which river runs past the royal town? A:", "It is so, he said, and asked why."]
    assert [one.task for one in find_contamination(training, exams)] == [1]


def test_lengths_fall_into_buckets_that_hold_all_of_them() -> None:
    lengths = measure_lengths([0, 1, 1, 2, 3, 4, 900, 1024])
    assert lengths is not None
    assert lengths.buckets == ((0, 1, 1), (1, 2, 2), (2, 4, 2), (4, 8, 1), (512, 1024, 1), (1024, 2048, 1))
    assert (lengths.total, lengths.longest) == (1935, 1024)
    assert measure_lengths([]) is None
