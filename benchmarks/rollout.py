"""Rollout of the native engine, log-probabilities included, against transformers' `generate` without them.

128 samples: 16 prompts of 7 tokens, 8 answers each, random weights, fp32. Once all answers have 64 tokens;
once their lengths are spread geometrically over 1:8, from 16 to 128.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from transformers.utils import logging as transformers_logging

from benchmarks.measure import Measurement, compare
from kascade.miniature.config import mini_config
from kascade.rollout.ending import Ending
from kascade.rollout.native import NativeEngine
from kascade.rollout.rows import Bools, Ints
from kascade.rollout.types import Prompt, SamplingParams

VOCABULARY, PROMPT_TOKENS = 512, 7
PROMPTS, SAMPLES = 16, 8
FIXED_LENGTH = 64
SPREAD = (16, 128)


class GivenLengths(NativeEngine):
    """Ends each answer at a given length, as `EndAtLength` does for `generate`."""

    def __init__(self, model: PreTrainedModel, lengths: Sequence[int]) -> None:
        super().__init__(model, end_ids=[])
        self.lengths = lengths

    def make_ending(self, prompts: Sequence[Prompt], params: SamplingParams) -> Ending:
        return _AtLength(params, self.lengths)


class _AtLength(Ending):
    def __init__(self, params: SamplingParams, lengths: Sequence[int]) -> None:
        super().__init__(params, [], [], None)
        self.lengths = np.array(lengths)

    def stopped(self, numbers: Ints, positions: Ints, tokens: Ints) -> Bools:
        return positions + 1 == self.lengths[numbers]


class EndAtLength(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, lengths: Tensor) -> None:
        self.lengths = lengths

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return input_ids.shape[1] - PROMPT_TOKENS >= self.lengths


def on_cpu(model: str, *, spread: bool, quick: bool) -> list[Measurement]:
    """One model, all answers of one length or of lengths that are spread."""
    transformers_logging.set_verbosity_error()  # on CPU there is no kernel to advise
    lengths = spread_lengths(PROMPTS * SAMPLES) if spread else [FIXED_LENGTH] * (PROMPTS * SAMPLES)
    case = "128 x 16 to 128 tokens" if spread else "128 x 64 tokens"
    return [measure(f"rollout, {model}, {case}", make_model(model), lengths, 1 if quick else 5)]


def qwen3(quick: bool) -> list[Measurement]:
    return on_cpu("mini-qwen3", spread=False, quick=quick)


def qwen3_spread(quick: bool) -> list[Measurement]:
    return on_cpu("mini-qwen3", spread=True, quick=quick)


def nemotron_h(quick: bool) -> list[Measurement]:
    return on_cpu("mini-nemotron-h", spread=False, quick=quick)


def nemotron_h_spread(quick: bool) -> list[Measurement]:
    return on_cpu("mini-nemotron-h", spread=True, quick=quick)


def spread_lengths(count: int, ends: tuple[int, int] = SPREAD) -> list[int]:
    """Lengths in equal steps of their logarithm over the whole spread, in random order."""
    low, high = ends
    lengths = [round(low * (high / low) ** (i / (count - 1))) for i in range(count)]
    random.Random(0).shuffle(lengths)
    return lengths


def make_model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = mini_config(name, VOCABULARY, pad_token_id=0, bos_token_id=None, eos_token_id=1)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = None
    return model


def random_prompts() -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(2, VOCABULARY) for _ in range(PROMPT_TOKENS)] for _ in range(PROMPTS)]


def measure(name: str, model: PreTrainedModel, lengths: Sequence[int], rounds: int) -> Measurement:
    ids = random_prompts()
    own, other = compare(
        partial(sample_ours, GivenLengths(model, lengths), ids, max(lengths)),
        partial(sample_peer, model, ids, lengths),
        rounds,
    )
    tokens = sum(lengths)
    return Measurement(name, tokens / own, "tokens / CPU s", tokens / other, "transformers generate")


def sample_ours(engine: NativeEngine, ids: Sequence[Sequence[int]], longest: int) -> int:
    """Returns the number of tokens drawn."""
    prompts = [Prompt(tuple(one), SAMPLES, seed) for seed, one in enumerate(ids)]
    drawn = engine.sample(prompts, SamplingParams(max_new_tokens=longest))
    return sum(len(sample.logprobs) for samples in drawn for sample in samples)


@torch.inference_mode()
def sample_peer(model: Any, ids: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Returns the number of tokens drawn, those after an answer's end included."""
    drawn = model.generate(
        torch.tensor(ids, device=model.device),
        attention_mask=torch.ones(len(ids), PROMPT_TOKENS, dtype=torch.long, device=model.device),
        num_return_sequences=SAMPLES,
        max_new_tokens=max(lengths),
        do_sample=True,
        top_k=0,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([EndAtLength(torch.tensor(lengths, device=model.device))]),
    )
    return int(drawn[:, PROMPT_TOKENS:].numel())
