"""RLHF with a model as judge, and reward models from the pairs that rows bring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_cascade import make_model, make_tokenizer

from kascade.data.chat import ChatFormat
from kascade.environments import get_environment
from kascade.environments.judging.genrm import Scores
from kascade.environments.judging.judge import JudgeError, current_judge, use_judge
from kascade.environments.rows.loading import row_task
from kascade.errors import UserError
from kascade.recipe.judge_model import JudgeModel
from kascade.recipe.load import load_recipe
from kascade.recipe.rules import Pairwise
from kascade.recipe.schema import RLHFStage
from kascade.rollout.answers import Answered
from kascade.rollout.checkpoint_judge import set_up_judge
from kascade.rollout.policy import Policy
from kascade.rollout.types import Sample
from kascade.stages.reward_model import sample_preferences, train_reward_model
from kascade.stages.rlhf import PREFERENCE, compare_pair, pairwise_grades
from kascade.stages.training import Training
from kascade.task import Task

PLAIN = Pairwise(length_coefficient=0, conciseness_bonus=0)


def task(**row: Any) -> Task:
    params = {"responses_create_params": {"input": [{"role": "user", "content": "a b c"}]}}
    return row_task(get_environment("genrm_compare"), params | row)


def answered(*answers: str) -> Answered:
    samples = tuple(Sample((1,), (0.0,), "stop", 0) for _ in answers)
    return Answered(task(), (1,), samples, answers)


def by_length(pairs: Sequence[tuple[Task, str, str]]) -> list[Scores | JudgeError]:
    """Longer is better; "bad" cannot be judged."""
    return [
        JudgeError("no verdict")
        if "bad" in (first, second)
        else (3.0, 3.0, 2.5 if len(first) > len(second) else 4.5)
        for _, first, second in pairs
    ]


def test_all_pairs_are_judged_in_both_positions_and_ties_broken_by_the_ranking() -> None:
    seen: list[tuple[str, str]] = []

    def judge(pairs: Sequence[tuple[Task, str, str]]) -> list[Scores | JudgeError]:
        seen.extend((first, second) for _, first, second in pairs)
        return by_length(pairs)

    ((one, two, three),) = pairwise_grades([answered("x", "xx", "xxx")], PLAIN, judge, None)
    assert len(set(seen)) == 6
    assert [grade.reward for grade in (one, two, three)] == [2.0, 3.0, 4.0]
    assert [grade.components[PREFERENCE] for grade in (one, two, three)] == [0.25, 0.5, 0.75]


def test_an_answer_that_no_verdict_reached_is_an_error_and_the_rest_is_graded() -> None:
    ((good, bad, better), (lonely,)) = pairwise_grades(
        [answered("x", "bad", "xxx"), answered("alone")], PLAIN, by_length, None
    )
    assert (good.reward, better.reward) == (2.0, 4.0)
    assert bad.error == "no verdict"
    assert "no other answer" in str(lonely.error)


def test_a_row_has_no_rule_to_compare_by() -> None:
    with pytest.raises(UserError, match=r"judge\.kind: genrm"):
        compare_pair(task(), "a", "b")


class Tasks:
    """Rows with preference pairs: more of a is preferred."""

    def draw(self, step: int, count: int) -> list[Task]:
        rng = np.random.default_rng(step)
        drawn = []
        for _ in range(count):
            words = ["a"] * int(rng.integers(2, 5)), ["b"] * int(rng.integers(2, 5))
            drawn.append(task(chosen=" ".join(words[0]), rejected=" ".join(words[1])))
        return drawn


def stage(**judge: Any) -> RLHFStage:
    rule = {"kind": "reward_model", "pairs": 48, "batch_size": 8, "epochs": 4, "min_agreement": 0.9, **judge}
    rule["optimizer"] = {"learning_rate": 3e-3}
    return RLHFStage.model_validate(
        {
            "kind": "rlhf",
            "name": "rlhf",
            "steps": 1,
            "prompts_per_step": 4,
            "rollouts_per_prompt": 2,
            "data": [{"source": {"environment": "genrm_compare"}}],
            "judge": rule,
        }
    )


def test_a_reward_model_learns_the_preference_pairs_of_rows() -> None:
    tokenizer = make_tokenizer()
    policy = Policy.around(make_model(), tokenizer, ChatFormat(tokenizer))
    training = Training(stage(), policy, Tasks())
    pairs = sample_preferences(training, compare_pair)
    assert len(pairs) == 48
    assert all("a" in pair.chosen and "b" in pair.rejected for pair in pairs)
    model = train_reward_model(training, compare_pair)
    high, low = model.score(policy.chat, task(), ["a a a", "b b b"])
    assert high > low


def test_a_checkpoint_on_this_machine_judges(tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    try:
        set_up_judge(JudgeModel(model=str(folder), max_tokens=4, temperature=1.0), None)
        said = [
            current_judge().ask([{"role": "user", "content": "a b"}], draw=draw) for draw in (0, 0, 1, 2, 3)
        ]
        assert said[0] == said[1]
        assert len(set(said)) > 1
        set_up_judge(JudgeModel(model=str(tmp_path / "none")), None)
        with pytest.raises(JudgeError, match="cannot be loaded"):
            current_judge().ask([{"role": "user", "content": "a"}])
    finally:
        use_judge(None)


def test_a_genrm_stage_needs_a_judge_in_the_recipe() -> None:
    setting = ["rlhf.judge.kind=genrm"]
    with pytest.raises(UserError, match="names no judge"):
        load_recipe("quickstart", setting)
    named = load_recipe("quickstart", [*setting, "judge.url=http://judge:8000/v1", "judge.model=big"])
    assert named.judge == JudgeModel(url="http://judge:8000/v1", model="big")
