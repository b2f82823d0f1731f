"""Every domain: gold answers pass, empty and hostile ones do not, splits never share a task."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.environments import BUILTIN, SHIPPED_DOMAINS, Environment, Task, get_environment
from kascade.environments.base import generate_tasks
from kascade.environments.rows.tool_calls import parse_tool_calls, render_tool_call
from kascade.errors import UserError
from kascade.miniature.corpus import documents, train_task
from kascade.task import split_of

NAMES = sorted(BUILTIN)
TEXT_ONLY = [name for name in NAMES if name not in ("code_gen", "swerl_gen")]  # no program is run for these


def tasks(name: str, count: int = 100, split: str = "train") -> list[Task]:
    return generate_tasks(get_environment(name), split=split, count=count, seed=1)  # type: ignore[arg-type]


def reward(task: Task, answer: str) -> float:
    (grade,) = get_environment(task.environment).grade(task, [answer])
    assert grade.error is None, grade.error
    return grade.reward


def test_there_is_an_environment_for_each_domain() -> None:
    assert {get_environment(name).domain for name in NAMES} == set(SHIPPED_DOMAINS)


@pytest.mark.parametrize("name", NAMES)
def test_gold_answers_pass_and_empty_ones_fail(name: str) -> None:
    environment = get_environment(name)
    posed = tasks(name, 60)
    grades = environment.grade_all([(task, [task.reference or "", ""]) for task in posed])
    assert all(gold.error is None and empty.error is None for gold, empty in grades)
    assert all(gold.reward >= 0.5 for gold, _ in grades)
    assert name == "genrm_compare" or all(gold.reward == 1 for gold, _ in grades)
    assert all(empty.reward == 0 for _, empty in grades)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_to_another_task_mostly_fails(name: str) -> None:
    posed = tasks(name, 60)
    shifted = [
        (task, [other.reference or ""]) for task, other in zip(posed, posed[1:] + posed[:1], strict=True)
    ]
    rewards = [group[0].reward for group in get_environment(name).grade_all(shifted)]
    assert sum(rewards) / len(rewards) < 0.45


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_disjoint_and_reproducible(name: str) -> None:
    by_split = {split: tasks(name, 50, split) for split in ("train", "validation", "test")}
    assert all(split_of(task.id) == split for split, posed in by_split.items() for task in posed)
    assert [task.id for task in tasks(name, 50)] == [task.id for task in by_split["train"]]


@pytest.mark.parametrize("name", NAMES)
def test_levels_widen_the_tasks(name: str) -> None:
    environment = get_environment(name)
    lengths = [
        sum(len(environment.pose(random.Random(seed), level).messages[-1]["content"]) for seed in range(200))
        for level in (0.0, 1.0)
    ]
    assert lengths[1] >= lengths[0]


def test_a_generator_that_runs_dry_says_so() -> None:
    class Single(Environment):
        name = "single"
        domain = "math"

        def pose(self, rng: random.Random, level: float) -> Task:
            return Task("single", "math", ({"role": "user", "content": "1 + 1"},), {})

        def grade(self, task: Task, answers: object) -> list[object]:  # type: ignore[override]
            return []

    with pytest.raises(ValueError, match="only"):
        generate_tasks(Single(), split="train", count=5, seed=0)


def test_an_unknown_environment_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="mcqa"):
        get_environment("mcq")


@settings(max_examples=150, deadline=None)
@given(answer=st.text(max_size=200), name=st.sampled_from(TEXT_ONLY), index=st.integers(0, 19))
def test_no_answer_crashes_a_grader(answer: str, name: str, index: int) -> None:
    (grade,) = get_environment(name).grade(tasks(name, 20)[index], [answer])
    assert grade.error is None
    assert 0 <= grade.reward <= 1


def test_math_reads_the_last_box_after_the_thinking() -> None:
    task = tasks("math_with_judge", 1)[0]
    value = task.fields["expected_answer"]
    assert reward(task, f"</think>\\boxed{{{value}}}") == 1
    assert reward(task, f"</think>\\boxed{{{value}}} or \\boxed{{1234567}}") == 0
    assert reward(task, f"\\boxed{{{value}}}") == 0  # still thinking
    assert reward(task, f"\\boxed{{{value}}}</think>") == 0  # hidden in the thinking
    assert reward(task, f"</think>\\boxed{{{value}.0}}") == 1


def test_choice_modes() -> None:
    environment = get_environment("mcqa")
    row = {
        "responses_create_params": {"input": "Which?"},
        "options": [{"A": "red"}, {"B": "blue"}],
        "expected_answer": "B",
    }
    verdicts = {
        "strict_single_letter_boxed": ("\\boxed{B}", "\\boxed{blue}"),
        "lenient_boxed": ("\\boxed{blue}", "B"),
        "lenient_answer_colon": ("Answer: b", "**Answer**: B"),
        "lenient_answer_colon_md": ("**Answer**: B", "\\boxed{B}"),
    }
    for mode, (right, wrong) in verdicts.items():
        task = environment.from_row({**row, "grading_mode": mode})
        assert [g.reward for g in environment.grade(task, [right, wrong])] == [1, 0], mode
    hedged = environment.from_row(row)
    assert reward(hedged, "\\boxed{B} \\boxed{A}") == 0


def test_structured_output_is_strict() -> None:
    task = next(task for task in tasks("structured_outputs", 50) if "result" not in (task.reference or ""))
    value = json.loads(task.reference or "")
    assert reward(task, "```json\n" + json.dumps(value) + "\n```") == 1
    assert reward(task, json.dumps(value) + " trailing") == 0
    assert reward(task, json.dumps({**value, "extra": 1})) == 0
    value.pop(next(iter(value)))
    assert reward(task, json.dumps(value)) == 0
    assert reward(task, "[" * 100_000) == 0


def test_tool_calls_are_judged_by_the_state_they_leave() -> None:
    task = next(t for t in tasks("workplace_assistant", 100) if "move_meeting" in (t.reference or ""))
    gold = parse_tool_calls(task.reference or "")
    detour = render_tool_call("move_meeting", {"meeting": gold[0].arguments["meeting"], "day": "monday"})
    assert reward(task, detour + (task.reference or "")) == 1  # another way to the same state
    assert (
        reward(task, (task.reference or "") + "<tool_call><function=drop_tables></function></tool_call>") == 0
    )
    assert reward(task, (task.reference or "").replace("</function>", "")) == 0


def test_retrieval_penalises_copying_into_the_reasoning() -> None:
    task = tasks("lc_niah", 1)[0]
    copied = task.messages[-1]["content"][:60]
    assert reward(task, f"looking</think>{task.reference}") > 0.5
    assert reward(task, f"{copied}</think>{task.reference}") < 0.1


def test_the_preference_is_antisymmetric() -> None:
    environment = get_environment("genrm_compare")
    task = tasks("genrm_compare", 1)[0]
    first, second, ranking = environment.compare(task, task.fields["baseline"], "no")  # type: ignore[attr-defined]
    assert first > second
    assert ranking < 3.5
    assert environment.compare(task, "no", task.fields["baseline"]) == (second, first, 7 - ranking)  # type: ignore[attr-defined]


BAD_ROWS = {
    "mcqa": [{}, {"options": [{"A": "x"}]}, {"options": [{"A": "x"}, {"B": "y"}], "expected_answer": "C"}],
    "instruction_following": [{}, {"instruction_id_list": ["keywords:existense"], "kwargs": [{}]}],
    "structured_outputs": [{}, {"schema_str": "["}, {"schema_str": "{}", "schema_type": "docx"}],
    "math_with_judge": [{}],
    "lc_niah": [{}],
}


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, rows in BAD_ROWS.items() for row in rows])
def test_a_bad_row_names_its_field(name: str, row: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w+:"):
        get_environment(name).from_row({"responses_create_params": {"input": "hi"}, **row})


def test_the_corpus_shows_no_task_of_an_exam_and_some_chats() -> None:
    rng = random.Random(0)
    assert all(split_of(train_task(rng, name).id) == "train" for name in NAMES for _ in range(20))
    stream = documents(0)
    texts = [next(stream).text for _ in range(500)]
    chats = [text for text in texts if text.startswith("<|im_start|>user\n")]
    assert 0.2 < len(chats) / len(texts) < 0.5
    assert all(text.count("<think>") == text.count("</think>") == text.count("assistant") for text in chats)
    again = documents(0)
    assert [next(again).text for _ in range(500)] == texts
