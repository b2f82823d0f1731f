"""Drawing tokens: counter-based randomness and inverse-CDF sampling, so batching changes nothing."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.rollout.loops import kernels_for
from kascade.rollout.types import SamplingParams

UInts = npt.NDArray[np.uint64]
_GOLDEN = 0x9E3779B97F4A7C15  # increment of SplitMix64
_MASK = 2**64 - 1
COLDEST = 1e-6  # a temperature: below it, quotients of logits leave the range of floats
LEAST = torch.finfo(torch.float32).tiny
_BELOW_ONE = 1 - 2.0**-52  # x times this is below x, and stays so when rounded


def stream_key(seed: int, sample: int) -> int:
    """Key of the random stream of one sample of one prompt."""
    seeded = _mix(np.array([seed & _MASK], dtype=np.uint64))
    return int(_mix(seeded + np.uint64((sample + 1) * _GOLDEN & _MASK))[0])


def uniforms(keys: UInts, positions: UInts) -> npt.NDArray[np.float64]:
    """One uniform in [0, 1) per row: element `position` of the row's SplitMix64 stream."""
    bits = _mix(keys + (positions + np.uint64(1)) * np.uint64(_GOLDEN))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: UInts) -> UInts:
    """The output function of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014, figure 17)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(
    logits: Tensor,
    uniform: Tensor,
    params: SamplingParams,
    *,
    greedy: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Tokens [R] and their log-probabilities [R] from logits [R, V] and one uniform a row (float64).

    The log-probability is that of the distribution drawn from: after temperature, top-k and top-p.
    Greedy rows (temperature 0, or those where `greedy` [R] is true) have none worth the name, so the
    model's own (temperature 1) is given.
    """
    logits = logits.float()
    if params.temperature != 0:
        drawn_from = logits if params.temperature == 1 else logits / max(params.temperature, COLDEST)
        drawn_from = restrict(drawn_from, params.top_k, params.top_p)
        logits = drawn_from if greedy is None else torch.where(greedy[:, None], logits, drawn_from)
    kernels = kernels_for(logits)
    if kernels is not None:
        return _draw_compiled(kernels, logits, uniform, _greedy_rows(logits, params, greedy))
    weights = logits.softmax(-1)
    size = block_size(logits.shape[-1])
    masses = weights.unflatten(-1, (-1, size)).sum(-1).double().cumsum_(-1)  # type: ignore[no-untyped-call]
    if params.temperature == 0:
        tokens = _first_of(logits, size)
    else:
        tokens = _invert(weights, masses, uniform[:, None], size)
        if greedy is not None:
            tokens = torch.where(greedy, _first_of(logits, size), tokens)
    chosen = weights.gather(1, tokens[:, None]).double().div_(masses[:, -1:]).log_()
    return tokens, chosen.squeeze(1).float()


def _greedy_rows(logits: Tensor, params: SamplingParams, greedy: Tensor | None) -> Tensor:
    if params.temperature == 0 or greedy is None:
        return torch.full((len(logits),), params.temperature == 0)
    return greedy


def _draw_compiled(kernels: Any, logits: Tensor, uniform: Tensor, greedy: Tensor) -> tuple[Tensor, Tensor]:
    tokens, logprobs = torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits))
    given = (x.contiguous().numpy() for x in (logits, uniform, greedy))
    kernels.draw(*given, tokens.numpy(), logprobs.numpy())
    return tokens, logprobs


def _invert(weights: Tensor, masses: Tensor, uniform: Tensor, size: int) -> Tensor:
    """The first token whose cumulative weight exceeds uniform * total: [R]; never one of weight 0.

    weights: [R, V]; masses: cumulative over blocks of `size` tokens, float64 [R, V / size]; uniform: [R, 1].
    The block is found first, then the token in it, so that no pass in float64 goes over the whole vocabulary.
    """
    point = masses[:, -1:] * _BELOW_ONE * uniform
    block = torch.searchsorted(masses, point, right=True)
    before = F.pad(masses, (1, 0)).gather(1, block)
    places = block * size + torch.arange(size, device=weights.device)
    inside = weights.gather(1, places).double().cumsum_(-1)
    # the block's own sum is rounded otherwise than its part of `masses`: stay within it
    point = torch.minimum(point - before, inside[:, -1:] * _BELOW_ONE)
    return (block * size + torch.searchsorted(inside, point, right=True)).squeeze(1)


def _first_of(logits: Tensor, size: int) -> Tensor:
    """The first token with the highest logit: [R]; by blocks, several times faster than argmax on a CPU."""
    top = logits.amax(-1, keepdim=True)
    blocks = logits.unflatten(-1, (-1, size))  # type: ignore[no-untyped-call]
    block = (blocks.amax(-1) == top).int().argmax(-1, keepdim=True)
    inside = logits.gather(1, block * size + torch.arange(size, device=logits.device))
    return (block * size + (inside == top).int().argmax(-1, keepdim=True)).squeeze(1)  # type: ignore[no-any-return]


@cache
def block_size(vocabulary: int) -> int:
    """The divisor of the vocabulary's size nearest to, and not above, its square root; if 1, all of it."""
    size = next(size for size in range(math.isqrt(vocabulary), 0, -1) if vocabulary % size == 0)
    return size if size > 1 else vocabulary


def restrict(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Logits [R, V] with all but the top k, then all but the smallest set of mass top_p, at -inf."""
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        # The mass before it already suffices. The first stays: a top_p too small for a float is 0.
        beyond = probabilities.cumsum(-1) - probabilities >= max(top_p, LEAST)
        logits = torch.empty_like(logits).scatter_(1, order, ordered.masked_fill(beyond, -torch.inf))
    return logits
