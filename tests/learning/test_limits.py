"""Limits name what was passed, and only what the stage measures is checked."""

from __future__ import annotations

import pytest

from kascade.errors import TrainingStopped
from kascade.learning.limits import check_limits
from kascade.recipe.schema import TrainingLimits


def test_every_limit_passed_is_named_with_its_value():
    limits = TrainingLimits(max_truncated=0.5, min_entropy=0.1)
    metrics = {"logprob_gap": 0.06, "truncated": 0.9, "entropy": 0.05, "dropped": 0.2}
    with pytest.raises(TrainingStopped) as caught:
        check_limits(3, metrics, limits)
    message = str(caught.value)
    assert "logprob_gap 0.06 is above 0.05" in message
    assert "truncated 0.9 is above 0.5" in message
    assert "entropy 0.05 is below 0.1" in message
    assert "dropped" not in message


def test_what_is_off_or_not_measured_passes():
    check_limits(0, {"logprob_gap": 9.0}, TrainingLimits(max_logprob_gap=None))
    check_limits(0, {}, TrainingLimits(min_entropy=1.0))


def test_nucleus_sampling_may_raise_log_probabilities_a_little():
    check_limits(0, {"logprob_gap": 0.09}, TrainingLimits(), truncation_slack=0.05)
