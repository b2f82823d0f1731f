"""The rule's promise: at most 1% false alarms a cascade, at least 95% power for a fall of 5 points."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from kascade.guard.simulate import Setting, simulate
from kascade.recipe.schema import Guard

SETTINGS = {
    "typical": Setting(),
    "strong wobble": Setting(wobble=20.0),
    "easy tasks": Setting(mean=0.9),
    "no wobble": Setting(wobble=None),
}


def test_no_false_alarms_and_a_fall_of_five_points_is_found() -> None:
    assert simulate(SETTINGS["strong wobble"], 60, seed=0).alarmed == 0
    found = simulate(Setting(drop=0.05), 150, seed=1)
    assert found.detected is not None
    assert found.detected >= 0.92  # 95% less two standard errors of 150 cascades
    assert found.samples < 12


def test_without_the_rules_protection_it_would_cry_wolf() -> None:
    careless = Guard(family_level=0.49, min_drop=0.0, screen_level=0.9, recovery={"rounds": 0})
    assert simulate(Setting(guard=careless, wobble=20.0), 40, seed=2).alarmed > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_error_rates_at_full_size(name: str) -> None:
    setting = SETTINGS[name]
    alarms = simulate(setting, 500, seed=3)
    count = round(alarms.alarmed * alarms.cascades)
    assert binomtest(count, alarms.cascades, 0.01, alternative="less").pvalue < 0.05
    dropped = Setting(
        mean=setting.mean, concentration=setting.concentration, wobble=setting.wobble, drop=0.05
    )
    found = simulate(dropped, 400, seed=4)
    assert found.detected is not None
    assert found.detected >= 0.95
