"""Models small enough for a test."""

from __future__ import annotations

import torch
from transformers import NemotronHConfig, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from transformers.models.nemotron_h import NemotronHForCausalLM


def tiny_qwen3(seed: int = 0, vocab_size: int = 32) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=None, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def tiny_nemotron_h(seed: int = 0, vocab_size: int = 32) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = NemotronHConfig(
        vocab_size=vocab_size, hidden_size=32, hybrid_override_pattern="ME*E", num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=16,
        n_groups=1, chunk_size=16, n_routed_experts=4, num_experts_per_tok=2, moe_latent_size=16,
        moe_intermediate_size=32, moe_shared_expert_intermediate_size=32, intermediate_size=64,
        pad_token_id=0, bos_token_id=None, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    return NemotronHForCausalLM(config).eval()
