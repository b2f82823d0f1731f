"""What a recipe says about the model reaches the stages: experts, draft heads, context, precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from toy_cascade import make_run, make_tokenizer, stage
from transformers import NemotronHConfig, PreTrainedModel
from transformers.models.nemotron_h import NemotronHForCausalLM

from kascade.data.chat import ChatFormat
from kascade.errors import UserError
from kascade.learning.metrics import read_metrics
from kascade.models.load import load_model, save_model
from kascade.models.mtp import add_mtp_head, mtp_head
from kascade.models.routing import routers
from kascade.recipe.schema import ModelPart, Recipe, Stage
from kascade.rollout.policy import Policy
from kascade.rollout.speculative import SpeculativeEngine
from kascade.stages.grpo import train_grpo
from kascade.stages.tasks import training_pool
from kascade.stages.training import Training
from kascade.steps import steps
from kascade.storage.checkpoint import verify
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.storage.training_folder import TrainingFolder

PARTS: TypeAdapter[Any] = TypeAdapter(Stage)


def make_hybrid() -> PreTrainedModel:
    torch.manual_seed(0)
    config = NemotronHConfig(
        vocab_size=len(make_tokenizer()), hidden_size=32, hybrid_override_pattern="ME*E",
        num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=16,
        n_groups=1, chunk_size=16, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        moe_shared_expert_intermediate_size=32, intermediate_size=64, pad_token_id=0, bos_token_id=None,
        eos_token_id=1, initializer_range=0.1, num_nextn_predict_layers=1,
    )  # fmt: skip
    model = NemotronHForCausalLM(config).eval()
    add_mtp_head(model)
    return model


def hybrid_policy() -> Policy:
    tokenizer = make_tokenizer()
    return Policy.around(make_hybrid(), tokenizer, ChatFormat(tokenizer))


def grpo_stage(**more: Any) -> Any:
    return PARTS.validate_python(stage("rl", "if_rl", "say_a", **more))


def training(policy: Policy, part: Any, folder: Path, **more: Any) -> Training[Any]:
    tasks = training_pool(part.data, 0, part.name)
    return Training(part, policy, tasks, "rl", folder=TrainingFolder(folder), **more)


def train(policy: Policy, part: Any, folder: Path) -> list[dict[str, Any]]:
    train_grpo(training(policy, part, folder))
    return read_metrics(folder / "metrics.jsonl")


def test_grpo_with_replayed_experts_and_a_draft_head(tmp_path: Path) -> None:
    policy = hybrid_policy()
    fixed = [router.weight.detach().clone() for router in routers(policy.model)]
    head = [parameter.detach().clone() for parameter in mtp_head(policy.model).parameters()]
    part = grpo_stage(steps=2, moe={"routing_replay": True}, mtp={"loss_scale": 0.1})
    found = train(policy, part, tmp_path)
    assert [line["routing_agreement"] for line in found] == [1.0, 1.0]  # one update a batch: on policy
    assert all(line["logprob_gap"] < 1e-4 and line["mtp_nll"] > 0 for line in found)
    assert all(line["expert_imbalance"] >= 1 for line in found)
    assert all(torch.equal(a, r.weight) for a, r in zip(fixed, routers(policy.model), strict=True))
    assert any(router.e_score_correction_bias.any() for router in routers(policy.model))
    assert any(not torch.equal(a, p) for a, p in zip(head, mtp_head(policy.model).parameters(), strict=True))


def test_a_resumed_stage_has_the_same_biases_and_heads(tmp_path: Path) -> None:
    part = grpo_stage(steps=3, save_every=2, moe={}, mtp={})
    whole, halted = hybrid_policy(), hybrid_policy()
    train(whole, part, tmp_path / "whole")

    class Killed(Exception): ...

    def kill(done: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        train_grpo(training(halted, part, tmp_path / "halted", after_step=kill))
    resumed = hybrid_policy()
    train(resumed, part, tmp_path / "halted")
    expected, found = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_drafted_rollouts_report_their_acceptance(tmp_path: Path) -> None:
    save_model(make_hybrid(), make_tokenizer(), tmp_path / "model")
    policy = Policy.load(tmp_path / "model", ModelPart(source="x", draft_tokens=2))
    assert isinstance(policy.engine, SpeculativeEngine)
    part = grpo_stage(steps=1, prompts_per_step=4, rollouts_per_prompt=4)
    (line,) = train(policy, part, tmp_path / "training")
    assert 0 <= line["draft_acceptance"] <= 1 and line["tokens_per_forward"] >= 1
    assert line["logprob_gap"] < 1e-4


def run_asking(tmp_path: Path, **model: Any) -> RunFolder:
    layout = make_run(tmp_path, stage("rl", "if_rl", "say_a"))
    recipe = json.loads(layout.resolved_recipe.read_text())
    recipe["model"] |= model
    write_text(layout.resolved_recipe, Recipe.model_validate(recipe).model_dump_json())
    return layout


def test_a_longer_context_goes_into_the_base_checkpoint(tmp_path: Path) -> None:
    layout = run_asking(tmp_path, long_context={"factor": 2.0, "original_max_position_embeddings": 512})
    model = load_model(verify(steps.preflight(str(layout.root)))[0], device="cpu")
    assert model.config.rope_parameters["rope_type"] == "yarn"
    assert model.config.max_position_embeddings >= 1024


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_preflight_names_what_the_model_and_the_machine_lack(tmp_path: Path) -> None:
    layout = run_asking(tmp_path, precision="nvfp4", draft_tokens=2)
    with pytest.raises(UserError) as caught:
        steps.preflight(str(layout.root))
    assert {fault.where for fault in caught.value.faults} == {"model.precision", "model.draft_tokens"}
