"""Lean decoding of `nemotron_h`: Mamba-2, attention, MLP and (latent) MoE layers on plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.rollout.attention import SharedAttention
from kascade.rollout.lean import LeanDecoder, Norm, Prompts
from kascade.rollout.mamba import MambaMixer, MambaStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_DENSE_EXPERTS = 16  # beyond, computing every expert for every token costs more than it saves


class NemotronHDecoder(LeanDecoder):
    """One step costs a few matrix products a layer."""

    @classmethod
    def supports(cls, model: PreTrainedModel) -> bool:
        config: Any = model.config
        return bool(
            config.model_type == "nemotron_h"
            and model.dtype == torch.float32
            and "full_attention" in config.layers_block_type
            and config.n_routed_experts <= MAX_DENSE_EXPERTS
            and config.n_group == 1
            and (config.mamba_hidden_act, config.mlp_hidden_act) == ("silu", "relu2")
            and not (config.use_bias or config.mlp_bias or config.attention_bias)
        )

    def num_attention_layers(self) -> int:
        return int(self._model.config.layers_block_type.count("full_attention"))

    def start(self, rows: int) -> None:
        super().start(rows)
        blocks = [b for b in self._model.model.layers if b.block_type == "linear_attention"]
        self._stores = [MambaStore(rows, block.mixer, self._model.device) for block in blocks]

    def row_states(self) -> list[Tensor]:
        return [tensor for store in self._stores for tensor in store.tensors()]

    def make_layers(self) -> list[Any]:
        layers: list[Any] = []
        mambas = attentions = 0
        for block in self._model.model.layers:
            norm, kind = Norm(block.norm), block.block_type
            if kind == "linear_attention":
                layers.append(_Mamba(MambaMixer(block.mixer), norm, self, mambas))
                mambas += 1
            elif kind == "full_attention":
                layers.append(_Attention(block.mixer, norm, attentions))
                attentions += 1
            else:
                layers.append((_MLP if kind == "mlp" else _MoE)(block.mixer, norm))
        return layers

    def final_norm(self) -> Any:
        return self._model.model.norm_f

    def mamba_store(self, number: int) -> MambaStore:
        return self._stores[number]


class _Mamba:
    mixes = True

    def __init__(self, mixer: MambaMixer, norm: Norm, decoder: NemotronHDecoder, number: int) -> None:
        self._mixer, self._norm, self._decoder, self._number = mixer, norm, decoder, number

    def prefill(self, x: Tensor, prompts: Prompts, *, only_last: bool) -> Tensor:
        out, window, state = self._mixer.prefill(self._norm(x), prompts.lengths)
        store = self._decoder.mamba_store(self._number)
        store.put(prompts.rows, window[prompts.owners], state[prompts.owners])
        return prompts.last(x + out) if only_last else out.add_(x)

    def step(self, x: Tensor, attend: SharedAttention) -> Tensor:
        return self._mixer.step(self._norm(x), self._decoder.mamba_store(self._number)).add_(x)


class _Attention:
    """Attention without rotary embeddings; queries, keys and values in one product, queries scaled."""

    mixes = True

    def __init__(self, mixer: Any, norm: Norm, number: int) -> None:
        self._norm, self._number, self._width = norm, number, mixer.head_dim
        query = mixer.q_proj.weight.detach() * mixer.head_dim**-0.5
        self._qkv = torch.cat([query, mixer.k_proj.weight.detach(), mixer.v_proj.weight.detach()])
        self._sizes = [len(query), len(mixer.k_proj.weight), len(mixer.v_proj.weight)]
        self._out = mixer.o_proj.weight.detach().T

    def prefill(self, x: Tensor, prompts: Prompts, *, only_last: bool) -> Tensor:
        h = self._norm(x)
        queries = self._sizes[0]
        key, value = self._heads(F.linear(h, self._qkv[queries:]), self._sizes[1:])
        prompts.keep(self._number, key, value)
        if only_last:
            x, h = prompts.last(x), prompts.last(h)
        (query,) = self._heads(F.linear(h, self._qkv[:queries]), [queries])
        return x + prompts.attend(query, key, value) @ self._out

    def step(self, x: Tensor, attend: SharedAttention) -> Tensor:
        query, key, value = self._heads(F.linear(self._norm(x), self._qkv), self._sizes)
        return torch.addmm(x, attend(self._number, query, key, value), self._out)

    def _heads(self, projected: Tensor, sizes: list[int]) -> list[Tensor]:
        return [part.unflatten(-1, (-1, self._width)) for part in projected.split(sizes, dim=-1)]


class _Local:
    """A layer that looks at each token alone."""

    mixes = False

    def prefill(self, x: Tensor, prompts: Prompts, *, only_last: bool) -> Tensor:
        return self.run(x.flatten(0, 1)).view_as(x)

    def step(self, x: Tensor, attend: SharedAttention) -> Tensor:
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class _MLP(_Local):
    def __init__(self, mixer: Any, norm: Norm) -> None:
        self._norm = norm
        self._up, self._down = mixer.up_proj.weight.detach(), mixer.down_proj.weight.detach().T

    def run(self, x: Tensor) -> Tensor:
        inner = F.linear(self._norm(x), self._up).relu_().square_()
        return torch.addmm(x, inner, self._down)


class _MoE(_Local):
    """All experts for all rows as two products, weighted by the routing (0 for the ones not chosen):
    sum_e w_e Down_e f(Up_e x) = [Down_1 ... Down_E] [w_1 f(Up_1 x); ...].
    """

    def __init__(self, mixer: Any, norm: Norm) -> None:
        self._mixer, self._shared = mixer, _MLP(mixer.shared_experts, norm)
        self._norm = norm
        self._up = mixer.experts.up_proj.detach().flatten(0, 1)  # a view: [E I, D]
        self._down = mixer.experts.down_proj.detach().transpose(1, 2).flatten(0, 1)  # a copy: [E I, D]

    def run(self, x: Tensor) -> Tensor:
        mixer = self._mixer
        h = self._norm(x)
        routing = self._routing(h)
        inner = F.linear(mixer.fc1_latent_proj(h), self._up).relu_().square_()
        inner.view(len(x), routing.shape[1], -1).mul_(routing[..., None])
        routed: Tensor = mixer.fc2_latent_proj(inner @ self._down)
        return self._shared.run(x).add_(routed)

    def _routing(self, h: Tensor) -> Tensor:
        """Weight of each expert for each row, 0 where it was not chosen: [n, E]."""
        gate = self._mixer.gate
        scores = F.linear(h, gate.weight).sigmoid()
        chosen = (scores + gate.e_score_correction_bias).topk(gate.top_k, dim=-1).indices
        weights = scores.gather(1, chosen)
        if gate.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return torch.zeros_like(scores).scatter_(1, chosen, weights * gate.routed_scaling_factor)
