"""Loops that numba compiles for the processor at hand: float32 on a CPU, one pass where PyTorch has several.

The compiled code is kept beside this file or in the user's cache folder. The next process finds it there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
F32 = np.float32

# Off by default. Without it LLVM leaves a sum over one head's dimensions scalar: three times as slow.
numba.config.SLP_VECTORIZE = 1
# LLVM would make loops of 64 numbers a turn, which heads of 32 never enter.
llvmlite.binding.set_option("kascade", "--force-vector-interleave=1")

LOG2_E, LN_2 = F32(1.4426950408889634), F32(0.6931471805599453)
LARGEST = F32(126.0)  # powers of two beyond which a float32 is not normal
ONE, HALF, ZERO = F32(1), F32(0.5), F32(0)
SIXTH, C4, C5, C6 = F32(1 / 6), F32(1 / 24), F32(1 / 120), F32(1 / 720)
BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)
ROWS_PER_SUM = 64


# Sums in any order. Infinities stay what they are; what is not a number may give any result, within bounds.
FAST = {"nnan", "reassoc", "contract", "arcp", "nsz"}


def compiled(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """numba's decorator. Other types or layouts than the signature's raise TypeError when called."""
    options: dict[str, Any] = {"fastmath": FAST, "error_model": "numpy", "nogil": True}

    def compile_it(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(signature, cache=True, **options)(function)
        except (RuntimeError, OSError):  # nowhere to keep it: compiled again in each process
            return numba.njit(signature, **options)(function)

    return compile_it


def part(function: Callable[..., Any]) -> Any:
    """The decorator of what is compiled as a part of the loops that call it."""
    return numba.njit(fastmath=FAST, error_model="numpy", inline="always")(function)


@part
def exponential(x: Any) -> Any:
    """e^x, 2^n times a polynomial, so that loops become vectors. Below 2^-126: 0.

    Off by 3e-7 of it near 0, and by 1e-7 more per unit of |x|.
    """
    y = min(max(x * LOG2_E, -LARGEST), LARGEST)
    whole = np.floor(y + HALF)
    f = (y - whole) * LN_2
    p = C6 * f + C5
    p = p * f + C4
    p = p * f + SIXTH
    p = p * f + HALF
    p = p * f + ONE
    p = p * f + ONE
    power = np.int32((np.int32(whole) + BIAS) << MANTISSA_BITS).view(F32)
    return p * power if y > -LARGEST else ZERO


@part
def add_and_clear(total: Any, some: Any) -> None:
    """Sums of sums: with one sum over all rows rounding would grow with their number."""
    for i in range(total.shape[0]):
        total[i] += some[i]
        some[i] = ZERO


@compiled("(float32[:,::1], float32[::1], float32, float32[:,::1], float32[::1])")
def rms_norm(x: Floats, weight: Floats, epsilon: float, out: Floats, scales: Floats) -> None:
    """out = x scale weight with scale = 1 / sqrt(mean of x² + epsilon), row by row: [n, H], scales [n]."""
    width = x.shape[1]
    for row in range(x.shape[0]):
        squares = ZERO
        for i in range(width):
            squares += x[row, i] * x[row, i]
        scale = ONE / np.sqrt(squares / F32(width) + epsilon)
        scales[row] = scale
        for i in range(width):
            out[row, i] = x[row, i] * scale * weight[i]


@compiled("(float32[:,::1], float32[::1], float32[::1], float32[:,::1], float32[:,::1], float32[::1])")
def rms_norm_backward(  # noqa: PLR0917
    x: Floats, scales: Floats, weight: Floats, grad: Floats, d_x: Floats, d_weight: Floats
) -> None:
    """From grad [n, H], that of `rms_norm`'s output: d_x, and d_weight [H], which is added to."""
    width = x.shape[1]
    of_some = np.zeros(width, F32)
    for row in range(x.shape[0]):
        scale, along = scales[row], ZERO
        for i in range(width):
            along += x[row, i] * weight[i] * grad[row, i]
        along *= scale * scale / F32(width)
        for i in range(width):
            of_some[i] += grad[row, i] * x[row, i] * scale
            d_x[row, i] = (weight[i] * grad[row, i] - x[row, i] * along) * scale
        if row % ROWS_PER_SUM == ROWS_PER_SUM - 1 or row == x.shape[0] - 1:
            add_and_clear(d_weight, of_some)


