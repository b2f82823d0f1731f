"""The rule at the presets' sizes: no false alarms, and falls of three shapes found with drift in their
stage."""

from __future__ import annotations

import numpy as np
import pytest

from kascade.guard.simulate import FITS, Difficulty, Setting, _drifted, first_stage, lowered
from kascade.recipe.schema import Guard

QUICKSTART = {"tasks": 128, "guard": Guard(confirm_samples=8)}
SHAPES = ("uniform", "proportional", "whole_tasks")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_fall_has_its_size_in_every_shape(shape: str) -> None:
    rng = np.random.default_rng(0)
    chances = rng.beta(1.0, 0.6, 400)
    found = lowered(rng, chances, 0.05, shape)  # type: ignore[arg-type]
    assert chances.mean() - found.mean() == pytest.approx(0.05, abs=1e-6)
    assert found.min() >= 0
    moved = (found < chances - 1e-9).mean()
    assert moved < 0.3 if shape == "whole_tasks" else moved > 0.9


def test_the_stage_that_drops_drifts_too() -> None:
    rng = np.random.default_rng(1)
    fallen = np.full(400, 0.5)
    moved = _drifted(Setting(drift=10.0), rng, fallen)
    assert np.std(moved - fallen) == pytest.approx(np.sqrt(0.25 / 11), rel=0.15)
    assert (_drifted(Setting(drift=None), rng, fallen) == fallen).all()


def test_nothing_is_called_where_nothing_changed() -> None:
    found = first_stage(Setting(**QUICKSTART, drift=100.0), 120, seed=2)
    assert found.called == 0
    assert found.suspicious < 0.45


def test_a_large_fall_is_found_at_the_quickstarts_size() -> None:
    found = first_stage(Setting(**QUICKSTART, drift=10.0, fall=0.15), 40, seed=3)
    assert found.called >= 0.85


def test_without_the_rules_protection_it_would_call_chance_a_loss() -> None:
    careless = Guard(
        family_level=0.49,
        min_drop=0.0,
        screen_level=0.9,
        recovery={"rounds": 0},
        within_margin=0.0,
        futile_fall=1e-4,
    )
    setting = Setting(guard=careless, tasks=100, stages=1, benchmarks=1, drift=20.0)
    assert first_stage(setting, 60, seed=4).called > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "fall", "shape", "least"),
    [(400, 0.05, "uniform", 0.95), (200, 0.05, "uniform", 0.8), (400, 0.05, "whole_tasks", 0.9)],
)
def test_power_at_the_presets_sizes(tasks: int, fall: float, shape: str, least: float) -> None:
    """Real difficulties, the first stage, drift as strong as in a quickstart run."""
    setting = Setting(tasks=tasks, drift=10.0, fall=fall, shape=shape)  # type: ignore[arg-type]
    found = first_stage(setting, 140, seed=5)
    assert found.called >= least - 2 * np.sqrt(least * (1 - least) / 140)


@pytest.mark.slow
@pytest.mark.parametrize("drift", [None, 100.0])
@pytest.mark.parametrize("difficulty", [*FITS[:2], Difficulty(0.0, 0.4, 5.0, 4.0)])
def test_error_rate_at_the_flagships_size(drift: float | None, difficulty: Difficulty) -> None:
    found = first_stage(Setting(drift=drift, difficulties=(difficulty,)), 150, seed=6)
    assert found.called == 0
