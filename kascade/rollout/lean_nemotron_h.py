"""Lean decoding of `nemotron_h`: Mamba-2, attention, MLP and (latent) MoE layers on plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kascade.models.products import linear, linear_added
from kascade.models.projections import through, weight_of
from kascade.rollout.lean import Attend, LeanDecoder, Norm, Prompts, runs_in_its_type
from kascade.rollout.mamba import MambaMixer, MambaStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPARSE_TOKENS = 512  # from here on, sorting tokens by expert costs less than the experts not chosen
MAX_DENSE_EXPERTS = 16  # beyond, computing every expert for every token costs more than it saves


class NemotronHDecoder(LeanDecoder):
    """One step costs a few matrix products a layer."""

    @classmethod
    def supports(cls, model: PreTrainedModel) -> bool:
        config: Any = model.config
        return bool(
            config.model_type == "nemotron_h"
            and runs_in_its_type(model)
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
        device = self._model.device
        self._stores = [MambaStore(rows, block.mixer, device, static=self.static) for block in blocks]

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

    def step(self, x: Tensor, attend: Attend) -> Tensor:
        return self._mixer.step(self._norm(x), self._decoder.mamba_store(self._number)).add_(x)


class _Attention:
    """Attention without rotary embeddings; queries, keys and values in one product, queries scaled."""

    mixes = True

    def __init__(self, mixer: Any, norm: Norm, number: int) -> None:
        self._norm, self._number, self._width = norm, number, mixer.head_dim
        query, key, value = (weight_of(p) for p in (mixer.q_proj, mixer.k_proj, mixer.v_proj))
        # The scale goes into the weight once instead of into every query.
        self._qkv = torch.cat([query * mixer.head_dim**-0.5, key, value])
        self._sizes = [len(query), len(key), len(value)]
        self._out = weight_of(mixer.o_proj)

    def prefill(self, x: Tensor, prompts: Prompts, *, only_last: bool) -> Tensor:
        h = self._norm(x)
        queries = self._sizes[0]
        key, value = self._heads(linear(h, self._qkv[queries:]), self._sizes[1:])
        prompts.keep(self._number, key, value)
        if only_last:
            x, h = prompts.last(x), prompts.last(h)
        (query,) = self._heads(linear(h, self._qkv[:queries]), [queries])
        return x + linear(prompts.attend(query, key, value), self._out)

    def step(self, x: Tensor, attend: Attend) -> Tensor:
        heads = linear(self._norm(x), self._qkv).view(len(x), -1, self._width)
        return linear_added(attend(self._number, heads), self._out, x)

    def _heads(self, projected: Tensor, sizes: list[int]) -> list[Tensor]:
        parts: Any = torch.split(projected, sizes, dim=-1)
        return [part.unflatten(-1, (-1, self._width)) for part in parts]


class _Local:
    """A layer that looks at each token alone."""

    mixes = False

    def prefill(self, x: Tensor, prompts: Prompts, *, only_last: bool) -> Tensor:
        return self.run(x.flatten(0, 1)).view_as(x)

    def step(self, x: Tensor, attend: Attend) -> Tensor:
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class _MLP(_Local):
    def __init__(self, mixer: Any, norm: Norm) -> None:
        self._norm = norm
        self._up, self._down = weight_of(mixer.up_proj), weight_of(mixer.down_proj)

    def run(self, x: Tensor) -> Tensor:
        inner = linear(self._norm(x), self._up).relu_().square_()
        return linear_added(inner, self._down, x)


class _MoE(_Local):
    """Few tokens: all experts for all of them as two products, weighted by the routing (0 where not chosen),
    sum_e w_e Down_e f(Up_e x) = [Down_1 ... Down_E] [w_1 f(Up_1 x); ...]. Many: each expert for its own.
    """

    def __init__(self, mixer: Any, norm: Norm) -> None:
        self._mixer, self._shared = mixer, _MLP(mixer.shared_experts, norm)
        self._norm = norm
        self._ups = mixer.experts.up_proj.detach()  # [E, I, D]
        self._downs = mixer.experts.down_proj.detach()  # [E, D, I]
        self._down = self._downs.transpose(0, 1).flatten(1)  # a copy: [D, E I]

    def run(self, x: Tensor) -> Tensor:
        h = self._norm(x)
        chosen, weights = self._route(h)
        latent = through(self._mixer.fc1_latent_proj, h)
        by_expert = self._sparse if len(x) >= SPARSE_TOKENS else self._dense
        routed = through(self._mixer.fc2_latent_proj, by_expert(latent, chosen, weights))
        return self._shared.run(x).add_(routed)

    def _dense(self, latent: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        inner = linear(latent, self._ups.flatten(0, 1)).relu_().square_()
        routing = weights.new_zeros(len(latent), len(self._ups)).scatter_(1, chosen, weights)
        # Weighed before the second product, which then adds the experts up by itself.
        inner.view(*routing.shape, -1).mul_(routing[..., None])
        return linear(inner, self._down)

    def _sparse(self, latent: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        order = chosen.flatten().argsort()  # (token, choice) pairs, sorted by expert
        tokens = order.div(chosen.shape[1], rounding_mode="floor")
        counts = chosen.flatten().bincount(minlength=len(self._ups)).tolist()
        parts = torch.split(latent.index_select(0, tokens), counts)
        outs = [
            linear(linear(part, up).relu_().square_(), down)
            for part, up, down in zip(parts, self._ups, self._downs, strict=True)
        ]
        scaled = torch.cat(outs).mul_(weights.flatten()[order, None])
        return torch.zeros_like(latent).index_add_(0, tokens, scaled)

    def _route(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The experts of each row and their weights: both [n, k]."""
        gate = self._mixer.gate
        # float32, as transformers: in bfloat16 close experts would change places.
        scores = linear(h.float(), gate.weight.float()).sigmoid()
        chosen = (scores + gate.e_score_correction_bias).topk(gate.top_k, dim=-1).indices
        # The bias chooses but does not weigh (arXiv 2408.15664).
        weights = scores.gather(1, chosen)
        if gate.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return chosen, (weights * gate.routed_scaling_factor).to(h.dtype)
