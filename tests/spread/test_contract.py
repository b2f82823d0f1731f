"""Every private or young name that the engine leans on: a new torch or transformers fails here first."""

from __future__ import annotations

import inspect

import pytest
import torch
from spread_cases import nemotron_h, qwen3, qwen3_moe
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.distributed import DistributedConfig, checkpoint, fsdp, mixin, utils
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING


def parameters(function: object) -> set[str]:
    return set(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_sizes_of_a_mesh_are_named_as_we_name_them() -> None:
    wanted = {"fsdp_size", "dp_replicate_size", "ep_size", "fsdp_mixed_precision"}
    assert wanted <= parameters(DistributedConfig)
    config = DistributedConfig(fsdp_size=4, dp_replicate_size=2, ep_size=2)
    assert (config.dp_size, config.efsdp_size) == (8, 2)


def test_a_model_asks_for_its_mesh_by_a_name_that_can_be_replaced() -> None:
    source = inspect.getsource(mixin.DistributedMixin.prepare_distribute_model)
    assert "initialize_distributed_mesh(distributed_config)" in source
    assert mixin.initialize_distributed_mesh is utils.initialize_distributed_mesh


def test_mixed_precision_computes_in_bfloat16_and_reduces_in_float32() -> None:
    config = DistributedConfig(fsdp_size=2, fsdp_mixed_precision=True)
    policy = fsdp._get_fsdp_policy_kwargs(config)["mp_policy"]
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)


def test_shards_are_laid_out_anew_for_files_and_back() -> None:
    assert parameters(checkpoint._redistribute_state_dict) == {"state_dict", "reference_state_dict"}
    assert {"state_dict", "checkpoint_id", "process_group"} <= parameters(state_dict_saver.save)
    assert {"state_dict", "checkpoint_id", "no_dist"} <= parameters(state_dict_loader.load)
    assert hasattr(FileSystemReader, "read_metadata")


def test_a_spread_model_says_how_it_is_spread() -> None:
    source = inspect.getsource(mixin.DistributedMixin.maybe_distribute_model)
    assert "model._mesh_manager = mesh_manager" in source
    assert "model.config.distributed_config = distributed_config" in source
    assert parameters(utils.TransformersDeviceMesh.get_mesh) == {"self", "dims"}
    assert {"mesh", "mp_policy", "reshard_after_forward"} <= parameters(fully_shard)


def test_hub_layout_and_activations() -> None:
    assert list(inspect.signature(revert_weight_conversion).parameters) == ["model", "state_dict"]
    assert "offload" in parameters(PreTrainedModel.activation_checkpointing_enable)
    assert hasattr(PreTrainedModel, "disable_input_require_grads")
    assert "self.training" in inspect.getsource(GradientCheckpointingLayer)


def test_norms_and_clipping_are_apart() -> None:
    assert {"parameters", "max_norm", "total_norm"} <= parameters(clip_grads_with_norm_)
    assert {"tensors"} <= parameters(get_total_norm)


@pytest.mark.parametrize("config", [qwen3(), qwen3_moe(), nemotron_h()], ids=lambda c: c.model_type)
def test_every_family_has_its_plans(config: object) -> None:
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        model = kind(config)
    assert model.fsdp_plan
    assert bool(model.ep_plan) == (config.model_type != "qwen3")  # type: ignore[attr-defined]
    assert hasattr(model, "all_tied_weights_keys")


def test_a_module_runs_the_forward_that_it_holds_itself() -> None:
    """What both seams rest on: hooks around a forward that is put in the place of the class's own."""
    module, seen = nn.Linear(2, 2), []
    module.register_forward_pre_hook(lambda *_: seen.append("before"))
    module.register_forward_hook(lambda *_: seen.append("after"))
    module.__dict__["forward"] = lambda *_: seen.append("within")
    module(torch.zeros(2))
    assert seen == ["before", "within", "after"]
