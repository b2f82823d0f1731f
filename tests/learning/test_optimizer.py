"""The schedule and what is decayed."""

from __future__ import annotations

import pytest
import torch

from kascade.learning.masters import Masters
from kascade.learning.optimizer import build_optimizer, learning_rate
from kascade.recipe.schema import Optimizer


def test_warmup_rises_from_its_start_and_then_the_rate_is_constant():
    part = Optimizer(learning_rate=2e-6, warmup_steps=30, warmup_start=2e-7)
    assert learning_rate(part, 0, 52) == pytest.approx(2e-7)
    assert learning_rate(part, 15, 52) == pytest.approx(1.1e-6)
    assert learning_rate(part, 30, 52) == learning_rate(part, 51, 52) == pytest.approx(2e-6)


@pytest.mark.parametrize(("schedule", "middle"), [("linear", 3.0), ("cosine", 3.0)])
def test_schedules_end_where_the_recipe_says(schedule: str, middle: float):
    part = Optimizer(learning_rate=5.0, final_learning_rate=1.0, schedule=schedule)
    assert learning_rate(part, 0, 10) == pytest.approx(5.0)
    assert learning_rate(part, 5, 10) == pytest.approx(middle)
    assert learning_rate(part, 10, 10) == pytest.approx(1.0)


def test_only_matrices_decay():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    optimizer = build_optimizer(model, Optimizer(weight_decay=0.5), Masters(model))
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.5,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }
