"""Training forward of `nemotron_h`: Mamba-2, attention, MLP and (latent) MoE layers. (arXiv 2512.20848 §2)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.models.attention import Attention
from kascade.models.batch import TokenBatch
from kascade.models.fused import causal_convolution, gated_norm, squared_relu, squared_relu_experts
from kascade.models.norms import rms_norm
from kascade.models.products import linear
from kascade.models.projections import base_of, project, through
from kascade.models.ssm import scan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MIXES_TOKENS = ("linear_attention", "full_attention")


def supports(model: PreTrainedModel) -> bool:
    """Whether `forward` computes what the model does. Not where Mamba kernels do it faster (CUDA)."""
    config: Any = model.config
    return bool(
        model.device.type == "cpu"
        and model.dtype == torch.float32
        and config.n_group == 1
        and (config.mamba_hidden_act, config.mlp_hidden_act) == ("silu", "relu2")
        and not (config.use_bias or config.mlp_bias or config.attention_dropout)
        and config.use_conv_bias
    )


def forward(model: Any, batch: TokenBatch) -> Tensor:
    """States [N, H] after the final norm that predict the scored tokens.

    Behind the last layer that mixes tokens, only those are computed.
    """
    layers = list(model.model.layers)
    last_mixing = max((i for i, b in enumerate(layers) if b.block_type in MIXES_TOKENS), default=-1)
    attend, valid = Attention(batch, model.dtype), _valid(batch)
    x = F.embedding(batch.token_ids, model.model.embeddings.weight)
    # Layers that look at each token alone need only the tokens that are scored.
    if last_mixing < 0:
        x = x.index_select(0, batch.predictors)
    for index, block in enumerate(layers):
        h = rms_norm(x, block.norm.weight, block.norm.variance_epsilon)
        if block.block_type == "linear_attention":
            mixed = _mamba(block.mixer, h, batch, valid)
        elif block.block_type == "full_attention":
            mixed = _attention(block.mixer, h, attend)
        elif block.block_type == "moe":
            mixed = _moe(block.mixer, h)
        else:
            mixed = _mlp(block.mixer, h)
        x = x + mixed
        if index == last_mixing:
            x = x.index_select(0, batch.predictors)
    return rms_norm(x, model.model.norm_f.weight, model.model.norm_f.variance_epsilon)


def _valid(batch: TokenBatch) -> list[Tensor]:
    """Of each block, 1 where a token is and 0 where padding is: [rows, T, 1]."""
    return [
        (torch.arange(b.length, device=b.lengths.device) < b.lengths[:, None]).float()[..., None]
        for b in batch.blocks
    ]


def _mamba(mixer: Any, h: Tensor, batch: TokenBatch, valid: list[Tensor]) -> Tensor:
    """A Mamba-2 mixer; rows that continue a prompt begin with its convolution window and state."""
    inner, groups = mixer.intermediate_size, mixer.n_groups
    projected = through(mixer.in_proj, h)
    gate, mixed, dt = torch.split(projected, [inner, mixer.conv_dim, mixer.num_heads], dim=-1)
    dt = F.softplus(dt + mixer.dt_bias).clamp(min=mixer.time_step_limit[0])
    taps, rate = mixer.conv1d.weight.squeeze(1).T, -mixer.A_log.exp()
    states = groups * mixer.ssm_state_size
    width = mixer.conv_kernel_size - 1
    outputs: list[Tensor] = []
    prompts: tuple[Tensor, Tensor] | None = None  # windows and states at their ends
    for block, is_token in zip(batch.blocks, valid, strict=True):
        if block.parents is None or prompts is None:
            before, begin = mixed.new_zeros(block.rows, width, mixer.conv_dim), None
        else:
            # With gradient: a shared prompt learns from all answers that continue it.
            before, begin = (part.index_select(0, block.parents) for part in prompts)
        padded = torch.cat([before, block.view(mixed)], 1)
        convolved = causal_convolution(padded, taps, mixer.conv1d.bias)
        u, write, read = torch.split(convolved, [inner, states, states], dim=-1)
        u = u.view(block.rows, block.length, mixer.num_heads, mixer.head_dim)
        write, read = (x.view(block.rows, block.length, groups, -1) for x in (write, read))
        y, end = scan(u, block.view(dt) * is_token, rate, write, read, state=begin)
        y = torch.addcmul(y, u, mixer.D[:, None])
        outputs.append(y.reshape(-1, inner))
        if prompts is None:
            # Token t is at t + width in `padded`: these are each row's last inputs, padding left out.
            last = block.lengths[:, None] + torch.arange(width, device=h.device)
            rows = torch.arange(block.rows, device=h.device)[:, None]
            prompts = padded[rows, last], end
    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    y = gated_norm(y, gate, mixer.norm.weight, groups=groups, eps=mixer.norm.variance_epsilon)
    return through(mixer.out_proj, y)


def _attention(mixer: Any, h: Tensor, attend: Attention) -> Tensor:
    """Attention without rotary embeddings; queries, keys and values in one product."""
    layers = (mixer.q_proj, mixer.k_proj, mixer.v_proj)
    sizes = [len(base_of(layer).weight) for layer in layers]
    projected = torch.split(project(h, *layers), sizes, dim=-1)
    query, key, value = (part.view(len(h), -1, mixer.head_dim) for part in projected)
    return through(mixer.o_proj, attend(query, key, value))


def _mlp(mixer: Any, h: Tensor) -> Tensor:
    return through(mixer.down_proj, squared_relu(through(mixer.up_proj, h)))


def _moe(mixer: Any, h: Tensor) -> Tensor:
    """Shared expert beside routed ones, which work in the latent space where there is one."""
    gate = mixer.gate
    scores = linear(h, gate.weight).sigmoid()
    chosen = (scores + gate.e_score_correction_bias).topk(gate.top_k, dim=-1, sorted=False).indices
    weights = scores.gather(1, chosen)
    if gate.norm_topk_prob:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    weights = weights * gate.routed_scaling_factor
    experts = mixer.experts
    routed = squared_relu_experts(
        through(mixer.fc1_latent_proj, h), experts.up_proj, experts.down_proj, weights, chosen
    )
    return through(mixer.fc2_latent_proj, routed) + _mlp(mixer.shared_experts, h)
