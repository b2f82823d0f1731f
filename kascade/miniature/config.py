"""Configurations of the two built-in miniatures, small enough to pretrain on two CPU cores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

HIDDEN_SIZE = 128
MINI_NEMOTRON_H_PATTERN = "M*EM*EM*E"  # Mamba-2, attention, latent MoE, three times


def mini_nemotron_h_config(
    vocab_size: int, pad_token_id: int, bos_token_id: int | None, eos_token_id: int
) -> PreTrainedConfig:
    """A Mamba-2 / attention / latent-MoE hybrid, the architecture of Nemotron 3 (arXiv 2512.20848 §2).

    Its embeddings are not tied: transformers' `nemotron_h` has no tying.
    """
    from transformers import NemotronHConfig

    return NemotronHConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN_SIZE,
        hybrid_override_pattern=MINI_NEMOTRON_H_PATTERN,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        mamba_num_heads=8,
        mamba_head_dim=32,
        ssm_state_size=32,
        n_groups=1,
        conv_kernel=4,
        chunk_size=32,
        n_routed_experts=8,
        num_experts_per_tok=2,
        moe_latent_size=64,
        moe_intermediate_size=96,
        moe_shared_expert_intermediate_size=256,
        intermediate_size=256,
        initializer_range=0.05,  # the usual 0.02 leaves squared-ReLU experts of this width nearly silent
        tie_word_embeddings=False,
        pad_token_id=pad_token_id,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
    )


def mini_qwen3_config(
    vocab_size: int, pad_token_id: int, bos_token_id: int | None, eos_token_id: int
) -> PreTrainedConfig:
    """A four-layer Qwen3 (arXiv 2505.09388 §2) of the same width."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=pad_token_id,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
    )


MINI_CONFIGS = {"mini-nemotron-h": mini_nemotron_h_config, "mini-qwen3": mini_qwen3_config}


def mini_config(
    name: str, vocab_size: int, pad_token_id: int, bos_token_id: int | None, eos_token_id: int
) -> PreTrainedConfig:
    """The configuration of a built-in miniature. Raises UserError naming those that exist."""
    if name not in MINI_CONFIGS:
        raise UserError(Fault(f"miniature {name!r}", "does not exist", allowed=", ".join(MINI_CONFIGS)))
    return MINI_CONFIGS[name](vocab_size, pad_token_id, bos_token_id, eos_token_id)
