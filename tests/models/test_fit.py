"""What a recipe asks of a model is checked against its config, all at once, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_architectures import nemotron_h_config, qwen3_config, qwen3_moe_config

from kascade.models.fit import fit_faults, wide_ranks
from kascade.recipe.adapter import Adapter
from kascade.recipe.load import load_recipe
from kascade.recipe.schema import MTP, LongContext, MoE, Recipe, Rollout


def asking(moe: MoE | None = None, mtp: MTP | None = None, **model: Any) -> Recipe:
    recipe = load_recipe("quickstart")
    first, *others = recipe.stages
    changed = first.model_copy(update={"moe": moe, "mtp": mtp})
    return recipe.model_copy(
        update={"stages": (changed, *others), "model": recipe.model.model_copy(update=model)}
    )


def folder_of(tmp_path: Path, config: dict[str, Any]) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(config, default=str))
    return tmp_path


def test_what_a_model_has_may_be_asked_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, nemotron_h_config(num_nextn_predict_layers=1).to_dict())
    assert fit_faults(folder, asking(MoE(), MTP(), draft_tokens=2)) == []
    by_pattern = {
        "model_type": "nemotron_h", "hybrid_override_pattern": "ME*E", "num_nextn_predict_layers": 1,
        "mtp_hybrid_override_pattern": "*E",
    }  # fmt: skip
    assert fit_faults(folder_of(tmp_path, by_pattern), asking(MoE(), MTP(), draft_tokens=2)) == []


def test_every_wish_that_cannot_be_met_is_named_at_once(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, nemotron_h_config(hybrid_override_pattern="M*-").to_dict())
    recipe = asking(MoE(routing_replay=True), MTP(), draft_tokens=2, long_context=LongContext())
    stage = recipe.stages[0].name
    assert [fault.where for fault in fit_faults(folder, recipe)] == [
        f"stages.{stage}.moe", f"stages.{stage}.mtp", "model.long_context", "model.draft_tokens",
        "model.draft_tokens",
    ]  # fmt: skip


def test_qwen3_moe_has_no_bias_and_dense_models_no_experts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, qwen3_moe_config().to_dict())
    (fault,) = fit_faults(folder, asking(MoE()))
    assert fault.where.endswith("moe.expert_bias_rate") and fault.allowed == "0"
    assert fit_faults(folder, asking(MoE(expert_bias_rate=0.0, routing_replay=True))) == []
    (fault,) = fit_faults(folder_of(tmp_path, qwen3_config().to_dict()), asking(MoE()))
    assert "no experts" in fault.what


@pytest.mark.parametrize("pattern", [["mamba", "moe"], ["linear_attention"]])
def test_a_recurrent_head_cannot_draft(tmp_path: Path, pattern: list[str]) -> None:
    config = {"model_type": "nemotron_h", "num_nextn_predict_layers": 1, "mtp_layers_block_type": pattern}
    (fault,) = fit_faults(folder_of(tmp_path, config), asking(draft_tokens=1))
    assert fault.where == "model.draft_tokens"


def test_what_does_not_go_together_is_said(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, nemotron_h_config(num_nextn_predict_layers=1).to_dict())
    recipe = asking(MoE(routing_replay=True), draft_tokens=2, rollout=Rollout(engine="vllm"))
    exam = recipe.benchmarks[0]
    thoughtful = exam.model_copy(update={"sampling": exam.sampling.model_copy(update={"thinking_budget": 9})})
    recipe = recipe.model_copy(update={"benchmarks": (thoughtful, *recipe.benchmarks[1:])})
    reasons = [fault.what for fault in fit_faults(folder, recipe)]
    assert len(reasons) == 4
    for reason, word in zip(
        reasons, ("record routing", "by its own", "replays", "thinking budget"), strict=True
    ):
        assert word in reason


@pytest.mark.parametrize("make", [qwen3_config, qwen3_moe_config, nemotron_h_config])
def test_a_rank_above_all_layers_is_refused_and_above_some_is_warned_of(tmp_path: Path, make: Any) -> None:
    """A product of [out, r] and [r, in] has at most the rank of the narrower side."""
    config = make()
    folder = folder_of(tmp_path, config.to_dict())
    attention = ("q_proj", "k_proj")
    query, key = (min(config.hidden_size, heads * config.head_dim) for heads in _heads(config))
    for rank, refused, warned in ((key, 0, 0), (key + 1, 0, 1), (query, 0, 1), (query + 1, 1, 0)):
        part = Adapter(rank=rank, targets=attention)
        recipe = load_recipe("quickstart").model_copy(update={"adapter": part})
        faults, warnings = fit_faults(folder, recipe), list(wide_ranks(folder, recipe))
        assert (len(faults), len(warnings)) == (refused, warned), rank
        assert all(one.where == "adapter.rank" for one in (*faults, *warnings))
    assert f"at most {query}" in str(faults[0].allowed)


def _heads(config: Any) -> tuple[int, int]:
    return config.num_attention_heads, config.num_key_value_heads
