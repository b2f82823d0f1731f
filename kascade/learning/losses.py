"""Losses as pure functions of log-probabilities. N: scored tokens of a micro-batch.

Every loss takes `weights` [N] that already hold the normalisation over the whole batch (see the
`*_weights` functions), so that summing over micro-batches gives the loss of the batch, however it is cut.

Sources: [C2] Nemotron-Cascade 2 (arXiv 2603.19220), [S3] Nemotron 3 Super (arXiv 2604.12374),
[C1] Nemotron-Cascade (arXiv 2512.13607).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kascade.recipe.schema import Correction


def per_token_weights(lengths: Sequence[int]) -> list[float]:
    """Weight of a token in each sequence so that all tokens count alike: 1 / sum |o|.

    SFT stage 1 [S3 SFT]; GRPO's token-level loss [C2 Eq. 1], whose sum, as in NeMo-RL, runs over the
    tokens of the whole rollout batch.
    """
    total = sum(lengths)
    return [1.0 / total] * len(lengths)


def per_sample_weights(lengths: Sequence[int]) -> list[float]:
    """Weight of a token in each sequence so that all sequences count alike: 1 / (B |o_i|).

    SFT stage 2 [S3 SFT]; MOPD's mean over the tokens of an answer, then over answers [C2 Eq. 4].
    """
    return [1.0 / (len(lengths) * length) for length in lengths]


def constant_weights(lengths: Sequence[int], max_tokens: int) -> list[float]:
    """Weight of a token that no length changes: 1 / (B max_tokens). Dr.GRPO (arXiv 2503.20783 §3.2)."""
    return [1.0 / (len(lengths) * max_tokens)] * len(lengths)


def supervised_loss(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy: -sum w log p. [S3 SFT]"""
    return -(weights * logprobs).sum()


def policy_gradient_loss(logprobs: Tensor, advantages: Tensor, weights: Tensor) -> Tensor:
    """Strictly on-policy token-level policy gradient: -sum w A log pi. [C2 §4.1.2 Eq. 1]

    One update a batch keeps the importance ratio at 1, so there is neither ratio nor clipping.
    """
    return -(weights * advantages * logprobs).sum()


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, weights: Tensor, *, low: float, high: float
) -> Tensor:
    """-sum w min(r A, clip(r, 1 - low, 1 + high) A) with r = pi / pi_old: later updates of a batch.

    PPO (arXiv 1707.06347 Eq. 7), clipped higher above than below (DAPO, arXiv 2503.14476 §3.1). Where r is 1
    its gradient is that of `policy_gradient_loss`.
    """
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1.0 - low, 1.0 + high)
    return -(weights * torch.minimum(ratio * advantages, clipped * advantages)).sum()


def importance_weights(
    logprobs: Tensor, sampler_logprobs: Tensor, sequence: Tensor, rule: Correction
) -> tuple[Tensor, Tensor]:
    """(weights [N], kept [N]) that correct for a sampler which is not quite the trainer; no gradient.

    r = trainer / sampler probability of the token. tis: r clamped to the range (truncated importance
    sampling, Ionides 2008); icepop: r inside the range, else 0; sequence_mask: r in rollouts whose geometric
    mean of r is in the range, else 0. [NeMo-RL truncated_importance_sampling_type]
    sequence: [N] number of each token's rollout.
    """
    # Detached: the correction is a weight of the update, not something to be trained.
    gap = logprobs.detach() - sampler_logprobs
    ratio = gap.exp()
    if rule.rule == "tis":
        return ratio.clamp(rule.low, rule.high), torch.ones_like(ratio, dtype=torch.bool)
    # A mask never clamps: inside the range the true ratio stays, so the kept part has no bias.
    judged = ratio
    if rule.rule == "sequence_mask":
        _, rows, counts = torch.unique(sequence, return_inverse=True, return_counts=True)
        # Mean of log r over a rollout, then exp: the geometric mean, which does not grow with length.
        sums = torch.zeros(len(counts), dtype=gap.dtype, device=gap.device).index_add_(0, rows, gap)
        judged = (sums / counts).exp()[rows]
    kept = (judged >= rule.low) & (judged <= rule.high)
    return torch.where(kept, ratio, 0.0), kept


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Per-token estimate [N] of KL(pi || reference): exp(d) - d - 1 with d = log ref - log pi.

    Never negative, low variance (Schulman, "Approximating KL divergence", k3; GRPO, arXiv 2402.03300 Eq. 4).
    """
    difference = reference_logprobs - logprobs
    return difference.exp() - difference - 1.0


@dataclass(frozen=True, slots=True)
class Distillation:
    """Loss, and what to watch: dropped [N] bool (ratio outside the range), reverse_kl [N] estimate, nats."""

    loss: Tensor
    dropped: Tensor
    reverse_kl: Tensor


def in_importance_range(
    logprobs: Tensor, sampler_logprobs: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """(ratio [N], kept [N]): trainer / sampler probability; whether low <= ratio <= high. [C2 §4.4 Eq. 3]"""
    ratio = (logprobs.detach() - sampler_logprobs).exp()
    return ratio, (ratio >= low) & (ratio <= high)


def sampled_distillation(
    logprobs: Tensor,
    sampler_logprobs: Tensor,
    teacher_logprobs: Tensor,
    weights: Tensor,
    *,
    low: float,
    high: float,
) -> Distillation:
    """MOPD on the sampled token: -sum w sg[r] 1[low <= r <= high] sg[a] log pi, a = log teacher - log pi.

    [C2 §4.4 Eq. 2-4]. A token outside the range is dropped, not clamped; it still counts in the
    answer's number of tokens.
    """
    # The advantage is the log-ratio itself, held still: its gradient is the REINFORCE form of the reverse KL.
    ratio, kept = in_importance_range(logprobs, sampler_logprobs, low, high)
    advantages = teacher_logprobs - logprobs.detach()
    coefficients = weights * torch.where(kept, ratio * advantages, 0.0)
    return Distillation(-(coefficients * logprobs).sum(), ~kept, -advantages)


def reverse_kl(student_logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """KL(student || teacher) [N] over the whole vocabulary, from log-softmaxes [N, V].

    The exact expectation of the sampled-token objective at each state of the student's own answers
    (on-policy distillation, arXiv 2306.13649).
    """
    return (student_logprobs.exp() * (student_logprobs - teacher_logprobs)).sum(-1)


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean -log sigmoid(r_chosen - r_rejected) over pairs [P]. [C1 §4.2, scalar reward model]"""
    return -functional.logsigmoid(chosen - rejected).mean()
