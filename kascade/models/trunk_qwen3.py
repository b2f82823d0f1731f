"""Training forward of dense Qwen3. (arXiv 2505.09388 §2)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.models.batch import TokenBatch
from kascade.models.fused import rms_norm
from kascade.models.trunk import Attention, positions

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
    angles = tuple(part[0, :, None] for part in model.model.rotary_emb(x, positions(batch)[None]))
    for index, layer in enumerate(model.model.layers):
        x = x + _attention(layer.self_attn, _norm(x, layer.input_layernorm), attend, angles)
        if index == len(model.model.layers) - 1:
            x = x.index_select(0, batch.predictors)
        x = x + _mlp(layer.mlp, _norm(x, layer.post_attention_layernorm))
    return _norm(x, model.model.norm)


def _norm(x: Tensor, norm: Any) -> Tensor:
    return rms_norm(x, norm.weight, norm.variance_epsilon)


def _attention(attention: Any, h: Tensor, attend: Attention, angles: tuple[Tensor, ...]) -> Tensor:
    weights = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
    projected = torch.split(F.linear(h, torch.cat(weights)), [len(w) for w in weights], dim=-1)
    query, key, value = (part.view(len(h), -1, attention.head_dim) for part in projected)
    query = _rotate(_norm(query, attention.q_norm), angles)
    key = _rotate(_norm(key, attention.k_norm), angles)
    return F.linear(attend(query, key, value), attention.o_proj.weight)


def _rotate(x: Tensor, angles: tuple[Tensor, ...]) -> Tensor:
    """Rotary position embedding of [M, heads, D]; angles: cosines and sines, each [M, 1, D]."""
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _mlp(mlp: Any, h: Tensor) -> Tensor:
    gate_up = F.linear(h, torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
    gate, up = gate_up.chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, mlp.down_proj.weight)
