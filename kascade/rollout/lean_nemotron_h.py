"""Lean decoding of `nemotron_h`: Mamba-2, attention, MLP and (latent) MoE layers on plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.rollout.lean import Attention, LeanDecoder, rms_norm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_DENSE_EXPERTS = 16  # beyond, computing every expert for every token costs more than it saves


class NemotronHDecoder(LeanDecoder):
    """One step costs a few matrix products a layer; the recurrent state is kept as [rows, G, N, H P / G],
    the layout in which decay, update and read-out run over contiguous memory.

    The time step is limited from below as in the training path (transformers' own decode omits that
    limit, so its `generate` drifts from its `forward` where the limit bites).
    """

    @classmethod
    def supports(cls, model: PreTrainedModel) -> bool:
        config: Any = model.config
        return bool(
            config.model_type == "nemotron_h"
            and model.dtype == torch.float32
            and config.n_routed_experts <= MAX_DENSE_EXPERTS
            and config.n_group == 1
            and (config.mamba_hidden_act, config.mlp_hidden_act) == ("silu", "relu2")
            and not (config.use_bias or config.mlp_bias)
        )

    def attention_layers(self) -> list[int]:
        return self._layers_of("full_attention")

    def _layers_of(self, kind: str) -> list[int]:
        return [i for i, block in enumerate(self._model.config.layers_block_type) if block == kind]

    def start(self, rows: int) -> None:
        super().start(rows)
        config, device = self._model.config, self._model.device
        inner = config.mamba_num_heads * config.mamba_head_dim
        groups, states = config.n_groups, config.ssm_state_size
        count = len(self._layers_of("linear_attention"))
        window = (rows, config.conv_kernel - 1, inner + 2 * groups * states)
        self._windows = [torch.zeros(window, device=device) for _ in range(count)]
        self._states = [
            torch.zeros(rows, groups, states, inner // groups, device=device) for _ in range(count)
        ]

    def row_states(self) -> list[Tensor]:
        return [*self._windows, *self._states]

    def place_states(self, cache: Any, row: int, slots: slice) -> None:
        for index, window, state in zip(
            self._layers_of("linear_attention"), self._windows, self._states, strict=True
        ):
            layer = cache.layers[index]
            window[slots] = layer.conv_states[0][row, :, -window.shape[1] :].T
            heads = layer.recurrent_states[0][row]  # [H, P, N]
            state[slots] = heads.permute(2, 0, 1).reshape(state.shape[2], state.shape[1], -1).transpose(0, 1)

    def refresh(self) -> None:
        self._layers = [
            _LAYERS[block.block_type](block.mixer, block.norm) for block in self._model.model.layers
        ]

    def forward(self, tokens: Tensor, attend: Attention) -> Tensor:
        model = self._model.model
        x = F.embedding(tokens, model.embeddings.weight)
        seen = dict.fromkeys(_LAYERS, 0)
        for block, layer in zip(model.layers, self._layers, strict=True):
            nth = seen[block.block_type]
            seen[block.block_type] += 1
            if isinstance(layer, _Mamba):
                rows = slice(0, len(x))
                x = layer(x, self._windows[nth][rows], self._states[nth][rows])
            elif isinstance(layer, _Attention):
                x = layer(x, nth, attend)
            else:
                x = layer(x)
        return rms_norm(x, model.norm_f)


class _Mamba:
    """One step of Mamba-2 (arXiv 2405.21060 §3): convolution window, then the state's recurrence."""

    def __init__(self, mixer: Any, norm: Any) -> None:
        self._mixer, self._norm = mixer, norm
        self._decay_rate = -mixer.A_log.detach().float().exp()
        self._taps = mixer.conv1d.weight.detach().squeeze(1).T.contiguous()  # [K, channels]
        self._skip = mixer.D.detach().repeat_interleave(mixer.head_dim)

    def __call__(self, x: Tensor, window: Tensor, state: Tensor) -> Tensor:
        """x [n, H]; window [n, K - 1, channels] and state [n, G, N, H P / G] are updated in place."""
        mixer = self._mixer
        inner, groups = mixer.intermediate_size, mixer.n_groups
        projected = F.linear(rms_norm(x, self._norm), mixer.in_proj.weight)
        gate, mixed, dt = torch.split(projected, [inner, mixer.conv_dim, mixer.num_heads], dim=-1)
        mixed = self._convolve(mixed, window)
        states = groups * mixer.ssm_state_size
        u, B, C = torch.split(mixed, [inner, states, states], dim=-1)
        dt = F.softplus(dt + mixer.dt_bias).clamp(*mixer.time_step_limit)
        decay = (dt * self._decay_rate).exp().repeat_interleave(mixer.head_dim, dim=-1)
        rows = len(x)
        state.mul_(decay.view(rows, groups, 1, -1))
        added = (u * dt.repeat_interleave(mixer.head_dim, dim=-1)).view(rows, groups, 1, -1)
        state.addcmul_(B.reshape(rows, groups, -1, 1), added)
        read = torch.bmm(C.reshape(rows * groups, 1, -1), state.flatten(0, 1)).view(rows, inner)
        y = torch.addcmul(read, u, self._skip) * F.silu(gate)
        y = F.rms_norm(y.view(rows, groups, -1), (inner // groups,), None, mixer.norm.variance_epsilon)
        return torch.addmm(x, y.view(rows, inner) * mixer.norm.weight, mixer.out_proj.weight.T)

    def _convolve(self, mixed: Tensor, window: Tensor) -> Tensor:
        bias = self._mixer.conv1d.bias
        out = mixed * self._taps[-1] if bias is None else torch.addcmul(bias, mixed, self._taps[-1])
        for i in range(window.shape[1]):
            out.addcmul_(window[:, i], self._taps[i])
        for i in range(window.shape[1] - 1):
            window[:, i] = window[:, i + 1]
        window[:, -1] = mixed
        return F.silu(out)


class _Attention:
    """Attention without rotary embeddings, queries, keys and values in one product."""

    def __init__(self, mixer: Any, norm: Any) -> None:
        self._mixer, self._norm = mixer, norm
        projections = (mixer.q_proj, mixer.k_proj, mixer.v_proj)
        self._qkv = torch.cat([p.weight.detach() for p in projections])
        self._sizes = [p.weight.shape[0] for p in projections]

    def __call__(self, x: Tensor, layer: int, attend: Attention) -> Tensor:
        projected = torch.split(F.linear(rms_norm(x, self._norm), self._qkv), self._sizes, dim=-1)
        query, key, value = (part.view(len(x), -1, self._mixer.head_dim) for part in projected)
        return torch.addmm(x, attend(layer, query, key, value), self._mixer.o_proj.weight.T)


class _MLP:
    def __init__(self, mixer: Any, norm: Any) -> None:
        self._mixer, self._norm = mixer, norm

    def __call__(self, x: Tensor) -> Tensor:
        inner = F.linear(rms_norm(x, self._norm), self._mixer.up_proj.weight).relu_().square_()
        return torch.addmm(x, inner, self._mixer.down_proj.weight.T)


class _MoE:
    """All experts for all rows as two products, weighted by the routing (0 for the ones not chosen):
    sum_e w_e Down_e f(Up_e x) = [Down_1 ... Down_E] [w_1 f(Up_1 x); ...].
    """

    def __init__(self, mixer: Any, norm: Any) -> None:
        self._mixer, self._norm = mixer, norm
        self._up = mixer.experts.up_proj.detach().flatten(0, 1)  # a view: [E I, D]
        self._down = mixer.experts.down_proj.detach().permute(1, 0, 2).flatten(1)  # a copy: [D, E I]

    def __call__(self, x: Tensor) -> Tensor:
        mixer = self._mixer
        h = rms_norm(x, self._norm)
        shared = F.linear(h, mixer.shared_experts.up_proj.weight).relu_().square_()
        x = torch.addmm(x, shared, mixer.shared_experts.down_proj.weight.T)
        routing = self._routing(h)
        inner = F.linear(mixer.fc1_latent_proj(h), self._up).relu_().square_()
        inner.view(len(x), routing.shape[1], -1).mul_(routing[..., None])
        routed: Tensor = mixer.fc2_latent_proj(F.linear(inner, self._down))
        return x.add_(routed)

    def _routing(self, h: Tensor) -> Tensor:
        """Weight of each expert for each row, 0 where it was not chosen: [n, E]."""
        gate = self._mixer.gate
        scores = F.linear(h, gate.weight).sigmoid()
        chosen = (scores + gate.e_score_correction_bias).topk(gate.top_k, dim=-1).indices
        weights = scores.gather(1, chosen)
        if gate.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return torch.zeros_like(scores).scatter_(1, chosen, weights * gate.routed_scaling_factor)


_LAYERS: dict[str, Any] = {"linear_attention": _Mamba, "full_attention": _Attention, "mlp": _MLP, "moe": _MoE}
