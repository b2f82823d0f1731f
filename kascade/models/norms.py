"""Root-mean-square norms and the rotation of queries and keys, with their gradients written out.

Kept for the backward are inputs and a number per row. Where there are compiled loops, each is one pass over
memory. All are exact, and tested against autograd of the plain formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kascade.models.loops import array, kernels_for


class _RMSNorm(torch.autograd.Function):
    """y = x r w with r = 1 / sqrt(mean(x^2) + eps); dx = r (g w) - x r^3 mean(x g w)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        kernels = kernels_for(x)
        if kernels is None:
            scale = _scale(x, eps)
            out = x * scale * weight
        else:
            out, scale = x.new_empty(x.shape), x.new_empty(*x.shape[:-1], 1)
            kernels.rms_norm(_rows(x), array(weight), eps, _rows(out), array(scale.view(-1)))
        ctx.save_for_backward(x, scale, weight)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, weight = ctx.saved_tensors
        kernels = kernels_for(x)
        if kernels is None:
            return *_gradients(x, scale, weight, grads[0]), None
        d_x, d_weight = x.new_empty(x.shape), torch.zeros_like(weight)
        known = _rows(x), array(scale.view(-1)), array(weight), _rows(grads[0])
        kernels.rms_norm_backward(*known, _rows(d_x), array(d_weight))
        return d_x, d_weight, None


def _rows(x: Tensor) -> Any:
    """[..., D] as the loops take it: [n, D]."""
    return array(x.reshape(-1, x.shape[-1]))


def _scale(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean of x^2 + eps) over the last dimension, which stays as 1."""
    scale: Tensor = (torch.linalg.vecdot(x, x) / x.shape[-1] + eps).rsqrt_().unsqueeze(-1)
    return scale


def _gradients(x: Tensor, scale: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Of x [..., D] and of weight [D], from that of x scale weight."""
    normed, weighted = x * scale, grad * weight
    d_weight = (normed * grad).flatten(0, -2).sum(0)
    along = torch.linalg.vecdot(normed, weighted).div_(-x.shape[-1]).unsqueeze(-1)
    d_x: Tensor = weighted.addcmul_(normed, along).mul_(scale)
    return d_x, d_weight


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension, times `weight`. (arXiv 1910.07467)"""
    normed: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return normed


class _RotatedHeads(torch.autograd.Function):
    """The norm of `_RMSNorm` per head, then y cos + roll(y, D / 2) sin; back: g cos + roll(g sin, D / 2)."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes every input by position
        ctx: Any, x: Tensor, eps: float, cos: Tensor, sin: Tensor, heads: tuple[int, ...], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        first, outs, scales = 0, [], []
        for count, weight in zip(heads, weights, strict=True):
            out, scale = _rotate(x, slice(first, first + count), weight, eps, (cos, sin))
            outs.append(out)
            scales.append(scale)
            first += count
        ctx.save_for_backward(x, cos, sin, *weights, *scales)
        ctx.heads = heads
        return *outs, x[:, first:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, cos, sin, *rest = ctx.saved_tensors
        d_x, d_weights, first = torch.empty_like(x), [], 0
        weights, scales = rest[: len(ctx.heads)], rest[len(ctx.heads) :]
        for count, weight, scale, grad in zip(ctx.heads, weights, scales, grads, strict=False):
            heads = slice(first, first + count)
            d_weights.append(_rotate_back(x, heads, weight, scale, (cos, sin), grad, d_x))
            first += count
        d_x[:, first:] = grads[-1]
        return d_x, None, None, None, None, *d_weights


Angles = tuple[Tensor, Tensor]


def _rotate(x: Tensor, heads: slice, weight: Tensor, eps: float, angles: Angles) -> tuple[Tensor, Tensor]:
    """Some heads of x [M, W, D], normed and rotated, and what the norm multiplied them by: [M, heads, 1]."""
    part, kernels, (cos, sin) = x[:, heads], kernels_for(x), angles
    if kernels is None:
        scale = _scale(part, eps)
        y = part * scale * weight
        rotated: Tensor = y.roll(x.shape[-1] // 2, -1).mul_(sin).addcmul_(y, cos)
        return rotated, scale
    out, scale = x.new_empty(part.shape), x.new_empty(*part.shape[:2], 1)
    known = array(x), heads.start, array(weight), eps, _rows(cos), _rows(sin)
    kernels.rotated_norm(*known, array(out), array(scale.squeeze(-1)))
    return out, scale


def _rotate_back(  # noqa: PLR0917 - as many as the loop takes
    x: Tensor, heads: slice, weight: Tensor, scale: Tensor, angles: Angles, grad: Tensor, d_x: Tensor
) -> Tensor:
    """The gradient of weight [D]. That of x goes into the same heads of d_x [M, W, D]."""
    kernels, (cos, sin) = kernels_for(x), angles
    if kernels is None:
        turned = (grad * sin).roll(x.shape[-1] // 2, -1).addcmul_(grad, cos)
        d_x[:, heads], d_weight = _gradients(x[:, heads], scale, weight, turned)
        return d_weight
    d_weight = torch.zeros_like(weight)
    known = (
        array(x),
        heads.start,
        array(weight),
        array(scale.squeeze(-1)),
        _rows(cos),
        _rows(sin),
        array(grad),
    )
    kernels.rotated_norm_backward(*known, array(d_x), array(d_weight))
    return d_weight


def rotated_heads(
    x: Tensor, weights: tuple[Tensor, ...], heads: tuple[int, ...], eps: float, angles: Angles
) -> tuple[Tensor, ...]:
    """x [M, W, D] as parts with so many heads, and the heads that are left.

    Each head of a part is normed over D, multiplied by the part's weight [D] and rotated by position. What is
    left stays as it is. angles: cosines, and sines with the first half negated, each [M, 1, D].
    (arXiv 1910.07467; 2104.09864 §3.4.2, halves for pairs)
    """
    parts: tuple[Tensor, ...] = _RotatedHeads.apply(x, eps, *angles, heads, *weights)  # type: ignore[no-untyped-call]
    return parts
