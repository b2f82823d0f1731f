"""Drawing tokens: counter-based randomness and inverse-CDF sampling, so batching changes nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kascade.rollout.types import SamplingParams

UInts = npt.NDArray[np.uint64]
_GOLDEN = 0x9E3779B97F4A7C15  # increment of SplitMix64
_MASK = 2**64 - 1


def stream_key(seed: int, sample: int) -> int:
    """Key of the random stream of one sample of one prompt."""
    seeded = _mix(np.array([seed & _MASK], dtype=np.uint64))
    with np.errstate(over="ignore"):
        return int(_mix(seeded + np.uint64((sample + 1) * _GOLDEN & _MASK))[0])


def uniforms(keys: UInts, positions: UInts) -> npt.NDArray[np.float64]:
    """One uniform in [0, 1) per row: element `position` of the row's SplitMix64 stream."""
    with np.errstate(over="ignore"):
        bits = _mix(keys + (positions + np.uint64(1)) * np.uint64(_GOLDEN))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: UInts) -> UInts:
    """The output function of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014, figure 17)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def draw(logits: Tensor, uniform: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Tokens [R] and their log-probabilities [R] from logits [R, V] and one uniform a row (float64).

    The log-probability is that of the distribution drawn from: after temperature, top-k and top-p.
    Greedy (temperature 0) has none worth the name, so the model's own (temperature 1) is given.
    """
    logits = logits.float()
    if params.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        logits = restrict(logits / params.temperature, params.top_k, params.top_p)
    logprobs = logits.log_softmax(-1)
    if params.temperature != 0:
        cdf = logprobs.exp().cumsum(-1, dtype=torch.float64)
        # right=True: the first token whose CDF exceeds the point, so one of probability 0 is never drawn
        tokens = torch.searchsorted(cdf, (uniform * cdf[:, -1])[:, None], right=True).squeeze(1)
        tokens.clamp_(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(1, tokens[:, None]).squeeze(1)


def restrict(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Logits [R, V] with all but the top k, then all but the smallest set of mass top_p, at -inf."""
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        beyond = probabilities.cumsum(-1) - probabilities >= top_p  # the mass before it already suffices
        logits = torch.empty_like(logits).scatter_(1, order, ordered.masked_fill(beyond, -torch.inf))
    return logits
