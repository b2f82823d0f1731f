"""A short RL stage on servers of other projects: the reward rises."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from pydantic import TypeAdapter
from toy_cascade import LETTERS, make_policy, stage

from kascade.learning.metrics import read_metrics
from kascade.recipe.schema import Stage
from kascade.stages.grpo import train_grpo
from kascade.stages.tasks import training_pool
from kascade.stages.training import Training
from kascade.storage.training_folder import TrainingFolder

pytestmark = [pytest.mark.outside, pytest.mark.slow]
STEPS = 20


def rewards_of_a_stage(
    folder: Path, environment: str, rows: list[dict[str, Any]], steps: int = STEPS, **options: Any
) -> list[float]:
    """Mean reward per step of a GRPO stage with the toy policy."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"environment": environment, "path": str(path), "options": options, "hold_out": False}
    sampling = {"max_new_tokens": 12}
    given = stage("rl", "swe_rl", steps=steps, data=[{"source": source}], sampling=sampling)
    part: Any = TypeAdapter(Stage).validate_python(given)
    curves = TrainingFolder(folder / "training")
    train_grpo(Training(part, make_policy(), training_pool(part.data, 0, "rl"), folder=curves))
    metrics = read_metrics(curves.curves)
    assert all(line["grader_errors"] == 0.0 for line in metrics)
    return [line["reward"] for line in metrics]


def prompts(count: int) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(LETTERS, k=5)) for _ in range(count)]


def test_a_nemo_gym_server_teaches(tmp_path: Path, nemo_gym: Callable[..., dict[str, Any]]) -> None:
    rows = [
        {
            "responses_create_params": {"input": [{"role": "user", "content": prompt}]},
            "follow_ups": ["h g"],
            "expected_answer": "a",
        }
        for prompt in prompts(64)
    ]
    options = nemo_gym("example_multi_turn_gymnasium", conversations=16)
    rewards = rewards_of_a_stage(tmp_path, "nemo_gym", rows, **options)
    assert mean(rewards[-5:]) > mean(rewards[:5]) + 0.2, rewards


def test_an_openenv_server_teaches(tmp_path: Path, openenv: Callable[..., dict[str, Any]]) -> None:
    rows = [{"responses_create_params": {"input": prompt}, "reset": {}} for prompt in prompts(64)]
    options = openenv(observation_field="echoed_message", reward_range=[0, 20], max_steps=2, conversations=16)
    rewards = rewards_of_a_stage(tmp_path, "openenv", rows, **options)
    assert mean(rewards[-5:]) > mean(rewards[:5]) + 0.05, rewards
