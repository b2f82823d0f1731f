"""Options about memory and processes reach every part of a stage: samplers, judge, recovery, restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from test_judged import Tasks, task
from test_judged import stage as judged
from test_model_controls import make_hybrid
from torch.nn.modules.module import register_module_forward_pre_hook
from toy_cascade import make_model, make_policy, make_run, make_tokenizer, stage

from kascade.actors.workers import engine_maker
from kascade.data.chat import ChatFormat
from kascade.errors import TrainingStopped
from kascade.learning.sharded import WorkerLost
from kascade.learning.trainers import stage_trainer
from kascade.models.load import save_model
from kascade.recipe.model_parts import MoE
from kascade.recipe.parallel import Parallel
from kascade.recipe.schema import ModelPart, Rollout, Stage
from kascade.rollout.native import NativeEngine
from kascade.rollout.policy import Policy
from kascade.rollout.routed import RoutedEngine
from kascade.rollout.speculative import SpeculativeEngine
from kascade.run.context import open_run
from kascade.stages.recover import recovery_part
from kascade.stages.reward_model import RewardModel, train_reward_model
from kascade.stages.rlhf import compare_pair
from kascade.stages.train import load_policy
from kascade.stages.training import StepMetrics, Training
from kascade.steps import steps
from kascade.storage.training_folder import TrainingFolder

PARTS: TypeAdapter[Any] = TypeAdapter(Stage)


def rl(**more: Any) -> Any:
    return PARTS.validate_python(stage("rl", "if_rl", "say_a", **more))


def test_a_recovery_treats_memory_and_experts_as_the_stage_that_it_recovers(tmp_path: Path) -> None:
    own: dict[str, Any] = {
        "moe": {"expert_bias_rate": 0.0},
        "activations": "offload",
        "frozen_weights": "host",
        "keep_states": 3,
        "save_every": 7,
        "micro_batch_tokens": 99,
        "parallel": {"shard": 2},
        "workers": {"trainers": 2, "samplers": 1},
        "limits": {"max_entropy": 9.0},
    }
    layout = make_run(tmp_path, stage("rl", "if_rl", "say_a", **own))
    with open_run(str(layout.root), "rl.recover") as run:
        made = recovery_part(run, "rl", rl().data)
    assert made.moe == MoE(expert_bias_rate=0.0) and made.parallel == Parallel(shard=2)
    assert (made.activations, made.frozen_weights, made.keep_states) == ("offload", "host", 3)
    assert (made.save_every, made.micro_batch_tokens) == (7, 99)
    assert (made.workers.trainers, made.limits.max_entropy) == (2, 9.0)


@pytest.mark.parametrize("losses", [3, 4])
def test_a_stage_that_keeps_losing_trainers_over_the_same_steps_ends(losses: int, tmp_path: Path) -> None:
    part, policy = rl(steps=3, save_every=1, workers={"max_losses": 3}), make_policy()
    training = Training(part, policy, Tasks(), folder=TrainingFolder(tmp_path))
    lost: list[int] = []

    def take(step: int) -> StepMetrics:
        if step and lost.count(step) < losses:
            lost.append(step)
            raise WorkerLost("a process that trains was lost")
        return {}

    if losses == 3:
        training.run_steps(take)
        assert lost == [1, 1, 1, 2, 2, 2]  # three over the steps after one state, and three after the next
        return
    with pytest.raises(TrainingStopped, match="lost 4 times over the steps after 1"):
        training.run_steps(take)


def test_samplers_draft_and_hold_as_many_rows_as_the_recipe_says(tmp_path: Path) -> None:
    save_model(make_hybrid(), make_tokenizer(), tmp_path / "model")
    few = Rollout(max_batch_rows=3)
    drafting = ModelPart(source="x", draft_tokens=2)
    policy = Policy.load(tmp_path / "model", ModelPart(source="x", rollout=few))
    assert isinstance(policy.engine, NativeEngine) and policy.engine._max_rows == 3
    assert isinstance(engine_maker(policy, rl(), drafting)(policy.model), SpeculativeEngine)
    plain = engine_maker(policy, rl(), ModelPart(source="x"))(policy.model)
    assert type(plain) is NativeEngine and plain._max_rows == 3
    replayed = rl(moe={"routing_replay": True})
    stage_trainer(policy, replayed)
    for engine in (policy.engine, engine_maker(policy, replayed, ModelPart(source="x"))(policy.model)):
        assert isinstance(engine, RoutedEngine) and engine._max_rows == 3


def test_a_stage_that_samples_nothing_starts_no_vllm(tmp_path: Path) -> None:
    """The recipe's engine is for other stages: here it would cost memory, and a hand-over an update."""
    layout = make_run(tmp_path, stage("sft", "sft", "say_a"))
    with open_run(str(layout.root), "sft.train") as run:
        changed = run.recipe.model.model_copy(update={"rollout": Rollout(engine="vllm"), "draft_tokens": 2})
        run.recipe = run.recipe.model_copy(update={"model": changed})
        base = steps.preflight(str(layout.root))
        policy = load_policy(run, run.recipe.stages[0], base, None)
    assert type(policy.engine) is NativeEngine


@pytest.mark.parametrize("activations", ["keep", "recompute"])
def test_a_reward_model_computes_as_many_tokens_at_once_as_the_stage_does(activations: str) -> None:
    """And its layers again, where the stage does so; what it learns stays the same."""
    sizes: list[int] = []
    kept = 0

    def note(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, RewardModel):
            sizes.append(len(given[0]) * max(map(len, given[0])))

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    found = {}
    for tokens, kind in ((100_000, "keep"), (64, activations)):
        tokenizer, kept = make_tokenizer(), 0
        policy = Policy.around(make_model(), tokenizer, ChatFormat(tokenizer))
        changes = {"micro_batch_tokens": tokens, "activations": kind}
        training = Training(judged(epochs=1, min_agreement=0).model_copy(update=changes), policy, Tasks())
        sizes.clear()
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, register_module_forward_pre_hook(note):
            model = train_reward_model(training, compare_pair)
            scores = model.score(policy.chat, task(), ["a a a", "b", "b b b b", "a"] * 8)
        found[tokens] = max(sizes), kept, scores
    assert found[100_000][0] > 64 >= found[64][0]
    assert found[64][2] == pytest.approx(found[100_000][2], abs=1e-3)
    assert (found[64][1] < found[100_000][1] / 2) == (activations == "recompute")
