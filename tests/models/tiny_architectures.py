"""Every architecture Kascade trains, small enough for a test on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    NemotronHConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3MoeConfig,
)

VOCABULARY, PAD, END = 32, 0, 1
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": None, "eos_token_id": END}
ATTENTION = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
MAMBA = {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2, "chunk_size": 16}
EXPERTS = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32, "intermediate_size": 64,
}  # fmt: skip


def qwen3_config() -> PreTrainedConfig:
    return Qwen3Config(**TOKENS, **ATTENTION, intermediate_size=64, num_hidden_layers=2,
                       tie_word_embeddings=True, initializer_range=0.2)  # fmt: skip


def qwen3_moe_config() -> PreTrainedConfig:
    """A dense layer, then a sparse one."""
    return Qwen3MoeConfig(
        **TOKENS, **ATTENTION, intermediate_size=64, num_hidden_layers=2, mlp_only_layers=[0],
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True,
        initializer_range=0.2,
    )  # fmt: skip


def nemotron_h_config(**changes: Any) -> NemotronHConfig:
    """Mamba-2, MoE in a latent space, attention and MLP; `changes` over that."""
    defaults: dict[str, Any] = {"moe_latent_size": 16, "initializer_range": 0.2}
    if "layers_block_type" not in changes:
        defaults["hybrid_override_pattern"] = "ME*-"
    return NemotronHConfig(**{**TOKENS, **ATTENTION, **MAMBA, **EXPERTS, **defaults, **changes})


def nemotron_h_by_names() -> PreTrainedConfig:
    """The newer spelling of the pattern, with the names NVIDIA's checkpoints use."""
    return nemotron_h_config(layers_block_type=["mamba", "moe", "attention", "mlp"])


def nemotron_h_without_latent() -> PreTrainedConfig:
    """Nemotron 3 Nano's kind: experts as wide as the model."""
    return nemotron_h_config(moe_latent_size=None, hybrid_override_pattern="MEM*E")


CONFIGS = {
    "qwen3": qwen3_config,
    "qwen3-moe": qwen3_moe_config,
    "nemotron-h": nemotron_h_config,
    "nemotron-h-by-names": nemotron_h_by_names,
    "nemotron-h-no-latent": nemotron_h_without_latent,
}


def tiny_model(name: str, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    words = {"<pad>": PAD, "<end>": END, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "w2")), eos_token="<end>", pad_token="<pad>"
    )
