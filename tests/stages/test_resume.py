"""Killed without warning, also between two updates from one batch of rollouts: the same weights."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from toy_cascade import make_policy, stage, weights

from kascade.errors import TrainingStopped
from kascade.learning.metrics import read_metrics
from kascade.learning.trainer import Trainer
from kascade.recipe.schema import Stage
from kascade.stages.grpo import train_grpo
from kascade.stages.tasks import training_pool
from kascade.stages.training import Training
from kascade.storage.training_folder import TrainingFolder
from kascade.termination import TERMINATED

RULES = {"updates_per_batch": 3, "min_usable_groups": 1, "correction": {"rule": "tis", "low": 0.2, "high": 5}}


def train(folder: Path, kill_at: int | None = None) -> dict[str, torch.Tensor]:
    """Seven updates from three batches; `kill_at`: SIGKILL after so many, without a word."""

    def after_step(done: int) -> None:
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    part: Any = TypeAdapter(Stage).validate_python(
        stage("rl", "if_rl", "say_a", steps=7, save_every=1, keep_states=2, grpo=RULES)
    )
    policy = make_policy()
    tasks = training_pool(part.data, 0, part.name)
    train_grpo(Training(part, policy, tasks, folder=TrainingFolder(folder), after_step=after_step))
    return weights(policy)


@pytest.mark.parametrize("kill_at", [2, 3, 5])
def test_killed_and_run_again_is_as_if_nothing_had_happened(kill_at: int, tmp_path: Path) -> None:
    expected = train(tmp_path / "whole")
    child = multiprocessing.get_context("fork").Process(target=train, args=(tmp_path / "cut", kill_at))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    found = train(tmp_path / "cut")
    assert all(torch.equal(expected[name], value) for name, value in found.items())
    assert read_metrics(tmp_path / "cut" / "metrics.jsonl") == read_metrics(
        tmp_path / "whole" / "metrics.jsonl"
    )


def test_later_updates_of_a_batch_have_ratios_and_the_state_holds_the_batch(tmp_path: Path) -> None:
    train(tmp_path)
    curve = read_metrics(tmp_path / "metrics.jsonl")
    rewards = [line["reward"] for line in curve]
    assert rewards[0] == rewards[1] == rewards[2] != rewards[3]
    assert curve[0]["clipped"] == 0
    assert max(float(line["clipped"]) for line in curve) > 0
    states = sorted((tmp_path / "state").iterdir())
    assert [path.name for path in states] == ["step-00000006", "step-00000007"]
    assert "rollouts.safetensors" not in {path.name for path in states[0].iterdir()}
    assert len(load_file(states[1] / "rollouts.safetensors")["lengths"]) > 0


def test_a_sampler_with_other_weights_stops_the_stage() -> None:
    policy = make_policy()
    policy.check_weights()
    with torch.no_grad():
        next(policy.model.parameters())[0, 0] += 1e-6
    with pytest.raises(TrainingStopped, match="without a sync"):
        policy.check_weights()
    policy.sync(1)


RARE = {**RULES, "updates_per_batch": 2}


def train_rarely_saved(folder: Path, stop_at: tuple[int, str] | None = None) -> dict[str, torch.Tensor]:
    """Five updates, one state at the end. stop_at: SIGTERM in that step, before or after its update."""
    part: Any = TypeAdapter(Stage).validate_python(
        stage("rl", "if_rl", "say_a", steps=5, save_every=5, keep_states=2, grpo=RARE)
    )
    policy = make_policy()
    tasks = training_pool(part.data, 0, part.name)
    training = Training(part, policy, tasks, folder=TrainingFolder(folder), save_on_signal=True)
    if stop_at is not None:
        _terminate_in(*stop_at)
    train_grpo(training)
    return weights(policy)


def _terminate_in(step: int, moment: str) -> None:
    """Let this process get SIGTERM while the update after `step` others is computed, or written down."""
    calls = iter(range(100))
    place = {"before": (Trainer, "_clip"), "after": (Training, "_record")}[moment]
    original = getattr(*place)

    def with_signal(*arguments: Any, **named: Any) -> Any:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **named)

    setattr(*place, with_signal)


@pytest.mark.parametrize(("step", "moment", "kept"), [(0, "before", 0), (3, "before", 3), (3, "after", 4)])
def test_sigterm_saves_a_state_and_loses_at_most_the_step_under_way(
    step: int, moment: str, kept: int, tmp_path: Path
) -> None:
    expected = train_rarely_saved(tmp_path / "whole")
    child = multiprocessing.get_context("fork").Process(
        target=train_rarely_saved, args=(tmp_path / "cut", (step, moment))
    )
    child.start()
    child.join()
    assert child.exitcode == TERMINATED
    states = sorted((tmp_path / "cut" / "state").glob("*"))
    assert [path.name for path in states] == ([f"step-{kept:08d}"] if kept else [])
    found = train_rarely_saved(tmp_path / "cut")
    assert all(torch.equal(expected[name], value) for name, value in found.items())
    curves = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("cut", "whole")]
    assert curves[0] == curves[1]
