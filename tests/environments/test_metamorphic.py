"""Rules for any answer: form does not change its reward, and a wrong answer behind it never raises it."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kascade.environments import get_environment
from kascade.environments.rows.gold import gold_answer
from kascade.task import Task

RULES = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@cache
def posed(name: str, seed: int) -> Task:
    return get_environment(name).pose(random.Random(seed), 0.6)


def reward(task: Task, *answers: str) -> list[float]:
    grades = get_environment(task.environment).grade(task, answers)
    assert not [grade.error for grade in grades if grade.error]
    return [grade.reward for grade in grades]


def gold(task: Task) -> str:
    return str(gold_answer(task) or "")


# What may stand around an answer without changing what it says.
AROUND = [
    lambda text: text.replace("\n", "\r\n"),
    lambda text: f"{text}\n\n",
    lambda text: f"{text}  \t",
    lambda text: f"\n{text}",
    lambda text: f"<think>Hm. \\boxed{{0}}</think>\n{text}",
    lambda text: f"{text}\n<think>Or is it",
]  # fmt: skip
READ_SO = (
    *(
        "math_with_judge",
        "mcqa",
        "bfcl",
        "single_step_tool_use_with_argument_comparison",
        "structured_outputs",
    ),
    *("code_gen", "swerl_gen", "swerl_llm_judge"),
)


@pytest.mark.parametrize("name", READ_SO)
def test_what_stands_around_an_answer_does_not_change_its_reward(name: str) -> None:
    for seed in range(4):
        task = posed(name, seed)
        own = gold(task)
        bare = own.rpartition("</think>")[2]
        prefix = own[: len(own) - len(bare)]
        wrong = "\\boxed{Z}" if name in ("math_with_judge", "mcqa") else "{}"
        if name == "bfcl" and "<tool_call>" not in bare:  # nothing fits: any words are right there
            wrong = "<tool_call><function=no></function></tool_call>"
        for text, earned in ((bare, 1), (wrong, 0)):
            found = reward(task, *(prefix + change(text) for change in AROUND))
            assert found == [earned] * len(AROUND), (name, text)


FENCES = st.sampled_from(
    ["```python\n{}\n```", "~~~py\n{}\n~~~", "````python3\n{}\n````", "```\n{}\n```", "{}"]
)
TALK = st.sampled_from(
    ["", "Here it is:\n", "Input:\n```text\n1 2\n```\n", "Run `x`:\n\n", "```bash\npython a.py\n```\n"]
)


@RULES
@given(st.integers(0, 20), FENCES, TALK, st.sampled_from(["", "\nDone.", "\n```text\n3\n```\n"]))
def test_any_fence_and_any_words_around_it_leave_a_program_what_it_is(
    seed: int, fence: str, before: str, after: str
) -> None:
    if fence == "{}":
        before = after = ""
    task = posed("code_gen", seed)
    assert reward(task, before + fence.format(gold(task)) + after) == [1]


NUMBERS = st.integers(-(10**6), 10**6)
WRITTEN = [
    lambda n: f"{n}",
    lambda n: f"{n:,}",
    lambda n: f"{n:,}".replace(",", "{,}"),
    lambda n: f"{n}.0",
    lambda n: f"\\frac{{{2 * n}}}{{2}}",
    lambda n: f" {n} ",
    lambda n: f"${n}$",
    lambda n: f"{n}\\text{{ cm}}",
    lambda n: f"x = {n}",
    lambda n: f"{n}.",
]


def asked(expected: str) -> Task:
    row = {"responses_create_params": {"input": "q"}, "expected_answer": expected}
    return get_environment("math_with_judge").from_row(row)


@RULES
@given(NUMBERS, st.integers(0, len(WRITTEN) - 1), st.integers(0, len(WRITTEN) - 1))
def test_a_number_is_itself_in_every_form_and_no_other_number(n: int, ours: int, theirs: int) -> None:
    task = asked(WRITTEN[ours](n).strip())
    other = WRITTEN[theirs](n + 1)
    assert reward(task, rf"\boxed{{{WRITTEN[theirs](n)}}}", rf"\boxed{{{other}}}") == [1, 0]


@RULES
@given(st.lists(st.integers(0, 9), min_size=2, max_size=4))
def test_a_list_is_not_the_number_of_its_digits(digits: list[int]) -> None:
    listed, glued = ",".join(map(str, digits)), "".join(map(str, digits))
    assert reward(asked(glued), rf"\boxed{{{listed}}}") == [0]
    assert reward(asked(listed), rf"\boxed{{{glued}}}", rf"\boxed{{{listed}}}") == [0, 1]


@RULES
@given(st.integers(1, 9), st.integers(1, 9), st.integers(7, 30))
def test_tiny_numbers_are_equal_only_to_themselves(a: int, b: int, power: int) -> None:
    forms = [f"0.{'0' * (power - 1)}{b}", rf"{b}\times 10^{{-{power}}}", rf"\frac{{{b}}}{{10^{{{power}}}}}"]
    task = asked(f"0.{'0' * (power - 1)}{a}")
    assert reward(task, *(rf"\boxed{{{form}}}" for form in forms)) == [float(a == b)] * 3


WRONG: dict[str, list[str]] = {
    "math_with_judge": ["\\boxed{-77777}", "\n\\boxed{x}", "\\fbox{}"],
    "mcqa": ["\\boxed{Z}", "\\boxed{}", "\nAnswer: Z"],
    "code_gen": ["\n```python\nraise ValueError\n```", "\n```py\n```"],
    "swerl_gen": ["\n<<<<<<< SEARCH\nno such line\n=======\nx\n>>>>>>> REPLACE"],
    "structured_outputs": ["\n{}", " x", "\n```json\n[]\n```"],
    "bfcl": ["<tool_call><function=no></function></tool_call>"],
    "single_step_tool_use_with_argument_comparison": ["<tool_call><function=no></function></tool_call>"],
    "swerl_llm_judge": ["<solution>Z</solution>"],
    "lc_niah": ["\nFinal Answer: []", "\nno"],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_behind_another_never_raises_its_reward(name: str) -> None:
    for seed in range(4):
        task = posed(name, seed)
        starts: list[Any] = [gold(task), "", "I do not know.", *WRONG[name]]
        alone = reward(task, *starts)
        for wrong in WRONG[name]:
            after = reward(task, *(start + wrong for start in starts))
            assert all(late <= early for early, late in zip(alone, after, strict=True)), (name, wrong)
