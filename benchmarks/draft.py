"""Speculative decoding with the model's own draft head beside plain `generate`, a few answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from benchmarks.measure import Measurement, compare
from benchmarks.rollout import VOCABULARY, random_prompts
from kascade.miniature.config import mini_config
from kascade.models.mtp import add_mtp_head
from kascade.rollout.speculative import SpeculativeEngine
from kascade.rollout.types import Prompt, SamplingParams

ANSWERS, LENGTH, DRAFT_TOKENS = 2, 64, 3


def run(quick: bool) -> list[Measurement]:
    """Random weights: their flat distributions make drafts easy to accept, so the rate is no trained model's.

    Both run transformers' forward, one answer at a time: ours over all drafted tokens at once, `generate` a
    token a step. (At this size, on a CPU, the native engine without drafts is faster than either.)
    """
    transformers_logging.set_verbosity_error()
    torch.manual_seed(0)
    config = mini_config("mini-nemotron-h", VOCABULARY, pad_token_id=0, bos_token_id=None, eos_token_id=1)
    config.num_nextn_predict_layers = 1
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = None
    add_mtp_head(model)
    engine = SpeculativeEngine(model, end_ids=[], draft_tokens=DRAFT_TOKENS)
    prompts = random_prompts()[:ANSWERS]
    asked = [Prompt(tuple(ids), 1, seed) for seed, ids in enumerate(prompts)]
    own, other = compare(
        partial(engine.sample, asked, SamplingParams(max_new_tokens=LENGTH)),
        partial(one_by_one, model, prompts),
        1 if quick else 5,
    )
    tokens, found = ANSWERS * LENGTH, engine.stats.metrics()
    name = f"speculative decoding, mini-nemotron-h, {DRAFT_TOKENS} drafted tokens"
    return [
        Measurement(name, tokens / own, "tokens / CPU s", tokens / other, "transformers generate"),
        Measurement(f"{name}, accepted", 100 * found["draft_acceptance"], "% of drafted tokens"),
        Measurement(f"{name}, tokens won a forward", found["tokens_per_forward"], "tokens"),
    ]


@torch.inference_mode()
def one_by_one(model: Any, prompts: Sequence[Sequence[int]]) -> None:
    for ids in prompts:
        asked = torch.tensor([ids])
        model.generate(
            asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=LENGTH,
            do_sample=True,
            top_k=0,
            pad_token_id=0,
        )
