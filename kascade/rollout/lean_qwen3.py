"""Lean decoding of dense Qwen3 on plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.rollout.lean import Attention, LeanDecoder, rms_norm

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Qwen3Decoder(LeanDecoder):
    """Fused query-key-value and gate-up products over static key-value slots."""

    @classmethod
    def supports(cls, model: PreTrainedModel) -> bool:
        config: Any = model.config
        return bool(
            config.model_type == "qwen3"
            and model.dtype == torch.float32
            and set(config.layer_types) == {"full_attention"}
            and not config.attention_bias
            and config.hidden_act == "silu"
        )

    def attention_layers(self) -> list[int]:
        return list(range(self._model.config.num_hidden_layers))

    def refresh(self) -> None:
        self._layers = [_Layer(layer) for layer in self._model.model.layers]

    def forward(self, tokens: Tensor, attend: Attention) -> Tensor:
        model = self._model.model
        x = F.embedding(tokens, model.embed_tokens.weight)
        cos, sin = model.rotary_emb(x, attend.lengths[:, None])  # each [n, 1, D]: one position, all heads
        for index, layer in enumerate(self._layers):
            x = layer(x, index, attend, (cos, sin))
        return rms_norm(x, model.norm)


def _rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of [n, heads, D]."""
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class _Layer:
    def __init__(self, layer: Any) -> None:
        self._layer = layer
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._qkv = torch.cat([p.weight.detach() for p in projections])
        self._sizes = [p.weight.shape[0] for p in projections]
        self._gate_up = torch.cat([mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()])

    def __call__(self, x: Tensor, index: int, attend: Attention, angles: tuple[Tensor, Tensor]) -> Tensor:
        attention, mlp = self._layer.self_attn, self._layer.mlp
        projected = torch.split(
            F.linear(rms_norm(x, self._layer.input_layernorm), self._qkv), self._sizes, dim=-1
        )
        query, key, value = (part.view(len(x), -1, attention.head_dim) for part in projected)
        query = _rotate(rms_norm(query, attention.q_norm), angles)
        key = _rotate(rms_norm(key, attention.k_norm), angles)
        x = torch.addmm(x, attend(index, query, key, value), attention.o_proj.weight.T)
        hidden = F.linear(rms_norm(x, self._layer.post_attention_layernorm), self._gate_up)
        gate, up = hidden.chunk(2, dim=-1)
        return torch.addmm(x, F.silu(gate) * up, mlp.down_proj.weight.T)
