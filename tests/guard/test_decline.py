"""The same checkpoint measured twice on the same tasks: a fall is called, and chance is not."""

from __future__ import annotations

import numpy as np
import pytest

from kascade.guard.decline import Measured, falls, measured
from kascade.guard.scores import Score
from kascade.recipe.guard import Guard

GUARD = Guard()


def drawn(rng: np.random.Generator, drop: float = 0.0, tasks: int = 200, samples: int = 16) -> Measured:
    """Tasks of fixed difficulty, answered anew."""
    chances = np.clip(np.random.default_rng(1).beta(1.2, 0.8, tasks) - drop, 0, 1)
    rewards = (rng.random((tasks, samples)) < chances[:, None]).astype(float)
    score = Score(
        benchmark="math",
        domain="math",
        checkpoint="c" * 64,
        phase="promotion",
        round=0,
        temperature=1.0,
        rewards={f"t{i}": list(map(float, row)) for i, row in enumerate(rewards)},
        mean_response_tokens=1.0,
        num_truncated=0,
    )
    found = measured(score)
    assert found is not None
    return found


def test_a_fall_of_eight_points_is_called_and_named() -> None:
    rng = np.random.default_rng(5)
    called = [falls({"math": drawn(rng)}, {"math": drawn(rng, 0.08)}, GUARD) for _ in range(50)]
    assert sum(map(bool, called)) >= 48
    assert called[0][0].startswith("The champion fell on math: from 0.")


def test_nothing_is_called_where_nothing_fell() -> None:
    rng = np.random.default_rng(6)
    alarms = sum(bool(falls({"math": drawn(rng)}, {"math": drawn(rng)}, GUARD)) for _ in range(200))
    assert alarms <= 4


def test_the_error_is_that_of_fixed_tasks() -> None:
    rng = np.random.default_rng(7)
    many = [drawn(rng) for _ in range(300)]
    spread = float(np.std([one.mean for one in many]))
    assert float(np.mean([one.error for one in many])) == pytest.approx(spread, rel=0.15)


def test_other_tasks_are_not_compared() -> None:
    rng = np.random.default_rng(8)
    assert not falls({"math": drawn(rng)}, {"math": drawn(rng, 0.5, tasks=100)}, GUARD)
