"""Products with weights, by the fastest kernel that PyTorch carries.

Its float32 products go to MKL, which keeps to vectors of 256 bits on processors that are not Intel's. oneDNN,
which PyTorch carries beside it, uses their 512: twice as fast on a Zen 5 where there are rows enough. A Zen 4
computes 512 bits as two halves. There oneDNN gains a tenth with many rows, and MKL is ahead with fewer and
for gradients of weights. Every shape has a kernel of its own, made in 0.3 ms and kept in 0.6 MB, so only
`KEPT_KERNELS` of them are.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

FEWEST_ROWS = 32  # for fewer, oneDNN's cost of a call is more than it gains
FEWEST_ROWS_HALVED = 512  # where vectors of 512 bits are computed as two halves
KEPT_KERNELS = 128
# oneDNN's cache and PyTorch's around it; the variables are read when those are first used.
for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(variable, str(KEPT_KERNELS))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias, as `torch.nn.functional.linear`: x [..., I], weight [O, I], bias [O] to [..., O]."""
    if not _is_wide(x):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        product: Tensor = _Linear.apply(x, weight)  # type: ignore[no-untyped-call]
        return product if bias is None else product + bias
    return _wide_kernel()(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


def linear_added(x: Tensor, weight: Tensor, to: Tensor) -> Tensor:
    """to + x weight^T, without gradient: x [N, I], weight [O, I], to [N, O]."""
    if not _is_wide(x):
        return torch.addmm(to, x, weight.T)
    return _wide_kernel().binary(x, to, weight, None, "add")  # type: ignore[no-any-return]


def weight_gradient(d_y: Tensor, x: Tensor) -> Tensor:
    """d_y^T x: [N, O] and [N, I] to [O, I]. The kernel copies what is on its left: the narrower one."""
    if _halves_its_vectors():
        return d_y.T @ x
    if d_y.shape[1] <= x.shape[1]:
        return linear(d_y.T, x.T)
    return linear(x.T, d_y.T).T


class _Linear(torch.autograd.Function):
    """d_x = d_y weight; d_weight = d_y^T x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _wide_kernel()(x, weight, None, "none", [], "")  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        d_y = grads[0].reshape(-1, len(weight))
        d_x = linear(d_y, weight.T).view_as(x) if ctx.needs_input_grad[0] else None
        d_weight = weight_gradient(d_y, x.reshape(-1, x.shape[-1])) if ctx.needs_input_grad[1] else None
        return d_x, d_weight


def _is_wide(x: Tensor) -> bool:
    """Whether oneDNN's kernel is the faster one for these inputs."""
    # What holds for the whole process first: where there is no such kernel, a call costs nothing more.
    if not (_has_wide_kernel() and x.device.type == "cpu" and x.dtype == torch.float32):
        return False
    fewest = FEWEST_ROWS_HALVED if _halves_its_vectors() else FEWEST_ROWS
    return x.numel() // max(x.shape[-1], 1) >= fewest


@cache
def _has_wide_kernel() -> bool:
    available: Any = torch.backends.mkldnn.is_available
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return bool(wide and available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


@cache
def _halves_its_vectors() -> bool:
    """Whether this is a Zen 4 (of AMD's family 25)."""
    try:
        about = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:  # not Linux
        return False
    facts = dict(re.findall(r"^(.+?)\s*: (.*)$", about, re.MULTILINE))
    return facts.get("vendor_id") == "AuthenticAMD" and facts.get("cpu family") == "25"


@cache
def _wide_kernel() -> Any:
    """The kernel that `torch.compile` calls for linear layers on a CPU; it takes any strides."""
    return cast("Any", torch.ops.mkldnn)._linear_pointwise
