"""Differentiable pieces with their gradients written out: fewer passes over memory than autograd takes.

Each is exact, and tested against autograd of the plain formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kascade.models.loops import array, kernels_for
from kascade.models.products import linear, weight_gradient


class _SwiGLUDown(torch.autograd.Function):
    """d silu / d gate = s + silu (1 - s), s = sigmoid(gate). Only the inputs are kept: computing what is
    between once more costs less than the memory for it.
    """

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, down)
        return linear(gated(gate_up), down)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        gate_up, down = ctx.saved_tensors
        d_gated = linear(grads[0], down.T)
        again, d_gate_up = _gate_gradients(gate_up, d_gated)
        d_down = weight_gradient(grads[0], again) if ctx.needs_input_grad[1] else None
        return d_gate_up, d_down


def gated(gate_up: Tensor) -> Tensor:
    """silu(gate) up, without gradient: [M, 2 I] to [M, I]."""
    kernels = kernels_for(gate_up)
    if kernels is None:
        gate, up = gate_up.chunk(2, dim=-1)
        return torch.nn.functional.silu(gate).mul_(up)
    out = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
    kernels.gate(array(gate_up), array(out))
    return out


def _gate_gradients(gate_up: Tensor, d_gated: Tensor) -> tuple[Tensor, Tensor]:
    """`gated` once more, and the gradient of its input: [M, I] and [M, 2 I]."""
    kernels, d_gate_up = kernels_for(gate_up), torch.empty_like(gate_up)
    if kernels is not None:
        again = torch.empty_like(d_gated)
        kernels.gate_backward(*map(array, (gate_up, d_gated, again, d_gate_up)))
        return again, d_gate_up
    gate, up = gate_up.chunk(2, dim=-1)
    sigmoid = gate.sigmoid()
    silu = gate * sigmoid
    d_gate, d_up = d_gate_up.chunk(2, dim=-1)
    torch.mul(d_gated, silu, out=d_up)
    again = silu * up
    slope = sigmoid.addcmul_(silu, sigmoid.neg().add_(1.0))
    torch.mul(slope.mul_(up), d_gated, out=d_gate)
    return again, d_gate_up


def swiglu_down(gate_up: Tensor, down: Tensor) -> Tensor:
    """(silu(gate) up) down^T, gate and up side by side: [M, 2 I] and [H, I] to [M, H]. (arXiv 2002.05202)"""
    product: Tensor = _SwiGLUDown.apply(gate_up, down)  # type: ignore[no-untyped-call]
    return product


class _SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        d_x: Tensor = (positive * grads[0]).mul_(2.0)
        return d_x


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2."""
    squared: Tensor = _SquaredReLU.apply(x)  # type: ignore[no-untyped-call]
    return squared


class _GatedNorm(torch.autograd.Function):
    """Grouped RMS norm of y silu(z), times `weight`: the end of a Mamba-2 mixer. (arXiv 2405.21060 §7.1)"""

    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, weight: Tensor, how: tuple[int, float]) -> Tensor:
        groups, eps = how
        sigmoid = z.sigmoid()
        gate = z * sigmoid
        gated = (y * gate).view(*y.shape[:-1], groups, -1)
        scale = (torch.linalg.vecdot(gated, gated) / gated.shape[-1] + eps).rsqrt_().unsqueeze(-1)
        normed = gated.mul_(scale)
        ctx.save_for_backward(y, gate, sigmoid, normed, scale, weight)
        return normed.view_as(y) * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        y, gate, sigmoid, normed, scale, weight = ctx.saved_tensors
        grad = grads[0]
        d_weight = (normed.view_as(y) * grad).flatten(0, -2).sum(0)
        weighted = (grad * weight).view_as(normed)
        along = torch.linalg.vecdot(normed, weighted).div_(-normed.shape[-1]).unsqueeze(-1)
        d_gated = weighted.addcmul_(normed, along).mul_(scale).view_as(y)
        # d silu / dz = s + z s (1 - s) = s + gate (1 - s)
        slope = torch.addcmul(sigmoid + gate, gate, sigmoid, value=-1)
        d_z = slope.mul_(d_gated).mul_(y)
        return d_gated.mul_(gate), d_z, d_weight, None


def gated_norm(y: Tensor, z: Tensor, weight: Tensor, *, groups: int, eps: float) -> Tensor:
    """RMS norm of y silu(z) [..., D] over each of `groups` parts of the last dimension, times `weight`."""
    normed: Tensor = _GatedNorm.apply(y, z, weight, (groups, eps))  # type: ignore[no-untyped-call]
    return normed


