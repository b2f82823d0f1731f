"""A stage's curriculum on a policy whose pass rates are known: measured once, kept, and found on resume."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_cascade import make_policy, mix

from kascade.errors import UserError
from kascade.recipe.schema import RLStage
from kascade.stages.curriculum import by_pass_rate
from kascade.stages.tasks import training_pool
from kascade.stages.training import Training
from kascade.storage.files import read_json, write_json
from kascade.storage.training_folder import TrainingFolder


def stage_of(environment: str, **curriculum: float) -> RLStage:
    return RLStage.model_validate(
        {
            "name": "toy", "kind": "multi_domain_rl", "data": [mix(environment)], "steps": 4,
            "prompts_per_step": 8, "rollouts_per_prompt": 4, "sampling": {"max_new_tokens": 4},
            "curriculum": {"samples": 4, "passed_from": 0.25, "bins": 4, **curriculum},
        }
    )  # fmt: skip


def test_pass_rates_are_measured_once_and_steer_what_is_drawn(tmp_path: Path) -> None:
    part = stage_of("say_a", first_mean=0.6, last_mean=0.4)
    assert part.curriculum is not None
    pool = training_pool(part.data, 1, "toy")
    training = Training(part, make_policy(), pool, seed=1, folder=TrainingFolder(tmp_path))
    chosen = by_pass_rate(training, pool, part.curriculum)
    rates = read_json(tmp_path / "pass_rates.json")
    assert rates.keys() == {task.id for task in pool.sources[0]} and len(set(rates.values())) > 2
    drawn = chosen.draw(0, 8)
    assert all(rates[task.id] < 1 for task in drawn)
    write_json(tmp_path / "pass_rates.json", {**rates, drawn[0].id: 1.0})  # found, not measured again
    again = by_pass_rate(training, pool, part.curriculum)
    assert drawn[0].id not in {task.id for step in range(4) for task in again.draw(step, 8)}


def test_tasks_that_cannot_be_graded_stay_out_and_none_left_is_the_users_fault(tmp_path: Path) -> None:
    part = stage_of("broken")
    assert part.curriculum is not None
    pool = training_pool(part.data, 1, "toy")
    training = Training(part, make_policy(), pool, seed=1, folder=TrainingFolder(tmp_path))
    with pytest.raises(UserError, match="no task is left"):
        by_pass_rate(training, pool, part.curriculum)
    assert set(read_json(tmp_path / "pass_rates.json").values()) == {None}
