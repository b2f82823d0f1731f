"""Batches drawn while the one before is learnt: however slowly, by the sampler's own weights."""

from __future__ import annotations

import threading

import pytest
import torch
from toy_cascade import make_policy, mix

from kascade.errors import TrainingStopped
from kascade.recipe.schema import RLStage
from kascade.rollout.policy import Policy
from kascade.stages.draws import Draws

STAGE = RLStage.model_validate(
    {
        "kind": "if_rl",
        "name": "say",
        "data": [mix("say_a")],
        "steps": 2,
        "save_every": 2,
        "prompts_per_step": 4,
        "rollouts_per_prompt": 2,
        "optimizer": {"learning_rate": 1e-2},
        "workers": {
            "samplers": 1,
            "asynchronous": True,
            "correction": {"rule": "icepop", "low": 0.2, "high": 5.0},
        },
    }
)


def learn(policy: Policy) -> None:
    """Weights change, and the sampler does not have them yet."""
    with torch.no_grad():
        next(policy.model.parameters()).add_(1.0)


def test_a_batch_that_is_drawn_after_the_weights_have_changed_is_as_good() -> None:
    policy, learnt = make_policy(), threading.Event()

    def draw(*, step: int) -> int:
        if step == 1:  # a machine with much to do: the draw gets its turn after the update
            assert learnt.wait(60)
        policy.check_weights()
        return step

    draws = Draws(draw, STAGE, policy)
    with draws.of(0) as first:
        learn(policy)
        learnt.set()
    policy.sync(1)
    with draws.of(1) as second:
        assert (first, second) == (0, 1)


def test_a_sampler_that_changes_meanwhile_stops_the_training() -> None:
    policy = make_policy()

    def draw(*, step: int) -> int:
        if step == 1:
            policy.engine.weights_checksum += 1
            policy.check_weights()
        return step

    draws = Draws(draw, STAGE, policy)
    with draws.of(0):
        pass
    with pytest.raises(TrainingStopped, match="the sampler holds weights"), draws.of(1):
        pass


def test_weights_that_were_changed_before_a_batch_is_drawn_ahead_stop_the_training() -> None:
    policy = make_policy()
    learn(policy)
    draws = Draws(lambda *, step: step, STAGE, policy)
    with pytest.raises(TrainingStopped, match="the sampler holds weights"), draws.of(0):
        pass