@compiled(
    "(float32[:,:,::1], int64, float32[::1], float32, float32[:,::1], float32[:,::1],"
    " float32[:,:,::1], float32[:,::1])"
)
def rotated_norm(  # noqa: PLR0917
    x: Floats,
    first: int,
    weight: Floats,
    epsilon: float,
    cos: Floats,
    sin: Floats,
    out: Floats,
    scales: Floats,
) -> None:
    """As `rms_norm` per head, then rotated: heads of x [M, W, D] from `first` on into out [M, heads, D]."""
    half = x.shape[2] // 2
    for row in range(x.shape[0]):
        c, s = cos[row], sin[row]
        for head in range(out.shape[1]):
            values, into = x[row, first + head], out[row, head]
            squares = ZERO
            for i in range(2 * half):
                squares += values[i] * values[i]
            scale = ONE / np.sqrt(squares / F32(2 * half) + epsilon)
            scales[row, head] = scale
            for i in range(half):
                low, high = values[i] * scale * weight[i], values[half + i] * scale * weight[half + i]
                into[i] = low * c[i] + high * s[i]
                into[half + i] = high * c[half + i] + low * s[half + i]


@compiled(
    "(float32[:,:,::1], int64, float32[::1], float32[:,::1], float32[:,::1], float32[:,::1],"
    " float32[:,:,::1], float32[:,:,::1], float32[::1])"
)
def rotated_norm_backward(  # noqa: PLR0917
    x: Floats, first: int, weight: Floats, scales: Floats, cos: Floats, sin: Floats,
    grad: Floats, d_x: Floats, d_weight: Floats,
) -> None:  # fmt: skip
    """From grad [M, heads, D], that of `rotated_norm`'s output: d_x [M, W, D] in these heads, d_weight."""
    width = x.shape[2]
    half = width // 2
    of_some, turned = np.zeros(width, F32), np.empty(width, F32)
    low, high = turned[:half], turned[half:]
    for row in range(x.shape[0]):
        c, s = cos[row], sin[row]
        c_low, c_high, s_low, s_high = c[:half], c[half:], s[:half], s[half:]
        for head in range(grad.shape[1]):
            values, into = x[row, first + head], d_x[row, first + head]
            d_low, d_high = grad[row, head, :half], grad[row, head, half:]
            scale, along = scales[row, head], ZERO
            for i in range(half):
                low[i] = d_low[i] * c_low[i] + d_high[i] * s_high[i]
            for i in range(half):
                high[i] = d_high[i] * c_high[i] + d_low[i] * s_low[i]
            for i in range(width):
                along += turned[i] * weight[i] * values[i]
            along *= scale * scale / F32(width)
            for i in range(width):
                into[i] = (turned[i] * weight[i] - values[i] * along) * scale
                of_some[i] += turned[i] * values[i] * scale
        if row % ROWS_PER_SUM == ROWS_PER_SUM - 1 or row == x.shape[0] - 1:
            add_and_clear(d_weight, of_some)


@compiled("(float32[:,::1], float32[:,::1])")
def gate(both: Floats, out: Floats) -> None:
    """SwiGLU: out [n, I] = silu(gate) * up, of gate and up side by side in both [n, 2 I]."""
    inner = out.shape[1]
    for row in range(out.shape[0]):
        gates, ups, into = both[row, :inner], both[row, inner:], out[row]
        for i in range(inner):
            into[i] = gates[i] / (ONE + exponential(-gates[i])) * ups[i]


@compiled("(float32[:,::1], float32[:,::1], float32[:,::1], float32[:,::1])")
def gate_backward(both: Floats, d_gated: Floats, gated: Floats, d_both: Floats) -> None:
    """From d_gated [n, I], the gradient of `gate`'s output, that of its input: d_both [n, 2 I].

    gated: the output itself, computed again. d silu(g) / d g = s + silu(g) (1 - s), s = sigmoid(g).
    """
    inner = gated.shape[1]
    for row in range(gated.shape[0]):
        gates, ups, into = both[row, :inner], both[row, inner:], gated[row]
        d_gates, d_ups, d_into = d_both[row, :inner], d_both[row, inner:], d_gated[row]
        for i in range(inner):
            sigmoid = ONE / (ONE + exponential(-gates[i]))
            silu = gates[i] * sigmoid
            into[i] = silu * ups[i]
            d_ups[i] = d_into[i] * silu
            d_gates[i] = d_into[i] * ups[i] * (sigmoid + silu * (ONE - sigmoid))
