"""The loops of a decoding step on a CPU, in float32: see `kascade.models.kernels`.

A row's newest token meets only that row's keys and values: thousands of small sums, for which PyTorch needs
some twenty calls per layer and a pass over memory in each.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from kascade.models.kernels import F32, ONE, ZERO, Floats, compiled, exponential, part

Ints = npt.NDArray[np.int64]
UNROLLED = 4  # slots that `attend` weighs in one pass over the output
BLOCK = 64  # weights that are added up in float32 before they join a sum in float64
BELOW_ONE = 1 - 2.0**-52  # x times this is below x, and stays so when rounded


@part
def softmax(scores: Any, count: Any) -> Any:
    """Turn the first `count` scores into weights, in place: the highest score, and the sum of the weights."""
    top, normaliser = scores[0], ZERO
    for i in range(count):
        top = max(top, scores[i])
    for i in range(count):
        weight = exponential(scores[i] - top)
        scores[i] = weight
        normaliser += weight
    return top, normaliser


@part
def weigh(weights: Any, count: Any, values: Any, total: Any) -> Any:
    """The sum of the first `count` values [slots, D], each times its weight: into total [D]."""
    dimensions, unrolled = total.shape[0], count // UNROLLED * UNROLLED
    for d in range(dimensions):
        total[d] = ZERO
    for i in range(0, unrolled, UNROLLED):
        w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        v0, v1, v2, v3 = values[i], values[i + 1], values[i + 2], values[i + 3]
        for d in range(dimensions):
            total[d] += w0 * v0[d] + w1 * v1[d] + w2 * v2[d] + w3 * v3[d]
    for i in range(unrolled, count):
        w0, v0 = weights[i], values[i]
        for d in range(dimensions):
            total[d] += w0 * v0[d]


@part
def inverted(weights: Any, sums: Any, point: Any) -> Any:
    """The first token up to which the weights exceed `point`; never one without weight.

    sums: of blocks of weights. The last token with any weight at most, whatever rounding does to the sums.
    """
    last, block = weights.shape[0] - 1, 0
    while last > 0 and weights[last] == ZERO:
        last -= 1
    while block < last // BLOCK and point >= sums[block]:
        point -= sums[block]
        block += 1
    token = block * BLOCK
    while token < last and (point >= weights[token] or weights[token] == ZERO):
        point -= weights[token]
        token += 1
    return token


@part
def highest(scores: Any) -> Any:
    """The first token with the highest score."""
    token = 0
    for i in range(scores.shape[0]):
        if scores[i] > scores[token]:
            token = i
    return token


@cache
def attention_of_width(width: int) -> Any:
    """`attend` for heads of this many dimensions, which LLVM must know to add them up as vectors."""

    @compiled(
        "(float32[:,:,::1], float32[:,:,:,::1], float32[:,:,:,::1], int64[::1], int64,"
        " float32[:,:,::1], float32[:,::1])"
    )
    def attend(  # noqa: PLR0917 - numba takes arguments by place
        heads: Floats, keys: Floats, values: Floats, first: Ints, now: int, out: Floats, mass: Floats
    ) -> None:
        """Store each row's newest key and value in slot `now` and attend over slots first[row] to now.

        heads: [n, Q + 2 K, D], queries (scaled), keys and values of the newest tokens. keys, values:
        [rows, K, slots, D], rows >= n. Written: out [n, Q, D]; mass [n, Q], the logarithm of the normaliser.
        """
        kv_heads, queries = keys.shape[1], out.shape[1]
        group, scores, total = queries // kv_heads, np.empty(now + 1, F32), np.empty(out.shape[2], F32)
        dimensions = total.shape[0]
        for row in range(heads.shape[0]):
            start = first[row]
            count = now + 1 - start
            for kv in range(kv_heads):
                for d in range(dimensions):
                    keys[row, kv, now, d] = heads[row, queries + kv, d]
                    values[row, kv, now, d] = heads[row, queries + kv_heads + kv, d]
            for query in range(queries):
                kv = query // group
                for i in range(count):
                    score = ZERO
                    for d in range(width):
                        score += heads[row, query, d] * keys[row, kv, start + i, d]
                    scores[i] = score
                top, normaliser = softmax(scores, count)
                mass[row, query] = top + np.log(normaliser)
                weigh(scores, count, values[row, kv, start:], total)
                for d in range(dimensions):
                    out[row, query, d] = total[d] / normaliser

    return attend


@compiled("(float32[:,:,::1], float32[:,::1], float32[:,::1], int64[::1], float32)")
def norm_and_rotate(heads: Floats, norms: Floats, angles: Floats, positions: Ints, epsilon: float) -> None:
    """Norm and rotate the first heads of each row, in place: heads [n, H, D], norms [those heads, D].

    angles: [positions, 2 D], cosines, and sines signed for a roll by D / 2.
    """
    width = heads.shape[2]
    half = width // 2
    for row in range(heads.shape[0]):
        cos, sin = angles[positions[row], :width], angles[positions[row], width:]
        for number in range(norms.shape[0]):
            head, norm = heads[row, number], norms[number]
            squares = ZERO
            for d in range(width):
                squares += head[d] * head[d]
            scale = ONE / np.sqrt(squares / F32(width) + epsilon)
            for d in range(half):
                one, other = head[d] * norm[d] * scale, head[half + d] * norm[half + d] * scale
                head[d] = one * cos[d] + other * sin[d]
                head[half + d] = other * cos[half + d] + one * sin[half + d]


@compiled("(float32[:,::1], float64[::1], boolean[::1], int64[::1], float32[::1])")
def draw(
    logits: Floats,
    uniforms: npt.NDArray[np.float64],
    greedy: npt.NDArray[np.bool_],
    tokens: Ints,
    logprobs: Floats,
) -> None:
    """A token of each row of logits [R, V], and its log-probability: see `sampling.draw`."""
    vocabulary = logits.shape[1]
    weights, sums = np.empty(vocabulary, F32), np.empty(-(-vocabulary // BLOCK), np.float64)
    for row in range(logits.shape[0]):
        scores = logits[row]
        weights[:] = scores
        softmax(weights, vocabulary)
        total = 0.0
        for block in range(sums.shape[0]):
            part = ZERO
            for i in range(block * BLOCK, min(block * BLOCK + BLOCK, vocabulary)):
                part += weights[i]
            sums[block] = part
            total += sums[block]
        point = total * BELOW_ONE * uniforms[row]
        token = highest(scores) if greedy[row] else inverted(weights, sums, point)
        tokens[row] = token
        logprobs[row] = np.log(weights[token] / total)