class _CausalConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        width = taps.shape[0]
        length = x.shape[1] - width + 1
        out = torch.addcmul(bias, x[:, :length], taps[0])
        for k in range(1, width):
            out.addcmul_(x[:, k : k + length], taps[k])
        sigmoid = out.sigmoid()
        ctx.save_for_backward(x, taps, out, sigmoid)
        return out * sigmoid

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, taps, out, sigmoid = ctx.saved_tensors
        width, length = taps.shape[0], out.shape[1]
        # d silu / d out = s (1 + out (1 - s))
        d_out = torch.addcmul(out, out, sigmoid, value=-1).add_(1.0).mul_(sigmoid).mul_(grads[0])
        d_x, d_taps = torch.zeros_like(x), torch.empty_like(taps)
        for k in range(width):
            d_x[:, k : k + length].addcmul_(d_out, taps[k])
            d_taps[k] = (x[:, k : k + length] * d_out).sum((0, 1))
        return d_x, d_taps, d_out.sum((0, 1))


def causal_convolution(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """silu of a depthwise convolution: x [R, K - 1 + T, C] with what came before in front, to [R, T, C].

    taps: [K, C], the last one on the present; bias: [C].
    """
    convolved: Tensor = _CausalConvolution.apply(x, taps, bias)  # type: ignore[no-untyped-call]
    return convolved


class _Experts(torch.autograd.Function):
    """sum_k w_k Down_e(k) relu(Up_e(k) x)^2; rows are sorted by expert, so that each is two products."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes every input by position
        ctx: Any, x: Tensor, up: Tensor, down: Tensor, weights: Tensor, chosen: Tensor
    ) -> Tensor:
        order = chosen.flatten().argsort(stable=True)
        ends = torch.bincount(chosen.flatten(), minlength=len(up)).cumsum(0).tolist()
        parts = [slice(s, e) for s, e in zip([0, *ends[:-1]], ends, strict=True)]
        rows = order // chosen.shape[1]
        inputs = x.index_select(0, rows)
        hidden = _by_part(inputs, up, parts).relu_()
        squared = hidden.square()
        out = _by_part(squared, down, parts)
        ctx.save_for_backward(inputs, hidden, squared, out, up, down, weights, order)
        ctx.parts = parts
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        ctx.back = back
        per_choice = out.index_select(0, back).view(*chosen.shape, -1)
        return torch.bmm(weights[:, None], per_choice).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, hidden, squared, out, up, down, weights, order = ctx.saved_tensors
        choices = weights.shape[1]
        grad = grads[0].index_select(0, order // choices)
        d_weights = torch.linalg.vecdot(grad, out).index_select(0, ctx.back).view_as(weights)
        d_out = grad.mul_(weights.flatten().index_select(0, order)[:, None])
        d_hidden = _by_part(d_out, down.transpose(1, 2), ctx.parts).mul_(hidden).mul_(2.0)
        d_down = _by_expert(d_out, squared, ctx.parts) if ctx.needs_input_grad[2] else None
        d_inputs = _by_part(d_hidden, up.transpose(1, 2), ctx.parts)
        d_up = _by_expert(d_hidden, inputs, ctx.parts) if ctx.needs_input_grad[1] else None
        d_x = d_inputs.index_select(0, ctx.back).view(len(weights), choices, -1).sum(1)
        return d_x, d_up, d_down, d_weights, None


def _by_expert(d_y: Tensor, x: Tensor, parts: list[slice]) -> Tensor:
    """Gradients of each expert's weights from its part of the rows: [E, O, I]."""
    return torch.stack([weight_gradient(d_y[part], x[part]) for part in parts])


def _by_part(x: Tensor, weights: Tensor, parts: list[slice]) -> Tensor:
    """Each part of the rows of x [M, I] times its own of weights [E, O, I], transposed: [M, O]."""
    return torch.cat([linear(x[part], weight) for part, weight in zip(parts, weights, strict=True)])


def squared_relu_experts(x: Tensor, up: Tensor, down: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """Routed experts: x [M, D], up [E, I, D], down [E, D, I], weights and chosen [M, K] to [M, D]."""
    mixed: Tensor = _Experts.apply(x, up, down, weights, chosen)  # type: ignore[no-untyped-call]
    return mixed
