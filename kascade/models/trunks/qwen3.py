"""Training forward of dense Qwen3. (arXiv 2505.09388 §2)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.models.attention import Attention, positions
from kascade.models.batch import TokenBatch
from kascade.models.fused import swiglu_down
from kascade.models.norms import rms_norm, rotated_heads
from kascade.models.projections import base_of, is_adapted, project, through

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def supports(model: PreTrainedModel) -> bool:
    """Whether `forward` computes what the model does."""
    config: Any = model.config
    return bool(
        set(config.layer_types) == {"full_attention"}
        and not (config.attention_bias or config.attention_dropout)
        and config.hidden_act == "silu"
    )


def forward(model: Any, batch: TokenBatch) -> Tensor:
    """States [N, H] after the final norm that predict the scored tokens.

    Behind the last attention, only those are computed.
    """
    attend = Attention(batch, model.dtype)
    x = F.embedding(batch.token_ids, model.model.embed_tokens.weight)
    angles = _angles(model, x, batch)
    for index, layer in enumerate(model.model.layers):
        x = x + _attention(layer.self_attn, _norm(x, layer.input_layernorm), attend, angles)
        if index == len(model.model.layers) - 1:
            x = x.index_select(0, batch.predictors)
        x = x + _mlp(layer.mlp, _norm(x, layer.post_attention_layernorm))
    return _norm(x, model.model.norm)


def _norm(x: Tensor, norm: Any) -> Tensor:
    return rms_norm(x, norm.weight, norm.variance_epsilon)


def _angles(model: Any, x: Tensor, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Cosines, and sines with the first half negated, of every token's position: each [M, 1, D]."""
    cos, sin = model.model.rotary_emb(x, positions(batch)[None])
    first, second = sin.chunk(2, dim=-1)
    return cos[0, :, None], torch.cat((-first, second), dim=-1)[0, :, None]


def _attention(attention: Any, h: Tensor, attend: Attention, angles: tuple[Tensor, Tensor]) -> Tensor:
    width = attention.head_dim
    layers = (attention.q_proj, attention.k_proj, attention.v_proj)
    heads = tuple(len(base_of(layer).weight) // width for layer in layers[:2])
    projected = project(h, *layers).view(len(h), -1, width)
    norms, eps = (attention.q_norm.weight, attention.k_norm.weight), attention.q_norm.variance_epsilon
    query, key, value = rotated_heads(projected, norms, heads, eps, angles)
    return through(attention.o_proj, attend(query, key, value))


def _mlp(mlp: Any, h: Tensor) -> Tensor:
    gate_up = project(h, mlp.gate_proj, mlp.up_proj)
    # Fused: silu(gate) * up is computed again in the backward instead of being kept.
    if not is_adapted(mlp.down_proj):
        return swiglu_down(gate_up, base_of(mlp.down_proj).weight)
    gate, up = gate_up.chunk(2, dim=-1)
    return through(mlp.down_proj, F.silu(gate) * up)
